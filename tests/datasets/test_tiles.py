"""Tiles: the same pixels from every format of a product; labels, splits, and products that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rasterio.warp import transform

from archives import CODES, GSD
from conftest import Cli
from landscale.datasets.survey import Survey
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.datasets.tiles import corine
from landscale.datasets.tiles import survey as tiles
from landscale.store import open_store
from landscale.vocabulary.nomenclatures import CLC43, nomenclature
from landscapes import NAME, SIDE, facts, refused, same
from products import (
    CORNER,
    EPSG,
    Bands,
    classification,
    image,
    noise,
    read,
    write_jp2,
    write_manifest,
    write_safe,
    write_tiffs,
)

# ---- formats


FORMATS = {
    "plain": {},
    "lzw": {"compress": "lzw", "tiled": True, "blockxsize": 256, "blockysize": 256},
    "deflate": {"compress": "deflate", "predictor": 2},
    "zstd": {"compress": "zstd", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "cog": {"driver": "COG", "blocksize": 128, "compress": "lzw"},
}


def test_every_format_gives_the_same_patches(
    bands: Bands, safe: Path, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    first = facts(prepared("tiles", safe, "--corine", clc))
    assert len(first) == 25
    scl = classification(SIDE)
    for name, how in FORMATS.items():
        product = write_tiffs(tmp_path / name, PRODUCT, bands, scl, **how)
        found = facts(prepared("tiles", product, "--corine", clc, name=f"{name}.h5"))
        found.index = found.index.str.replace("N9999", "N0500")
        same(found, first)


def test_patches_have_the_pixels_of_the_tile_at_their_column_and_row(
    bands: Bands, safe: Path, clc: Path, prepared: Callable[..., Path]
) -> None:
    """Compared with slices of the bands, which have no offset."""
    store = open_store(prepared("tiles", safe, "--corine", clc))
    for i, name in enumerate(store.column("name")):
        column, row = map(int, name.split("_")[-2:])
        for plane in store.layout.planes:
            inside = np.s_[row * plane.side : (row + 1) * plane.side, column * plane.side : (column + 1) * plane.side]
            for pixels, band in zip(store.pixels(plane.key, [i])[0], plane.bands, strict=True):
                assert (pixels == bands[band][inside]).all()
        assert store.column("origin")[i].tolist() == [CORNER[0] + 1200 * column, CORNER[1] - 1200 * row]
    assert set(store.column("crs")) == {f"EPSG:{EPSG}"}


def test_copies_of_bands_at_other_resolutions_and_masks_are_ignored(
    bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """Products have B02 also at 20 m, and masks whose names end like those of bands."""
    product = write_safe(tmp_path, NAME.format("0300", "T33XXX"), bands)
    expected = facts(prepared("tiles", product, "--corine", clc))
    folder = image(product, "B05").parent
    write_jp2(folder / "T33XXX_20990101T000000_B02_20m.jp2", bands["B05"], 20)
    write_jp2(product / "GRANULE/L2A/QI_DATA/MSK_DETFOO_B03.jp2", np.ones((600, 600), np.uint8), 10)
    write_manifest(product)
    same(facts(prepared("tiles", product, "--corine", clc, name="more.h5")), expected)


def test_the_offset_is_subtracted_where_the_product_has_one(
    bands: Bands, tmp_path: Path, clc: Path, prepared: Callable[..., Path]
) -> None:
    """1000 by the metadata; 1000 by the baseline in the name; 0 before baseline 04.00, whatever the digital numbers are."""
    by_metadata = write_safe(tmp_path / "by_metadata", NAME.format("0500", "T33XXX"), bands, offset=1000)
    by_name = write_tiffs(
        tmp_path / "by_name",
        NAME.format("0400", "T33XXX"),
        {band: values + np.uint16(1000) for band, values in bands.items()},
    )
    without = write_tiffs(tmp_path / "without", NAME.format("0214", "T33XXX"), bands)
    pixels = [
        sorted(facts(prepared("tiles", product, "--corine", clc, name=f"{product.parent.name}.h5"))["pixels"])
        for product in (by_metadata, by_name, without)
    ]
    assert pixels[0] == pixels[1] == pixels[2]
    unharmonised = write_tiffs(
        tmp_path / "raw",
        NAME.format("0214", "T33XXX"),
        {band: values + np.uint16(1000) for band, values in bands.items()},
    )
    assert not {*pixels[0]} & {*facts(prepared("tiles", unharmonised, "--corine", clc, name="raw.h5"))["pixels"]}


def test_nodata_is_0_and_patches_without_data_are_left_out(
    tmp_path: Path, clc: Path, prepared: Callable[..., Path]
) -> None:
    """The product has an offset for all digital numbers except nodata."""
    bands = noise(480)
    for band, gsd in GSD.items():
        bands[band][:, 1800 // gsd :] = 0  # from the middle of the second column of patches
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000)
    store = open_store(prepared("tiles", product, "--corine", clc))
    names = store.column("name")
    assert sorted({int(name.split("_")[-2]) for name in names}) == [0, 1]
    np.testing.assert_array_equal(store.column("nodata_share"), [0.5 if "_01_" in name[-6:] else 0 for name in names])
    assert np.isnan(store.column("cloud_share")).all()
    for i, name in enumerate(names):
        pixels = store.pixels("data_10m", [i])[0]
        assert (pixels[..., 60:] == 0).all() == ("_01_" in name[-6:])
        assert (pixels[..., :60] == bands_of(bands, name)[..., :60]).all()
    edge = open_store(prepared("tiles", product, "--corine", clc, "--max-nodata", 0.4, name="less.h5"))
    assert len(edge) == 4


def bands_of(bands: Bands, name: str) -> NDArray[np.generic]:
    """The bands of 10 m of a patch."""
    column, row = map(int, name.split("_")[-2:])
    inside = np.s_[row * 120 : (row + 1) * 120, column * 120 : (column + 1) * 120]
    return np.stack([bands[band][inside] for band in ("B02", "B03", "B04", "B08")])


# ---- labels


@pytest.mark.parametrize(("labels", "min_share"), [("ben19", 0), ("clc43", 0), ("clc43", 0.1)])
def test_labels_from_corine(
    labels: str, min_share: float, safe: Path, clc: Path, prepared: Callable[..., Path]
) -> None:
    """Compared with the cell of the map under each of the 14,400 pixels of a patch."""
    store = open_store(prepared("tiles", safe, "--corine", clc, "--labels", labels, "--min-share", min_share))
    target, codes = nomenclature(labels), sorted(corine.CODES)
    cells = read(clc)
    import rasterio

    with rasterio.open(clc) as file:
        inverse = ~file.transform
    at = np.arange(120) * 10 + 5
    undecided = 0
    for origin, row in zip(store.column("origin"), store.classes, strict=True):
        x, y = np.meshgrid(origin[0] + at, origin[1] - at)
        u, v = transform(f"EPSG:{EPSG}", "EPSG:3035", x.ravel(), y.ravel())
        column, line = (np.floor(part).astype(int) for part in inverse * (np.array(u), np.array(v)))
        fraction = np.zeros(len(target.classes))
        for rank, count in zip(*np.unique(cells[line, column], return_counts=True), strict=True):
            names = [c.name for c in CLC43.classes if c.code == codes[rank - 1]]
            fraction[target.columns(names)] += count / 14_400
        expected = (fraction > 0) & (fraction >= min_share)
        decided = np.abs(fraction - max(min_share, 0.001)) > 0.002  # not within the error of the sampling
        assert (row[decided] == expected[decided]).all()
        undecided += int((~decided & (fraction > 0)).sum())
    assert undecided < 0.02 * store.classes.size
    assert store.layout.nomenclature == labels
    assert store.attributes["provenance"]["corine"] == clc.name


def test_patches_of_the_synthetic_country_have_labels_of_many_classes(whole: Path) -> None:
    store = open_store(whole)
    assert store.attributes["provenance"]["synthetic"] is True
    assert (store.classes.sum(1) > 0).all()
    assert (store.classes.sum(0) > 0).sum() > 10
    assert 0 < store.column("nodata_share").max() < 1


def test_patches_beyond_the_map_are_left_out(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    part = tmp_path / "part.tif"
    import rasterio

    with rasterio.open(clc) as file:
        cells, profile = file.read(1), file.profile
    cells[:, cells.shape[1] // 3 :] = 0
    with rasterio.open(part, "w", **profile) as file:
        file.write(cells, 1)
    product = write_tiffs(tmp_path, PRODUCT, bands)
    answer = cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", part, "--json", "--workers", 1)
    left_out = open_store(tmp_path / "s.h5").attributes["provenance"]["left_out"]["not on the map"]
    assert answer.json["patches"] == 25 - left_out < 25
    far = write_tiffs(tmp_path / "far", PRODUCT, bands, corner=(CORNER[0], CORNER[1] - 900_000))
    refused(
        cli("prepare", "tiles", far, tmp_path / "t.h5", "--corine", part),
        far,
        "has no patch to use",
        "'not on the map': 25",
    )


def test_without_a_map_and_a_patch_list_labels_are_missing(safe: Path, tmp_path: Path, cli: Cli) -> None:
    refused(
        cli("prepare", "tiles", safe, tmp_path / "s.h5"), "no labels", "--corine MAP", "--patch-list", "--labels none"
    )


def test_tiles_without_labels_give_all_patches_in_train(
    safe: Path, tmp_path: Path, cli: Cli, clc: Path, prepared: Callable[..., Path]
) -> None:
    labelled, store = open_store(prepared("tiles", safe, "--corine", clc)), tmp_path / "s.h5"
    assert cli("prepare", "tiles", safe, store, "--labels", "none").code == 0
    found = open_store(store)
    assert (found.layout.classes, found.layout.nomenclature, found.split_sizes()) == ((), "none", {"train": 25})
    assert found.column("name").tolist() == labelled.column("name").tolist()
    table = pd.DataFrame(
        {"patch_id": found.column("name")[:6], "labels": "unheard of", "split": ["val"] * 2 + ["train"] * 4}
    )
    table.to_csv(tmp_path / "list.csv", index=False)
    listed = tmp_path / "listed.h5"
    assert cli("prepare", "tiles", safe, listed, "--labels", "none", "--patch-list", tmp_path / "list.csv").code == 0
    assert open_store(listed).split_sizes() == {"train": 4, "val": 2}
    refused(
        cli("prepare", "tiles", safe, tmp_path / "t.h5", "--labels", "none", "--corine", clc),
        "--labels none: takes no --corine",
    )


# ---- splits


def test_patches_of_a_block_of_the_ground_have_one_split(whole: Path, tmp_path: Path, clc: Path) -> None:
    """Blocks of 6 × 6 patches; the same for tiles that overlap, so that no ground is in two splits."""
    opened = open_store(whole)
    splits = {tuple(o): s for o, s in zip(opened.column("origin").tolist(), opened.splits.tolist(), strict=True)}
    blocks: dict[tuple[float, float], set[int]] = {}
    for (x, y), split in splits.items():
        blocks.setdefault((x // 7200, (-y // 1200) // 6), set()).add(split)
    assert all(len(found) == 1 for found in blocks.values())
    assert {*opened.splits.tolist()} == {1, 2, 3}
    west = write_tiffs(tmp_path, "west", noise(1200))
    east = write_tiffs(tmp_path, "east", noise(1200), corner=(CORNER[0] + 6000, CORNER[1]))
    survey = tiles.survey([(None, west), (None, east)], corine=clc)
    assert isinstance(survey, Survey)
    places = {
        (n, y, x + 600 * n): s for (n, y, x), s in zip(survey.table["location"], survey.table["split"], strict=True)
    }
    both = [(places[0, y, x], s) for (n, y, x), s in places.items() if n == 1 and (0, y, x) in places]
    assert len(both) > 20
    assert all(a == b for a, b in both)


def test_splits_by_input_and_by_lists(country: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    one, two, three = sorted(country.glob("*.SAFE"))
    words = ("--corine", clc, "--workers", 1)
    answer = cli("prepare", "tiles", f"train={one}", f"val={two}", f"test={three}", tmp_path / "s.h5", *words)
    assert answer.code == 0, answer.lines
    found = facts(tmp_path / "s.h5", ("split", "tile"))
    expected = {"T33XAA": CODES["train"], "T33XAB": CODES["val"], "T33XAC": CODES["test"]}
    assert {*zip(found["tile"], found["split"], strict=True)} == {*expected.items()}
    lists = tmp_path / "lists"
    lists.mkdir()
    for k, split in enumerate(("train", "val", "test")):
        (lists / f"{split}.csv").write_text("".join(f"{name}\n" for name in found.index[k::4]))
    assert cli("prepare", "tiles", country, tmp_path / "l.h5", *words, "--lists", lists).code == 0
    listed = facts(tmp_path / "l.h5", ("split",))["split"].tolist()
    assert listed == [(1, 2, 3, 0)[k % 4] for k in range(len(found))]
    (tmp_path / "none").mkdir()
    answer = cli("prepare", "tiles", country, tmp_path / "n.h5", *words, "--lists", tmp_path / "none")
    refused(answer, tmp_path / "none", "list named train, val or test")
    refused(cli("prepare", "tiles", f"tain={one}", tmp_path / "n.h5", *words), "tain")


def test_tiles_as_several_inputs_give_the_same_patches(
    country: Path, whole: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    products = sorted(country.glob("*.SAFE"), reverse=True)
    answer = cli("prepare", "tiles", *products, tmp_path / "s.h5", "--corine", clc, "--workers", 1)
    assert answer.code == 0, answer.lines
    same(facts(tmp_path / "s.h5"), facts(whole))


# ---- products that are refused


def test_tiles_with_other_bands_are_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    write_tiffs(tmp_path / "in", "a", bands)
    fewer = {band: values for band, values in bands.items() if band != "B02"}
    write_tiffs(tmp_path / "in", "b", fewer)
    refused(
        cli("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--corine", clc),
        tmp_path / "in" / "b",
        "but a has B01",
    )


@pytest.mark.parametrize("keep", [["B02", "B03", "B04"], ["B05", "B11"], ["B09"], ["B04", "B8A", "B01"]])
def test_any_subset_of_the_bands_is_stored(
    keep: list[str], bands: Bands, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """Including subsets without a band of 10 m."""
    subset = {band: bands[band] for band in keep}
    store = open_store(prepared("tiles", write_tiffs(tmp_path, PRODUCT, subset), "--corine", clc))
    assert len(store) == 25
    assert {*store.layout.bands} == {*keep}
    for plane in store.layout.planes:
        inside = np.s_[2 * plane.side : 3 * plane.side, 3 * plane.side : 4 * plane.side]
        (i,) = np.flatnonzero([name.endswith("_03_02") for name in store.column("name")])
        assert all(
            (store.pixels(plane.key, [i])[0, b] == bands[band][inside]).all() for b, band in enumerate(plane.bands)
        )


def test_a_band_with_the_resolution_of_another_is_refused(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    write_tiffs(tmp_path, "a", {"B02": bands["B02"], "B05": bands["B05"]})
    write_band_at(tmp_path / "a" / "B05.tif", bands["B02"], 10)
    answer = cli("prepare", "tiles", tmp_path / "a", tmp_path / "s.h5", "--corine", clc)
    refused(answer, tmp_path / "a" / "B05.tif", "10 m, expected 20 m")


def write_band_at(path: Path, values: NDArray[np.generic], gsd: int) -> None:
    from archives import write_band

    write_band(path, values, CORNER, gsd, EPSG)


def test_a_band_that_is_in_the_manifest_and_missing_is_refused(
    bands: Bands, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000)
    image(product, "B06").unlink()
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), "_B06_20m.jp2", "is missing")
