"""The files of a map: classes with names and colours, probabilities and entropy as bytes, and the rule for their paths."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import rasterio
from PIL import Image
from rio_cogeo import cog_validate

from conftest import Cli
from gdal_tables import attribute_table
from landscale.errors import BadInput
from landscale.maps.palette import map_colours
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.vocabulary.nomenclatures import BEN19
from mapped import NAMES, Stub, description_with, draw_scene, names_in, read_map, read_raster, write_map, write_scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
PRODUCT = "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419"
CLASSES = ("Marine waters", 'Forêt <&> "森"')


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """A scene of 600×1100 px, of which the left half is dark and a corner has no data, and all files of its map."""
    folder = tmp_path_factory.mktemp("mapped")
    bands = {name: np.full_like(v, 3000) for name, v in draw_scene(600, 1100).items()}
    bands["B02"][:, :500] = 1500
    for name in ("B02", "B04"):
        bands[name][:50, :40] = 0
    summary = write_map(
        Stub(classes=CLASSES),
        write_scene(folder / PRODUCT, bands),
        folder / "map.tif",
        offset=0,
        probabilities="uint8",
        show_entropy=True,
        polygons=folder / "areas.gpkg",
    )
    return folder, summary


def test_all_files_of_a_map_are_named(mapped):
    folder, summary = mapped
    names = {
        "map.tif",
        "map.tif.aux.xml",
        "map.qml",
        "map.png",
        "map-probabilities.tif",
        "map-entropy.tif",
        "areas.gpkg",
    }
    assert names_in(folder) == {PRODUCT, *names}
    assert sorted(summary.files.values()) == sorted(str(folder / name) for name in names)
    assert summary.map == summary.files["map"] == str(folder / "map.tif")


@pytest.mark.parametrize("name", ["map.tif", "map-probabilities.tif", "map-entropy.tif"])
def test_every_raster_is_a_valid_cog_with_statistics_and_provenance(mapped, name):
    folder, _ = mapped
    valid, errors, warnings = cog_validate(folder / name, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(folder / name) as file:
        tags = file.tags()
        assert file.overviews(1) == [2, 4]
        assert file.nodata == 255
        assert float(file.tags(1)["STATISTICS_MAXIMUM"]) <= 250
        assert (tags["SCENE"], tags["ACQUIRED"]) == (PRODUCT, "2022-07-06T08:56:11Z")
        assert (tags["WINDOW_METRES"], tags["STRIDE_METRES"]) == ("120.0", "60.0")
        assert (tags["CLASS_RULE"], tags["MASK"]) == ("the likeliest of several labels", "none")
        assert len(tags["WEIGHTS_DIGEST"]) == 64
        assert [entry["name"] for entry in json.loads(tags["CLASSES"])] == [*CLASSES]


def test_the_class_map_has_the_likeliest_class_with_colours(mapped):
    folder, summary = mapped
    (classes,), profile, descriptions = read_raster(folder / "map.tif")
    (one, every), _, names = read_map(folder / "map.tif")
    assert profile["dtype"] == "uint8"
    assert descriptions == ("class",)
    assert names == CLASSES
    expected = np.where(one == 255, 255, every > one)
    # Where the bytes of both are equal, the numbers that were rounded decide.
    assert (classes == expected)[one != every].all()
    assert {*np.unique(classes)} == {0, 1, 255}
    with rasterio.open(folder / "map.tif") as file:
        table = file.colormap(1)
    colours = map_colours(CLASSES)
    assert colours[0] == next(c.hex for c in BEN19.classes if c.name == "Marine waters")
    assert [table[k] for k in range(2)] == [(*bytes.fromhex(c[1:]), 255) for c in colours]
    assert table[255] == (0, 0, 0, 0)
    assert summary.not_mapped == dict.fromkeys(summary.not_mapped, 0) | {"nodata": 2000}
    counts = np.bincount(classes.ravel(), minlength=256)
    assert [area.pixels for area in summary.areas] == [*counts[:2]]
    assert [area.square_metres for area in summary.areas] == [*(counts[:2] * 100)]
    assert sum(area.percent for area in summary.areas) == pytest.approx(100)


def test_probabilities_and_entropy_are_bytes_that_gdal_scales_to_one(mapped):
    folder, _ = mapped
    with rasterio.open(folder / "map-probabilities.tif") as file:
        values = file.read(1)
        assert (file.scales, file.offsets) == ((0.004, 0.004), (0, 0))
        assert values[300, 100] == round(0.15 * 250)
        assert values[300, 1000] == 75
        assert (values[:50, :40] == 255).all()
    with rasterio.open(folder / "map-entropy.tif") as file:
        values = file.read(1)
        bits = -0.3 * np.log2(0.3) - 0.7 * np.log2(0.7)  # both labels have 0.3
        assert values[300, 1000] == round(bits * 250)
        assert (file.scales, file.descriptions) == ((0.004,), ("entropy",))
        assert ((values == 255) == (read_raster(folder / "map.tif")[0][0] == 255)).all()


def test_gdal_reads_names_and_areas_of_the_classes(mapped):
    folder, summary = mapped
    rows = attribute_table(folder / "map.tif")
    assert [(row["Value"], row["Class"], row["Count"]) for row in rows] == [
        (str(k), name, str(area.pixels)) for k, (name, area) in enumerate(zip(CLASSES, summary.areas, strict=True))
    ]
    colours = [bytes(int(row[c]) for c in ("Red", "Green", "Blue")).hex() for row in rows]
    assert [f"#{colour}" for colour in colours] == map_colours(CLASSES)


def test_qgis_finds_a_style_with_names_and_colours(mapped):
    folder, _ = mapped
    root = ET.parse(folder / "map.qml").getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("band")) == ("paletted", "1")
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [(e.get("value"), e.get("label"), e.get("color")) for e in entries] == [
        (str(k), name, colour) for k, (name, colour) in enumerate(zip(CLASSES, map_colours(CLASSES), strict=True))
    ]


def test_the_quick_look_shows_the_classes_in_their_colours(mapped):
    folder, _ = mapped
    with Image.open(folder / "map.png") as image:
        assert max(image.size) <= 1500
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in map_colours(CLASSES):
        assert (pixels == [*bytes.fromhex(colour[1:])]).all(axis=1).mean() > 0.15


def test_a_single_label_map_has_the_entropy_of_the_classes(tmp_path):
    from landscale.maps.encoding import entropy

    values = np.array([[0.5, 1.0, 0.25, np.nan], [0.5, 0.0, 0.75, np.nan]], np.float32)[:, None]
    found = entropy(values, multi_label=False)[0]
    assert found[:3] == pytest.approx([1, 0, -0.25 * np.log2(0.25) - 0.75 * np.log2(0.75)], abs=1e-6)
    assert np.isnan(found[3])
    classes = tuple("abcde")
    equal = np.full((5, 1, 1), 0.2, np.float32)
    assert entropy(equal, multi_label=False)[0, 0] == pytest.approx(1)
    assert entropy(equal, multi_label=True)[0, 0] == pytest.approx(-0.2 * np.log2(0.2) - 0.8 * np.log2(0.8), abs=1e-6)
    assert len(classes) == 5


def test_a_scene_without_any_data_gives_a_map_without_classes(tmp_path):
    bands = {name: np.zeros_like(values) for name, values in draw_scene(24, 30).items()}
    summary = write_map(Stub(), write_scene(tmp_path / "s", bands), tmp_path / "m.tif", probabilities="float32")
    assert (read_raster(tmp_path / "m.tif")[0] == 255).all()
    assert np.isnan(read_map(tmp_path / "m.tif")[0]).all()
    assert [area.percent for area in summary.areas] == [0, 0]
    assert summary.not_mapped["nodata"] == 24 * 30


# ---- colours


def test_classes_of_no_nomenclature_get_different_colours():
    names = [f"class {k}" for k in range(255)]
    found = map_colours(names)
    assert len({*found}) == 255
    assert found[:7] == map_colours(names[:7])
    assert map_colours(BEN19.names) == [c.hex for c in BEN19.classes]
    assert "#ffffff" not in found
    mixed = map_colours([*BEN19.names, "new"])
    assert len({*mixed}) == 20
    assert mixed[:-1] == [c.hex for c in BEN19.classes]


# ---- paths


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("map.qml", "style"),
        ("map.png", "quick look"),
        ("map.tif.aux.xml", "legend"),
        ("map-entropy.tif", "entropy"),
        ("map-probabilities.tif", "probabilities"),
        ("areas.gpkg", "polygons"),
    ],
)
def test_a_file_that_another_program_wrote_is_not_replaced(tmp_path, name, what):
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    (tmp_path / name).write_bytes(b"of another program")
    options = {"probabilities": "uint8", "show_entropy": True, "polygons": tmp_path / "areas.gpkg"}
    with pytest.raises(BadInput, match=f"{name}: exists and is not the {what} of a map"):
        write_map(Stub(), scene, tmp_path / "map.tif", **options)
    assert names_in(tmp_path) == {"scene", name}
    assert (tmp_path / name).read_bytes() == b"of another program"
    (tmp_path / name).unlink()
    for _ in range(2):  # and what it wrote itself is
        write_map(Stub(), scene, tmp_path / "map.tif", **options)


def test_a_legend_that_qgis_extended_is_replaced_and_its_style_is_not(tmp_path):
    """GDAL writes statistics into the file of the legend; a style in QGIS is saved by the user."""
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    write_map(Stub(), scene, tmp_path / "map.tif")
    legend = tmp_path / "map.tif.aux.xml"
    written = legend.read_text()
    legend.write_text("<PAMDataset><PAMRasterBand band='1'/></PAMDataset>")
    write_map(Stub(), scene, tmp_path / "map.tif")
    assert legend.read_text() == written
    (tmp_path / "map.qml").write_text("<!DOCTYPE qgis><qgis version='3.34'/>")
    with pytest.raises(BadInput, match=r"map\.qml: exists and is not the style"):
        write_map(Stub(), scene, tmp_path / "map.tif")


def test_two_files_of_a_map_never_have_one_path(tmp_path):
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    for name in ("map.png", "map.qml"):
        with pytest.raises(BadInput, match=r"end its name with \.tif"):
            write_map(Stub(), scene, tmp_path / name)
    with pytest.raises(BadInput, match="areas"):
        write_map(Stub(), scene, tmp_path / "areas.tif", polygons=tmp_path / "areas.tif")
    with pytest.raises(BadInput, match="inside the input"):
        write_map(Stub(), scene, tmp_path / "map.tif", polygons=scene / "areas.gpkg")
    assert names_in(tmp_path) == {"scene"}


FILES = {
    "map.tif": "map",
    "map.tif.aux.xml": "legend",
    "map.qml": "style",
    "map.png": "quick look",
    "map.html": "viewer",
    "map-probabilities.tif": "probabilities",
    "map-entropy.tif": "entropy",
    "areas.gpkg": "polygons",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["symbolic link", "hard link", "link to the folder", "broken link"])
def test_no_file_of_a_map_replaces_an_input_or_what_a_link_points_at(tmp_path, name, how):
    """Whatever a file of the map is called by, the input keeps its bytes; a link that points at nothing becomes a file."""
    bands = draw_scene(24, 24, names=("B02", "B03", "B04"))
    scene, out = write_scene(tmp_path / "scene", bands), tmp_path / "out"
    out.mkdir()
    before = {path.name: path.read_bytes() for path in scene.iterdir()}
    if how == "symbolic link":
        (out / name).symlink_to(scene / "B02.tif")
    elif how == "hard link":
        (out / name).hardlink_to(scene / "B02.tif")
    elif how == "link to the folder":
        out.rmdir()
        out.symlink_to(scene, target_is_directory=True)
    else:
        (out / name).symlink_to(tmp_path / "nothing")
    model = Stub(("B02", "B03", "B04"))
    options = {"probabilities": "uint8", "show_entropy": True, "viewer": True, "polygons": out / "areas.gpkg"}
    if how == "broken link":
        write_map(model, scene, out / "map.tif", **options)
        assert not (tmp_path / "nothing").exists()
    else:
        with pytest.raises(BadInput):
            write_map(model, scene, out / "map.tif", **options)
        assert names_in(out) <= {name, *before}
    assert {path.name: path.read_bytes() for path in scene.iterdir()} == before


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith((".tif", ".gpkg"))])
def test_an_area_or_mask_is_never_replaced_by_any_file_of_a_map(tmp_path, name):
    """Even where `landscale predict` wrote it itself, so that it would replace it otherwise."""
    scene, out = write_scene(tmp_path / "scene", draw_scene(24, 24)), tmp_path / "map.tif"
    options = {"probabilities": "uint8", "show_entropy": True, "polygons": tmp_path / "areas.gpkg"}
    write_map(Stub(), scene, out, **options)
    before = (tmp_path / name).read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / name)
    (tmp_path / f"hard{(tmp_path / name).suffix}").hardlink_to(tmp_path / name)  # as MAP.TIF where case is ignored
    given = "aoi" if name.endswith(".gpkg") else "mask"
    for path in (tmp_path / name, tmp_path / "link", tmp_path / f"hard{(tmp_path / name).suffix}"):
        with pytest.raises(BadInput, match="is an input of this command"):
            write_map(Stub(), scene, out, **options | {given: path})
    assert (tmp_path / name).read_bytes() == before


def test_a_failure_while_files_are_finished_leaves_the_older_map(tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24))
    write_map(Stub(), scene, tmp_path / "map.tif")
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path)}

    def fail(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr("landscale.maps.predict.quick_look", fail)
    with pytest.raises(RuntimeError, match="no font"):
        write_map(Stub(), scene, tmp_path / "map.tif", probabilities="uint8")
    assert names_in(tmp_path) == {*before, ".map.tif.parts"}
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in before} == before


def test_the_command_reports_areas_and_files(tmp_path, cli: Cli):
    save_weights(tmp_path / "weights", Classifier(description_with()).eval(), {})
    scene = write_scene(tmp_path / "scene", draw_scene(24, 30, names=NAMES))
    answer = cli("predict", tmp_path / "weights", scene, tmp_path / "map.tif", "--entropy", "--json")
    assert answer.code == 0
    content = answer.json
    assert sum(area["pixels"] for area in content["areas"]) == 24 * 30
    assert {*content["files"]} == {"map", "legend", "style", "quick_look", "entropy"}
    answer = cli("predict", tmp_path / "weights", scene, tmp_path / "map.tif")
    assert " km²  dark" in answer.out
    assert "map.qml" in answer.out
    refused = cli("predict", tmp_path / "weights", scene, tmp_path / "map.tif", "--smallest-area", "-1")
    assert (refused.code, refused.out) == (2, "")
