"""Metadata of ESA's products of baselines 02.05 to 05.11, GDAL's products in every layout, and a whole product in a zip."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from conftest import Cli
from landscale.errors import BadInput
from landscale.scenes.manifest import read_manifest
from landscale.scenes.metadata import statement_of
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene
from landscale.vocabulary.bands import ALIASES, BANDS
from products import write_jp2

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # of rasterio, in its own affine transforms
]
Published = Callable[[str], Path]
ZIP = "safe-products/zips/S2A_MSIL1C_20180629T000241_N0206_R030_T56JMM_20180629T012042.zip"
TILES = "S2A_OPER_MSI_L2A_TL_VGS1_20220401T110010_A035382_T34LB"


@pytest.mark.parametrize(
    ("folder", "level", "offset"),
    [
        ("S2A_MSIL1C_20210908T042701_N0301_R133_T46RER_20210908T070248.SAFE", "L1C", 0),
        ("S2A_MSIL2A_20150826T185436_N0212_R070_T11SLT_20210412T023147", "L2A", 0),
        ("S2A_MSIL2A_20180721T053721_N0212_R062_T43MDV_20201011T181419.SAFE", "L2A", 0),  # MTD_MSIL2a.xml
        ("S2A_MSIL2A_20190212T192651_N0212_R013_T07HFE_20201007T160857.SAFE", "L2A", 0),
        ("esa_S2B_MSIL2A_20210122T133229_N0214_R081_T22HBD_20210122T155500.SAFE", "L2A", 0),
        ("S2B_MSIL2A_20220413T150759_N0400_R025_T33XWJ_20220414T082126.SAFE", "L2A", 1000),
        ("S2A_OPER_MSI_L1C_TL_SGS__20181231T203637_A018414_T10SDG", "L1C", 0),  # of a granule alone, as in buckets
        ("S2A_OPER_MSI_L2A_TL_SGS__20181231T210250_A018414_T10SDG", "L2A", 0),
        ("S2B_OPER_MSI_L2A_DS_VGS1_20201101T095401_S20201101T074429-no-data", "L2A", 0),
        (f"{TILES}P", "L2A", 1000),
        (f"{TILES}Q-no-tileDataGeometry-no-product-metadata", "L2A", 1000),
        (f"{TILES}Q", "L2A", 7000),  # edited by its publisher: whatever the metadata state counts
        ("S2A_T60CWS_20240109T203651_L2A", "L2A", 1000),
    ],
)
def test_metadata(folder: str, level: str, offset: int, published: Published, tmp_path: Path) -> None:
    """Once more under a name that says nothing."""
    shutil.copytree(published("safe-products/metadata") / folder, tmp_path / "mine")
    for path in (published("safe-products/metadata") / folder, tmp_path / "mine"):
        found = statement_of(path)
        assert (found.level, found.offset) == (level, offset)


@pytest.mark.parametrize("name", ["S2B_MSIL2A_20250120T210529_N0511", "S2B_MSIL1C_20211107T210529_N0500"])
def test_manifests(name: str, published: Published, tmp_path: Path) -> None:
    (path,) = published("safe-products/manifests_kayrros").glob(f"{name}*")
    shutil.copy(path, tmp_path / "manifest.safe")
    files = read_manifest(tmp_path).files
    assert len([path for path in files if re.search(r"IMG_DATA/.*_B\d[\dA](_\d0m)?\.jp2", path.as_posix())]) >= 13
    assert {algorithm for _, algorithm, _ in files.values()} == {"sha3_256"}


def with_pixels(product: Path, copy: Path) -> Path:
    """A copy of a product of GDAL, whose images are TIFFs without data, with small JPEG 2000 images."""
    shutil.copytree(product, copy)
    for path in copy.rglob("IMG_DATA/**/*.jp2"):
        match = re.search(r"_(B\d[\dA])(?:_(\d\d)m)?\.jp2", path.name)
        path.unlink()
        if match:
            gsd = int(match[2] or BANDS[ALIASES[match[1]]].gsd)
            write_jp2(path, np.full((360 // gsd, 360 // gsd), 1234, np.uint16), gsd)
    return copy


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("fake_l1b", "is that of level L1B, whose images are not on the map's grid"),
        ("fake_l1b_geoloc", "is that of level L1B"),
        ("fake_l1c", "holds more than one scene: B01 is GRANULE/S2A_OPER_MSI_L1C_T32TQR_N01.03"),
        ("fake_l1c/GRANULE", ("L1C", 0, 13, 12340)),  # 1,000 digital numbers per reflectance, by its metadata
        ("fake_l1c_safecompact", ("L1C", 0, 13, 12340)),
        ("fake_l1c_processing_baseline_5_09", ("L1C", 1000, 13, 234)),
        ("fake_l2a", ("L2A", 0, 12, 12340)),
        ("fake_l2a_MSIL2A", ("L2A", 0, 12, 1234)),
        ("fake_l2a_MSIL2Ap", ("L2A", 0, 12, 1234)),
        ("fake_l2a_processing_baseline_5_09", ("L2A", 1000, 12, 234)),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_layouts_of_gdal(
    layout: str, expected: str | tuple[str, int, int, int], zipped: bool, published: Published, tmp_path: Path
) -> None:
    name, _, inner = layout.partition("/")
    (product,) = published(f"safe-products/gdal_fake/{name}").iterdir()
    place = with_pixels(product, tmp_path / product.name)
    if zipped:
        place = Path(shutil.make_archive(str(tmp_path / "download"), "zip", tmp_path, product.name))
    if inner:
        place = place / (product.name if zipped else "") / inner / "S2A_OPER_MSI_L1C_T32TQR_N01.03"
    if isinstance(expected, str):
        with pytest.raises(BadInput, match=re.escape(expected)):
            open_scene(place)
        return
    level, offset, bands, pixel = expected
    scene = open_scene(place)
    assert (scene.level, scene.offset, len(scene.files), scene.unit) == (level, offset, bands, "digital number")
    with ScenePixels(scene, list(scene.files)) as pixels:
        assert {int(pixels.harmonise(pixels.read(band, 0, 1))[0, 0]) for band in scene.files} == {pixel}


def test_a_whole_product_in_a_zip(published: Published, tmp_path: Path, cli: Cli) -> None:
    path = published(ZIP)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    (folder,) = tmp_path.iterdir()
    zipped, unpacked = (cli("info", scene, "--json").json for scene in (path, folder))
    assert zipped | {"path": ""} == unpacked | {"path": ""}
    assert (zipped["level"], zipped["offset"], len(zipped["bands"])) == ("L1C", 0, 13)
    scenes = open_scene(path), open_scene(folder)
    for band in zipped["bands"]:
        found = []
        for scene in scenes:
            with ScenePixels(scene, [band]) as pixels:
                found.append(pixels.read(band, 0, pixels.height))
        assert np.array_equal(*found)
        assert found[0].any()
    answer = cli("prepare", "tiles", path, tmp_path / "store.h5", "--labels", "none")
    assert answer.code == 2  # its pixels were thinned out
    assert "_B01.jp2: has pixels of 1500.68 m, expected 60 m" in answer.lines[0]


def test_a_crop_of_level_1c(published: Published, cli: Cli) -> None:
    info = cli("info", published("safe-products/l1c_crop_T31TDH_20150726"), "--json").json
    assert len(info["bands"]) == 13
    assert (info["width"], info["pixel"], info["offset_known"]) == (300, 10, False)
