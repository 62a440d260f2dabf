"""Datasets of xarray and Zarr folders are mapped as the rasters with the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
import xarray

from landscale.errors import BadInput
from landscale.scenes.array_dataset import as_stack
from mapped import ORIGIN, Stub, draw_scene, predict, write_scene

BANDS = ("B02", "B04")
SHAPE = 50, 62


@pytest.fixture
def pixels():
    return draw_scene(*SHAPE, names=BANDS)


def dataset_of(pixels, *, names=None, crs=True, **changes):
    height, width = SHAPE
    coords = {
        "x": ("x", ORIGIN[0] + 10 * (np.arange(width) + 0.5)),
        "y": ("y", ORIGIN[1] - 10 * (np.arange(height) + 0.5)),
        **changes,
    }
    if crs:
        wkt = rasterio.crs.CRS.from_epsg(32632).to_wkt()
        coords["spatial_ref"] = ((), 0, {"crs_wkt": wkt})
    bands = {(names or {}).get(name, name): (("y", "x"), values) for name, values in pixels.items()}
    return xarray.Dataset(bands, coords)


def probabilities(written):
    with rasterio.open(written.files["probabilities"]) as file:
        return file.read(), file.transform, file.crs


def test_a_dataset_an_array_and_zarr_give_the_map_of_the_rasters(tmp_path, pixels):
    expected = probabilities(predict(Stub(BANDS), write_scene(tmp_path / "scene", pixels), tmp_path / "a.tif"))
    dataset = dataset_of(pixels)
    dataset.chunk({"y": 17, "x": 20}).to_zarr(tmp_path / "s.zarr")
    given = {
        "dataset": dataset,
        "names": dataset_of(pixels, names={"B02": "blue", "B04": "red"}),
        "chunks": dataset.chunk({"y": 17}),
        "array": dataset.to_dataarray("band"),
        "time": dataset.expand_dims("time"),
        "zarr": tmp_path / "s.zarr",
    }
    for name, scene in given.items():
        found = probabilities(predict(Stub(BANDS), scene, tmp_path / f"{name}.tif"))
        assert np.array_equal(found[0], expected[0], equal_nan=True), name
        assert found[1:] == expected[1:], name


def test_units_and_nodata_follow_the_rules_of_rasters(tmp_path, pixels):
    expected = probabilities(
        predict(Stub(BANDS), write_scene(tmp_path / "scene", pixels), tmp_path / "a.tif", offset=1000)
    )
    found = probabilities(predict(Stub(BANDS), dataset_of(pixels), tmp_path / "b.tif", offset=1000))
    assert np.array_equal(found[0], expected[0], equal_nan=True)
    pixels["B02"][:20], pixels["B04"][:20] = 65535, 65535
    empty = dataset_of(pixels)
    for band in BANDS:
        empty[band].attrs["nodata"] = 65535
    values, *_ = probabilities(predict(Stub(BANDS), empty, tmp_path / "c.tif"))
    assert np.isnan(values[:, :20]).all()
    assert np.isfinite(values[:, 20:]).all()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d.drop_vars("spatial_ref"), "has no coordinate reference system"),
        (lambda d: d.drop_vars("x"), "has no coordinates x and y"),
        (lambda d: d.rename(B02="one", B04="two"), "has no band of Sentinel-2"),
        (lambda d: d.assign_coords(x=np.geomspace(1, 9, SHAPE[1])), "not evenly spaced"),
        (lambda d: d.assign(blue=d["B02"]), "has two bands named B02"),
        (lambda d: xarray.concat([d, d], "time"), "choose one"),
        (lambda d: d["B02"], "expected band, y and x"),
    ],
)
def test_what_is_no_scene_is_refused_before_anything_is_written(tmp_path, pixels, change, problem):
    with pytest.raises(BadInput, match=problem), as_stack(change(dataset_of(pixels))):
        pass
    with pytest.raises(BadInput, match=problem):
        predict(Stub(BANDS), change(dataset_of(pixels)), tmp_path / "map.tif")
    assert not list(tmp_path.iterdir())


def test_a_dataset_from_north_or_south_is_told_apart(tmp_path, pixels):
    upside_down = dataset_of(pixels).isel(y=slice(None, None, -1))
    with pytest.raises(BadInput, match="south-up"):
        predict(Stub(BANDS), upside_down, tmp_path / "map.tif")


def test_a_map_is_not_written_into_zarr_and_a_damaged_folder_is_refused(tmp_path, pixels):
    dataset_of(pixels).to_zarr(tmp_path / "s.zarr")
    with pytest.raises(BadInput, match="is inside the input"):
        predict(Stub(BANDS), tmp_path / "s.zarr", tmp_path / "s.zarr" / "map.tif")
    (tmp_path / "bad.zarr").mkdir()
    (tmp_path / "bad.zarr" / "zarr.json").write_text("{")
    with pytest.raises(BadInput, match=r"bad\.zarr: cannot be read as Zarr"):
        predict(Stub(BANDS), tmp_path / "bad.zarr", tmp_path / "map.tif")
