"""Features of patches in a file: right values, labels and footprints, the same bytes after a kill and for any number of ranks."""

from __future__ import annotations

import hashlib
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio.warp
import shapely
import torch

from conftest import Cli
from landscale.cli import main
from landscale.errors import BadInput, BadStore, Diverged, UnknownName
from landscale.inference import embed as embed_module
from landscale.inference.embed import embed
from landscale.inference.features_file import read_features
from landscale.inference.footprints import footprint_corners
from landscale.models.classifier import Classifier
from landscale.models.weights import load_model, save_weights
from landscale.store import PatchStore, Plane
from landscale.testing import CLASSES, make_store, rgbn_plane
from launchers import run_on_ranks, run_until_killed
from small_networks import save_small_encoder
from tiny import write

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
BANDS = ("B04", "B03", "B02")
SPLITS = {"train": 9, "val": 5, "test": 7}
BATCH = 4


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> PatchStore:
    folder = tmp_path_factory.mktemp("stores")
    return make_store(folder / "s.h5", planes=rgbn_plane(12), splits=SPLITS, bad=[1])


@pytest.fixture(scope="module")
def weights(patches: PatchStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_encoder(tmp_path_factory.mktemp("weights") / "encoder", patches, BANDS)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_module, "PART", BATCH)


def expected_features(weights: Path, store: PatchStore, rows: np.ndarray) -> np.ndarray:
    """Computed patch by patch, in float32, without the loading of `embed`."""
    classifier = load_model(weights)
    plane = store.layout.planes[0]
    pixels = torch.from_numpy(store.pixels(plane.key, rows))
    return np.concatenate([classifier.features({plane.bands: pixels[k : k + 1]}).numpy() for k in range(len(rows))])


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_rows_are_those_of_the_store(cli: Cli, patches: PatchStore, weights: Path, tmp_path: Path, small_parts: None):
    out = tmp_path / "features.parquet"
    answer = cli("embed", weights, patches.path, out, "--batch", BATCH, "--json")
    assert answer.code == 0, answer.lines
    rows = np.array([k for k in range(21) if k != 1])  # patch 1 is damaged
    table = pq.read_table(out).to_pylist()
    assert [row["name"] for row in table] == [f"patch_{k:04d}" for k in rows]
    assert [row["split"] for row in table] == ["train"] * 8 + ["val"] * 5 + ["test"] * 7
    assert [row["labels"] for row in table] == [
        [name for name, flag in zip(CLASSES, patches.classes[k], strict=True) if flag] for k in rows
    ]
    found = np.array([row["features"] for row in table])
    np.testing.assert_allclose(found, expected_features(weights, patches, rows), rtol=1e-4, atol=1e-5)
    assert pq.ParquetFile(out).num_row_groups == 5
    assert answer.json["patches"] == 20
    assert answer.json["width"] == found.shape[1]
    assert answer.json["splits"] == {"train": 8, "val": 5, "test": 7}
    assert [path.name for path in tmp_path.iterdir()] == ["features.parquet"]


def test_the_metadata_describes_the_weights(patches: PatchStore, weights: Path, tmp_path: Path):
    written = embed(weights, patches, tmp_path / "f.parquet", ["test"], show=False)
    about = json.loads(pq.read_schema(tmp_path / "f.parquet").metadata[b"landscale"])
    assert about["weights"] == written.weights == load_model(weights).digest()
    assert about["bands"] == list(BANDS)
    assert about["units"] == dict.fromkeys(BANDS, "digital number")
    assert about["level"] == "L2A"
    features = read_features(tmp_path / "f.parquet")
    assert features.values.dtype == np.float32
    assert features.values.shape == (7, written.width)
    assert set(features.splits) == {"test"}


def test_footprints_in_geoparquet(patches: PatchStore, weights: Path, tmp_path: Path):
    """Read by pyarrow and shapely alone, as the format describes it."""
    out = tmp_path / "f.parquet"
    embed(weights, patches, out, ["val"], show=False)
    geo = json.loads(pq.read_schema(out).metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"], column.get("crs", "absent")) == ("WKB", ["Polygon"], "absent")
    table = pq.read_table(out)
    polygons = shapely.from_wkb(table["geometry"].to_pylist())
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds(polygons))
    np.testing.assert_allclose([list(box.values()) for box in table["bbox"].to_pylist()], shapely.bounds(polygons))
    assert all(polygon.is_valid and polygon.exterior.is_ccw for polygon in polygons)
    for k, polygon in zip(range(9, 14), polygons, strict=True):  # back in the store's own system: a square of 120 m
        x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32633", *polygon.exterior.xy)
        square = shapely.Polygon(list(zip(x, y, strict=True)))
        left, top = 300_000 + 1200.0 * k, 5_000_000.0
        np.testing.assert_allclose(square.bounds, (left, top - 120, left + 120, top), atol=1e-3)
        assert square.area == pytest.approx(120**2, rel=1e-5)


def test_geopandas_opens_it(patches: PatchStore, weights: Path, tmp_path: Path):
    geopandas = pytest.importorskip("geopandas")
    embed(weights, patches, tmp_path / "f.parquet", show=False)
    frame = geopandas.read_parquet(tmp_path / "f.parquet")
    assert frame.crs.equals("OGC:CRS84")
    assert len(frame) == 20
    squares = frame.to_crs("EPSG:32633")
    assert squares.area.to_numpy() == pytest.approx(120**2, rel=1e-5)
    assert np.stack(frame["features"]).dtype == np.float32


def test_a_patch_without_a_place_has_no_geometry(patches: PatchStore, weights: Path, tmp_path: Path):
    column = type(patches).column

    def half_placed(self: PatchStore, key: str) -> np.ndarray:
        values = column(self, key)
        if key == "crs":
            values = values.copy()
            values[::2] = ""
        return values

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(patches), "column", half_placed)
        embed(weights, patches, tmp_path / "f.parquet", ["test"], show=False)
    table = pq.read_table(tmp_path / "f.parquet")
    empty = [value is None for value in table["geometry"].to_pylist()]
    assert empty == [k % 2 == 0 for k in range(14, 21)]
    assert [value is None for value in table["bbox"].to_pylist()] == empty


def test_a_store_without_places_is_embedded(patches: PatchStore, weights: Path, tmp_path: Path):
    column = type(patches).column
    with pytest.MonkeyPatch.context() as patched:
        nowhere = np.full((21, 2), np.nan)
        patched.setattr(type(patches), "column", lambda self, key: nowhere if key == "origin" else column(self, key))
        embed(weights, patches, tmp_path / "f.parquet", ["val"], show=False)
    assert pq.read_table(tmp_path / "f.parquet")["geometry"].null_count == 5
    geo = json.loads(pq.read_schema(tmp_path / "f.parquet").metadata[b"geo"])
    assert "bbox" not in geo["columns"]["geometry"]
    geopandas = pytest.importorskip("geopandas")
    assert geopandas.read_parquet(tmp_path / "f.parquet").geometry.isna().all()


def test_corners_in_degrees_feet_and_across_the_180th_meridian(tmp_path: Path):
    places = {
        "EPSG:4326": (10.0, 50.0),
        "EPSG:2263": (1_000_000.0, 200_000.0),  # New York, in US survey feet
        "EPSG:32601": (166_000.0, 0.0),  # the western edge of zone 1, where 180° passes through the patch
        "EPSG:999999": (0.0, 0.0),  # no such system
        "": (0.0, 0.0),
    }
    far = [(500_000.0, 5_000_000.0), (3e7, 5_000_000.0)]  # the second one is outside the projection
    write(tmp_path / "s.h5", n=8)
    from landscale.store import open_store

    store = open_store(tmp_path / "s.h5")
    columns = {
        "crs": np.array([*places, *["EPSG:32633"] * 3]),
        "origin": np.array([*places.values(), (np.nan, np.nan), *far]),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(type(store), "column", lambda self, key: columns[key])
        patched.setattr(type(store.layout), "ground", 1200)
        corners = footprint_corners(store, np.arange(8))
    assert np.isnan(corners[[3, 4, 5, 7]]).all()
    np.testing.assert_allclose(corners[6, 0], (15, 45.15), atol=0.01)
    degree, feet, edge = corners[:3]
    np.testing.assert_allclose(np.ptp(degree, axis=0), 1200 / 111_319.49, rtol=1e-6)
    np.testing.assert_allclose(degree[0], (10, 50), atol=1e-12)
    across = rasterio.warp.transform("EPSG:4326", "EPSG:2263", feet[:, 0], feet[:, 1])
    assert np.ptp(across[0]) * 12 / 39.37 == pytest.approx(1200, rel=1e-6)
    assert np.ptp(edge[:, 0]) < 0.02
    assert edge[:, 0].min() < 180 < edge[:, 0].max()


@pytest.mark.parametrize("function, call, done", [("Parts.put", 1, 0), ("Parts.put", 3, 2), ("write_features", 1, 5)])
def test_a_kill_in_the_middle_changes_nothing(
    function: str, call: int, done: int, patches: PatchStore, weights: Path, tmp_path: Path, cli: Cli, small_parts: None
):
    words = ["embed", weights, patches.path, tmp_path / "f.parquet", "--batch", BATCH]
    settings = {"landscale.inference.embed:PART": BATCH}
    code = run_until_killed(words, f"landscale.inference.embed:{function}", call, settings)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "f.parquet").exists()
    computed = []
    true = embed_module.part_features
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(embed_module, "part_features", lambda *given: (computed.append(len(given[2])), true(*given))[1])
        assert cli(*words).code == 0
    assert len(computed) == 5 - done
    embed(weights, patches, tmp_path / "undisturbed.parquet", batch=BATCH, show=False)
    assert sha256(tmp_path / "f.parquet") == sha256(tmp_path / "undisturbed.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "undisturbed.parquet"]


def test_features_that_are_there_are_not_computed_again(
    patches: PatchStore, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "f.parquet"
    first = embed(weights, patches, out, ["test"], show=False)
    before = out.stat().st_mtime_ns
    monkeypatch.setattr(embed_module, "part_features", None)
    assert embed(weights, patches, out, ["test"], show=False) == first
    assert out.stat().st_mtime_ns == before
    with pytest.raises(TypeError):  # those of another split are
        embed(weights, patches, out, ["val"], show=False)


def test_two_ranks_write_the_same_file(patches: PatchStore, weights: Path, tmp_path: Path):
    folder = tmp_path / "ranks"
    folder.mkdir()
    words = ["embed", weights, patches.path, folder / "f.parquet", "--batch", BATCH]
    run_on_ranks(2, tmp_path / "log.txt", main, list(map(str, words)))
    assert [path.name for path in folder.iterdir()] == ["f.parquet"]
    embed(weights, patches, tmp_path / "one.parquet", batch=BATCH, show=False)
    assert sha256(folder / "f.parquet") == sha256(tmp_path / "one.parquet")


def test_units_are_converted(patches: PatchStore, weights: Path, tmp_path: Path, cli: Cli):
    """Reflectance gives the features of the same patches in digital numbers, and a line reports the conversion."""
    numbers = patches.pixels("data_10m")
    plane = Plane("data_10m", rgbn_plane(12)[0].bands, 12, 10, "float32", "reflectance")
    pixels = {plane.key: (numbers / 10_000).astype(np.float32)}
    other = make_store(tmp_path / "r.h5", planes=(plane,), splits=SPLITS, pixels=pixels)
    answer = cli("embed", weights, other.path, tmp_path / "r.parquet")
    assert answer.code == 0
    assert any("converted" in line for line in answer.lines)
    embed(weights, patches, tmp_path / "n.parquet", ["test"], show=False)
    found, expected = (read_features(tmp_path / name) for name in ("r.parquet", "n.parquet"))
    np.testing.assert_allclose(found.values[found.splits == "test"], expected.values, rtol=1e-4, atol=1e-5)
    assert found.about["converted"] == dict.fromkeys(BANDS, 10_000.0)


def test_features_that_are_not_finite_are_refused(patches: PatchStore, weights: Path, tmp_path: Path):
    classifier = load_model(weights)
    with torch.no_grad():
        next(classifier.network.parameters())[0] = torch.nan
    with pytest.raises(Diverged, match="features of patch patch_0014 are not finite"):
        embed(classifier, patches, tmp_path / "f.parquet", ["test"], show=False)
    assert not list(tmp_path.iterdir())


def test_wrong_input_is_refused_before_anything_is_written(
    cli: Cli, patches: PatchStore, weights: Path, tmp_path: Path
):
    other = tmp_path / "notes.parquet"
    other.write_text("mine")
    for words, problem in (
        ([weights, patches.path, other], "is not a file of features"),
        ([weights, patches.path, patches.path], "is an input"),
        ([weights, patches.path, weights / "f.parquet"], "is inside the input"),
        ([weights, patches.path, tmp_path / "f.parquet", "--split", "trian"], "unknown split 'trian'"),
        ([weights, patches.path, tmp_path / "f.parquet", "--split", "none"], "holds no patch of the splits none"),
        ([weights, patches.path, tmp_path / "f.parquet", "--batch", "0"], "expected at least 1"),
        ([tmp_path, patches.path, tmp_path / "f.parquet"], "holds no weights"),
    ):
        answer = cli("embed", *words)
        assert answer.code == 2, words
        assert len(answer.lines) == 1
        assert problem in answer.lines[0]
    assert other.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.parquet"]
    with pytest.raises(BadInput, match="not a file of features"):
        read_features(other)
    with pytest.raises(BadStore, match="lacks"):
        embed(_with_band(weights, tmp_path / "w"), patches, tmp_path / "f.parquet", show=False)
    with pytest.raises(UnknownName):
        embed(weights, patches, tmp_path / "f.parquet", ["all"], show=False)


def _with_band(weights: Path, folder: Path) -> Path:
    """Weights that use a band which the store lacks."""
    d = load_model(weights).description
    bands = ("B04", "B03", "B11")
    statistics = dict.fromkeys(bands, (1000.0, 100.0))
    save_weights(folder, Classifier(replace(d, bands=bands, statistics=statistics, units={})), {})
    return folder
