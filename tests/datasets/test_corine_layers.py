"""GeoPackages of CORINE as they are published: several layers, several years, and codes written in several ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_corine import LAEA, polygon, write_polygons, write_raster

from landscale.datasets.tiles.corine import CODES, open_corine
from landscale.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of rasterio, about affine
PATCH = np.array([[4_000_000.0, 3_001_200.0]])  # a patch in LAEA


def area(left: float = 3_990_000, bottom: float = 2_990_000, side: float = 20_000) -> bytes:
    right, top = left + side, bottom + side
    return polygon([(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)])


def fractions(path: Path) -> dict[int, float]:
    (found,) = open_corine(path).class_fractions(LAEA, PATCH)
    return {CODES[k]: float(found[k]) for k in np.flatnonzero(found)}


def test_layers_of_one_year_are_one_map(tmp_path: Path) -> None:
    """As in the official file: Europe, and each French overseas department in a layer with a CRS of its own."""
    path = tmp_path / "U2018_CLC2018_V2020_20u1.gpkg"
    write_polygons(path, [area()], ["211"], "Code_18", "U2018_CLC2018_V2020_20u1")
    write_polygons(
        path, [area(600_000, 1_700_000)], ["311"], "Code_18", "U2018_CLC2018_V2020_20u1_FR_GLP", "EPSG:32620"
    )
    write_polygons(path, [area(3_000_000, 1_000_000)], ["312"], "Code_18", "U2018_CLC2018_V2020_20u1_FR_MYT")
    assert fractions(path) == {211: 1.0}
    (found,) = open_corine(path).class_fractions("EPSG:32620", np.array([[605_000.0, 1_706_200.0]]))
    assert found[CODES.index(311)] == 1.0


def test_layers_with_names_of_one_stem_may_overlap(tmp_path: Path) -> None:
    path = tmp_path / "clc.gpkg"
    write_polygons(path, [area()], ["211"], "Code_18", "CLC2018")
    write_polygons(path, [area()], ["211"], "Code_18", "CLC2018_FR_GLP")
    assert fractions(path) == {211: 1.0}


@pytest.mark.parametrize(
    "names", [[("CLC18_AT", "code_18"), ("CLC24_AT", "code_24")], [("CLC2012", "CODE"), ("CLC2018", "CODE")]]
)
def test_one_of_two_years_is_chosen(names: list[tuple[str, str]], tmp_path: Path) -> None:
    path = tmp_path / "national.gpkg"
    for (layer, column), code in zip(names, ("211", "311"), strict=True):
        write_polygons(path, [area()], [code], column, layer)
    with pytest.raises(BadInput) as caught:
        open_corine(path)
    both = ", ".join(f"{layer}.{column}" for layer, column in names)
    assert caught.value.problem in (
        f"has several maps: {order}; choose one: --corine {path}:LAYER or {path}:LAYER.COLUMN"
        for order in (both, ", ".join(reversed(both.split(", "))))
    )
    for (layer, column), code in zip(names, (211, 311), strict=True):
        assert fractions(Path(f"{path}:{layer}")) == {code: 1.0}
        assert fractions(Path(f"{path}:{layer}.{column}")) == {code: 1.0}


def test_one_of_two_columns_is_chosen(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "c.gpkg", [area()], ["211"], ["CODE_12", "CODE_18"])
    assert fractions(Path(f"{path}:CODE_18")) == {211: 1.0}


def test_a_column_of_any_name_is_chosen(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "c.gpkg", [area()], ["211"], "Nutzung")
    with pytest.raises(BadInput, match=r"its columns: Nutzung; choose one: --corine .*c\.gpkg:COLUMN"):
        open_corine(path)
    assert fractions(Path(f"{path}:Nutzung")) == {211: 1.0}
    with pytest.raises(BadInput, match="has no layer or column Klasse; its columns: Nutzung"):
        open_corine(Path(f"{path}:Klasse"))


@pytest.mark.parametrize("code", ["112", " 112 ", "112.0", "1.1.2", 112, 112.0])
def test_codes_are_numbers_or_text(code: object, tmp_path: Path) -> None:
    assert fractions(write_polygons(tmp_path / "c.gpkg", [area()], [code])) == {112: 1.0}


@pytest.mark.parametrize("code", ["1", "11", "1120", "112.5", "11.2", "x", "", 1, 112.5])
def test_other_codes_are_refused(code: object, tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "c.gpkg", [area()], [code])
    with pytest.raises(BadInput, match=r"has a polygon with the code .*, expected a CORINE class"):
        fractions(path)


def test_grid_codes_are_read_from_a_column_that_is_called_so(tmp_path: Path) -> None:
    path = write_polygons(tmp_path / "c.gpkg", [area()], [2], "gridcode")
    assert fractions(path) == {112: 1.0}


def test_whole_numbers_in_a_raster_of_floats(tmp_path: Path) -> None:
    from rasterio.transform import from_origin

    values = np.full((100, 100), 112, np.float32)
    values[:, 50:] = np.nan
    path = write_raster(tmp_path / "c.tif", values, from_origin(3_995_600, 3_005_000, 100, 100))
    assert fractions(path) == {112: 0.5}


def test_a_layer_of_a_raster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.tif").touch()
    with pytest.raises(BadInput, match="is not a GeoPackage, so it has no layer CLC18"):
        open_corine(tmp_path / "c.tif:CLC18")
