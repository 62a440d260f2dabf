"""Damaged and randomly changed tiles and lists: the error names the file, and only damaged patches are left out."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from archives import GSD
from conftest import Cli, command, outcome
from landscale.datasets.survey import Survey
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.datasets.tiles import survey as tiles
from landscale.errors import BadInput, LandscaleError
from landscapes import NAME, facts, refused, same, table_of
from products import Bands, classification, image, noise, write_safe, write_tiffs

# ---- damage


@pytest.fixture
def product(safe: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(safe, tmp_path / safe.name))


def flip_bytes(path: Path, at: float = 0.6, count: int = 40) -> None:
    content = bytearray(path.read_bytes())
    for k in range(count):
        content[int(len(content) * at) + k] ^= 0xA5
    path.write_bytes(content)


@pytest.mark.parametrize("key", ["B03", "B12", "B01"])
def test_flipped_bytes_are_detected_by_the_manifest(
    key: str, product: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    flip_bytes(image(product, key))
    words = ("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc, "--workers", 1)
    refused(cli(*words), image(product, key), "is damaged", "--skip-bad")
    answer = cli(*words, "--skip-bad")
    refused(answer, image(product, key), "none of 25 patches")


def test_a_truncated_file_is_detected_by_the_manifest(product: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    path = image(product, "B8A")
    os.truncate(path, path.stat().st_size - 1)
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path, "by the product's manifest")


def test_a_manifest_that_is_no_file_is_refused(product: Path, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """It would be ignored, with the sizes and digests in it."""
    path = product / "manifest.safe"
    path.unlink()
    path.symlink_to("/dev/random")
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path, "is not a regular file")


@pytest.mark.parametrize("name", ["MTD_MSIL2A.xml", "SCL"])
def test_flipped_bytes_in_metadata_and_classification_are_detected_by_the_manifest(
    name: str, product: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    path = image(product, "SCL") if name == "SCL" else product / name
    flip_bytes(path, count=1)
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path, "is damaged")


def test_patches_of_a_damaged_tile_are_skipped_and_others_kept(
    country: Path, whole: Path, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    bad = Path(shutil.copytree(country, tmp_path / "in")) / sorted(p.name for p in country.glob("*.SAFE"))[1]
    flip_bytes(image(bad, "B04"))
    words = ("prepare", "tiles", tmp_path / "in", tmp_path / "s.h5", "--corine", clc, "--skip-bad")
    answer = outcome(command(*words, "--workers", 2, "--json"))
    assert answer.code == 0, answer.lines
    expected = facts(whole)
    same(facts(tmp_path / "s.h5"), expected[expected["tile"] != "T33XAB"])
    assert len(answer.json["skipped"]) == (expected["tile"] == "T33XAB").sum()


def test_patches_of_undamaged_blocks_are_kept(bands: Bands, clc: Path, tmp_path: Path, cli: Cli) -> None:
    """Without a manifest, only the patches in blocks that cannot be decoded are skipped."""
    product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, offset=1000, manifest=False)
    words = ("prepare", "tiles", product, "--corine", clc, "--workers", 1)
    assert cli(*words, tmp_path / "whole.h5").code == 0
    path = image(product, "B03")
    os.truncate(path, int(path.stat().st_size * 0.75))
    refused(cli(*words, tmp_path / "s.h5"), path, "cannot be decoded")
    answer = cli(*words, tmp_path / "s.h5", "--skip-bad", "--json")
    assert answer.code == 0, answer.lines
    skipped = answer.json["skipped"]
    assert all(str(path) in line for line in answer.lines)
    expected = facts(tmp_path / "whole.h5")
    same(facts(tmp_path / "s.h5"), expected.drop(index=skipped))
    # Blocks of 256 px are in the file from north to south: the first row of blocks is intact, the last is lost.
    assert 5 <= len(skipped) <= 15
    assert not [name for name in skipped if int(name.split("_")[-1]) < 2]
    with pytest.raises(LandscaleError):
        read_all_patches(tiles.survey([(None, product)], corine=clc))


def read_all_patches(survey: Survey) -> None:
    """Raises the first error of a patch."""
    planes = survey.layout.buffers(len(survey.table))
    assert survey.classes is not None
    for found in survey.read(list(survey.table["location"]), planes, survey.classes):
        if isinstance(found, LandscaleError):
            raise found


@pytest.mark.parametrize("how", ["cut", "random", "missing"])
@pytest.mark.parametrize("suffix", ["tif", "jp2"])
def test_a_band_that_is_truncated_random_or_missing_is_refused(
    suffix: str, how: str, bands: Bands, clc: Path, tmp_path: Path, cli: Cli
) -> None:
    if suffix == "tif":
        product = write_tiffs(tmp_path, PRODUCT, bands)
        path = product / "B11.tif"
    else:
        product = write_safe(tmp_path, NAME.format("0500", "T33XXX"), bands, manifest=False)
        path = image(product, "B11")
    if how == "cut":
        os.truncate(path, 60)
    elif how == "random":
        path.write_bytes(random.Random(0).randbytes(5000))
    else:
        path.unlink()
        path.symlink_to("nowhere")
    refused(cli("prepare", "tiles", product, tmp_path / "s.h5", "--corine", clc), path)


# ---- random changes


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change, flip, delete, repeat or replace some bytes, or cut off the end."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, size = rng.randrange(len(found) or 1), rng.choice((1, 1, 2, 4, 30))
        kind = rng.randrange(6)
        if kind == 0:
            found[at : at + size] = rng.randbytes(size)
        elif kind == 1 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = found[at : at + size]
        elif kind == 4:
            found[at : at + size] = rng.choice(
                [b"-1", b"nan", b"\x00", b"\xff\xff", b"9" * 25, b"<", b",", b"\n", b"'"]
            )
        elif rng.random() < 0.3:
            del found[at:]
    return bytes(found)


def count_refusals(victim: Path, number: int, attempt: Callable[[], object], folder: Path) -> int:
    """Mutate a file `number` times: each attempt succeeds, or raises one line that names a file in `folder`."""
    original, rng = victim.read_bytes(), random.Random(victim.name)
    refusals: list[str] = []
    for _ in range(number):
        content = mutate(original, rng)
        victim.unlink()  # a new file, because GDAL may have the old one open
        victim.write_bytes(content)
        try:
            attempt()
        except BadInput as error:
            refusals.append(str(error))
    victim.write_bytes(original)
    assert not [line for line in refusals if str(folder) not in line or "\n" in line]
    return len(refusals)


MUTATIONS = ["jp2", "SCL", "manifest.safe", "MTD_MSIL2A.xml", "csv", "parquet", "txt", "json"]


def try_mutations(kind: str, number: int, archive_v1: Path, archive: Path, clc: Path, folder: Path) -> None:
    bands = {
        band: values[: 2400 // gsd, : 2400 // gsd]
        for (band, values), gsd in zip(noise(600).items(), GSD.values(), strict=True)
    }
    subset = {band: bands[band] for band in ("B02", "B05", "B01")}
    name = NAME.format("0500", "T33XXX")
    product = write_safe(folder, name, subset, classification(240), 1000, manifest=kind == "manifest.safe")
    listed = folder / f"list.{kind}"
    if kind == "jp2":
        victim = image(product, "B02")
    elif kind == "SCL":
        victim = image(product, "SCL")
    elif kind in ("manifest.safe", "MTD_MSIL2A.xml"):
        victim = product / kind
    elif kind == "json":
        listed = folder / "v1"
        source = next(archive_v1.glob("BigEarthNet-v1.0/*_0_0"))
        victim = Path(shutil.copytree(source, listed / source.name)) / f"{source.name}_labels_metadata.json"
    else:
        victim = listed
        table = table_of(archive)
        table = table[(table["column"] < 2) & (table["row"] < 2)]
        if kind == "txt":
            victim.write_text("\n".join(table["patch_id"]))
        elif kind == "parquet":
            table[["patch_id", "labels", "split", "ulx", "uly", "crs", "contains_seasonal_snow"]].to_parquet(victim)
        else:
            part = table.drop(columns=["labels", "patch_id"]).rename(columns={"text": "labels"})
            part.to_csv(victim, index=False)
    is_list = kind in ("csv", "parquet", "txt", "json")

    def attempt() -> None:
        listing = {"patch_list": listed, "labels": "clc43" if kind == "json" else None} if is_list else {}
        survey = tiles.survey([(None, product)], corine=clc, max_cloud=1, max_snow=1, max_nodata=1, **listing)  # type: ignore[arg-type]
        if is_list:
            return
        read_all_patches(survey)

    assert count_refusals(victim, number, attempt, folder) > number // 100


@pytest.mark.parametrize("kind", MUTATIONS)
def test_20_mutations(kind: str, archive_v1: Path, archive: Path, clc: Path, tmp_path: Path) -> None:
    try_mutations(kind, 20, archive_v1, archive, clc, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MUTATIONS)
def test_2000_mutations(kind: str, archive_v1: Path, archive: Path, clc: Path, tmp_path: Path) -> None:
    try_mutations(kind, 2000, archive_v1, archive, clc, tmp_path)
