"""The viewer: one page that loads nothing, shows the class under the pointer, and fits a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from landscale.errors import BadInput
from landscale.maps.encoding import NODATA
from landscale.maps.frame import Frame
from landscale.maps.legend import Entry
from landscale.maps.palette import map_colours
from landscale.maps.reduced import ReducedMap
from landscale.maps.viewer import viewer_page
from mapped import Stub, draw_scene, names_in, read_map, read_raster, write_map, write_scene

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
RGB = ("B02", "B03", "B04")
HOSTILE = "</script><b>&\"'"  # a class name that must not leave its place
CLASSES = ("Marine waters", HOSTILE)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A scene of 60×48 px, dark in its left half and without data at the top, its map and the viewer."""
    folder = tmp_path_factory.mktemp("viewer")
    bands = {name: np.full_like(v, 3000) for name, v in draw_scene(48, 60, names=RGB).items()}
    bands["B02"][:, :30] = 1000
    bands["B02"][:, 30:], bands["B04"][:, 30:] = 9000, 6000
    for name in RGB:
        bands[name][:6] = 0
    scene = write_scene(folder / "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA_20220706T153419", bands)
    write_map(
        Stub(RGB, classes=CLASSES), scene, folder / "map.tif", offset=0, viewer=True, probabilities="uint8", mask=False
    )
    return folder / "map.html"


def test_the_page_loads_nothing_and_is_small(page):
    text = page.read_text(encoding="utf-8")
    assert len(text) < 5e6
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text)
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<script") == 2
    assert HOSTILE not in text
    assert "2022-07-06T08:56:11Z" in text
    assert "Clouds are not masked." in text


def test_the_largest_page_has_at_most_5_mb(tmp_path):
    rng = np.random.default_rng(0)
    frame = Frame("EPSG:32632", 0, 0, 10, 1000, 1000)
    reduced = ReducedMap(frame, 1000)
    reduced.classes[:] = rng.integers(0, 19, (1000, 1000))
    reduced.probability[:] = rng.integers(100, 250, (1000, 1000))
    entries = [Entry(k, str(k), colour, 1) for k, colour in enumerate(map_colours([str(k) for k in range(19)]))]
    assert len(viewer_page(frame, reduced, [], entries, ["note"])) < 5e6


def test_the_pictures_are_the_scene_and_the_classes(page):
    uris = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', page.read_text(encoding="utf-8"))
    assert [kind for kind, _ in uris] == ["jpeg", "png"]
    scene, classes = (Image.open(BytesIO(b64decode(content))) for _, content in uris)
    assert scene.size == classes.size == (60, 48)
    rgb = np.asarray(scene).astype(int)
    assert rgb[30, 45, 0] > rgb[30, 15, 0] + 100  # red is bright in the right half
    assert rgb[30, 45, 2] > rgb[30, 15, 2] + 100
    found = np.asarray(classes.convert("RGBA"))
    expected = read_raster(page.with_name("map.tif"))[0][0]
    for k, colour in enumerate(map_colours(CLASSES)):
        assert (found[expected == k] == [*bytes.fromhex(colour[1:]), 255]).all()
    assert (found[expected == NODATA][:, 3] == 0).all()
    assert {*np.unique(expected)} == {0, 1, NODATA}


def test_a_scene_that_cannot_be_shown_in_true_colour_is_refused_first(tmp_path):
    scene = write_scene(tmp_path / "scene", draw_scene(24, 24, names=("B02", "B04")))
    with pytest.raises(BadInput, match="lacks B03"):
        write_map(Stub(("B02", "B04")), scene, tmp_path / "map.tif", viewer=True)
    assert names_in(tmp_path) == {"scene"}


def test_large_maps_and_mosaics_are_shown_in_place(tmp_path):
    """Two scenes of 1200×600 px one below the other, every third pixel: bright above, dark below."""
    values = {"a": 8000, "b": 500}
    scenes = []
    for k, (name, value) in enumerate(values.items()):
        bands = {band: np.full((600, 2100), value, np.uint16) for band in RGB}
        bands["B02"][0, 0] = 1
        scenes.append(write_scene(tmp_path / name, bands, origin=(399_960.0, 5_300_040.0 - 6000 * k)))
    stub = Stub(RGB, ground=6000)
    write_map(stub, scenes, tmp_path / "map.tif", 600, offset=0, viewer=True, mask=False)
    text = (tmp_path / "map.html").read_text(encoding="utf-8")
    uri = re.search(r'src="data:image/jpeg;base64,([^"]+)"', text)
    picture = np.asarray(Image.open(BytesIO(b64decode(uri[1]))))[..., 0].astype(int)
    assert picture.shape == (400, 700)
    assert picture[:198].min() > 200
    assert picture[203:].max() < 50
    assert len(text) < 5e6


SCRIPT = """
addEventListener("load", async () => {
  while (document.documentElement.dataset.ready !== "yes") await new Promise(done => setTimeout(done, 10));
  const map = document.getElementById("map"), under = document.getElementById("under"), found = {};
  const box = map.getBoundingClientRect();
  const read = () => under.querySelector("b").textContent + " | " + under.querySelector("small").textContent;
  const point = (x, y, kind) => {
    const at = { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true };
    map.dispatchEvent(new PointerEvent(kind, at));
    return read();
  };
  found.left = point(.1, .8, "pointermove");
  found.right = point(.9, .8, "pointerdown");
  found.top = point(.5, .02, "pointermove");
  point(.5, .5, "pointermove");
  const press = (key, shiftKey) => map.dispatchEvent(new KeyboardEvent("keydown", { key, shiftKey, bubbles: true }));
  const before = read();
  press("ArrowRight", true); press("ArrowLeft", false); press("ArrowDown", false);
  found.keys = [before, read()];
  const slider = document.getElementById("opacity");
  slider.value = 25; slider.dispatchEvent(new Event("input"));
  found.opacity = getComputedStyle(document.getElementById("classes")).opacity;
  found.width = innerWidth;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.box = [box.width, box.height];
  document.documentElement.dataset.found = JSON.stringify(found);
});
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_chromium_shows_the_class_under_the_pointer(page, tmp_path, width):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium on PATH")
    copy = tmp_path / "page.html"
    text = page.read_text(encoding="utf-8").replace("</body>", f"<script>{SCRIPT}</script></body>")
    copy.write_text(text, encoding="utf-8")
    # Chromium makes no window narrower than 500 px, so the page is shown in a frame.
    outer = tmp_path / "outer.html"
    outer.write_text(
        f'<!doctype html><body style="margin:0"><iframe id="f" src="page.html" width="{width}" height="800" frameborder="0">'
        '</iframe><script>const f = document.getElementById("f"); setInterval(() => { const found = f.contentDocument'
        "?.documentElement?.dataset.found;"
        " if (found) document.documentElement.dataset.found = found; }, 20);</script></body>",
        encoding="utf-8",
    )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    flags += [f"--user-data-dir={tmp_path}/profile", "--allow-file-access-from-files", "--window-size=1300,900"]
    done = subprocess.run(
        [chromium, *flags, "--virtual-time-budget=20000", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    answer = re.search(r'<html[^>]* data-found="([^"]*)"', done.stdout)
    assert answer, done.stdout[:2000]
    found = json.loads(html.unescape(answer[1]))
    (one, every), _, _ = read_map(page.with_name("map.tif"))
    assert found["width"] == width
    assert found["overflow"] == 0
    assert found["box"][0] <= width
    assert found["box"][0] / found["box"][1] == pytest.approx(60 / 48, rel=0.02)
    left, right = (38, 6), (38, 54)  # the pixels at 80 % of the height and 10 % and 90 % of the width
    classes = read_raster(page.with_name("map.tif"))[0][0]
    for words, place in ((found["left"], left), (found["right"], right)):
        most = max(one[place], every[place])
        assert words.startswith(f"{CLASSES[classes[place]]} | probability {round(most / 2.5)} %")
    assert CLASSES[classes[left]] != CLASSES[classes[right]]
    assert found["top"].startswith("not mapped | ")
    east, north = (int(re.search(rf"(\d+) {word}", found["keys"][0])[1]) for word in ("east", "north"))
    assert f"{east + 90} east, {north - 10} north" in found["keys"][1]
    assert found["opacity"] == "0.25"
