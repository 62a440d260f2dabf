"""The HTML report: its content, that it is self-contained and safe, and its maps."""

import html
import json
import re
import shutil
import subprocess
from base64 import b64decode
from dataclasses import asdict, replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from landscale.errors import BadInput
from landscale.inference.metrics import compute_scores
from landscale.models.classifier import Description
from landscale.report.map_view import render_map_view
from landscale.report.page import write_report
from landscale.runtime.documents import write_json
from landscale.training.recipe import Recipe, as_yaml
from landscale.vocabulary.bands import BAND_SETS
from landscale.vocabulary.nomenclatures import BEN19, CLC43, EUROSAT10

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\" onload=\"alert(2)"


def make_run(
    folder: Path, seed: int = 0, classes=BEN19.names, *, name="made", synthetic=False, multi_label=True, test=True
) -> Path:
    """The folder of a run as `train` and `evaluate` write it, without the weights. All its numbers differ."""
    rng = np.random.default_rng(seed)
    shape = (60 + seed, len(classes))
    figures = {}
    for split in ("val", "test"):
        targets = (
            (rng.random(shape) < 0.3) if multi_label else np.eye(shape[1])[rng.integers(shape[1] - 1, size=shape[0])]
        )
        targets = targets.astype(np.uint8)
        targets[:, -1] = 0  # a class without support
        thresholds = rng.uniform(0.2, 0.4, shape[1])
        probabilities = rng.random(shape) * 0.6 + targets * 0.3
        scores = compute_scores(probabilities, targets, classes, thresholds, multi_label=multi_label, split=split)
        figures[split] = scores.to_json()
    description = Description(
        model="wide_resnet_eca",
        bands=("B02", "B03", "B04", "B8A"),
        classes=tuple(classes),
        nomenclature="ben19",
        multi_label=multi_label,
        statistics={band: (400.0 + k, 30.0 + k) for k, band in enumerate(("B02", "B03", "B04", "B8A"))},
        side=57,
        ground=1200,
    )
    config = {"landscale_format": 1, "digest": "ab" * 32, "parameters": 305_889 + seed, **asdict(description)}
    write_json(folder / "weights" / "config.json", config | {"provenance": {"synthetic": synthetic}})
    (folder / "recipe.yaml").write_text(as_yaml(Recipe(name=name, epochs=5, rate=0.0123, seed=seed)))
    environment = {"python": "3.11.7", "processor": "An Imagined 9000", "cores": 24, "gpu": None}
    write_json(
        folder / "environment.json", environment | {"packages": {"torch": "2.6.1"}, "command": "landscale train"}
    )
    write_json(folder / "run.json", {"store": "stores/made.h5", "plan": "p", "splits": {"train": 1234, "val": 60}})
    rows = ["epoch,step,seconds,rate,loss,val_micro_f1,val_macro_f1,val_micro_ap,val_macro_ap"]
    rows += [f"{k},{7 * k},{61.5 * k},{0.01 / k},{0.7 - k / 9},{k / 8},{k / 9},{k / 10},{k / 11}" for k in range(1, 6)]
    rows[2] = "2,14,123.0,0.005,0.45,,,,"  # an epoch without evaluation
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    write_json(folder / "scores.json", figures["val"])
    if test:
        write_json(folder / "scores-test.json", figures["test"])
    return folder


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += f" {data}"

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


# ---- content


def test_a_run_shows_its_settings_and_all_scores(tmp_path):
    run = make_run(tmp_path / "eca-12")
    page = Page(write_report([run], tmp_path / "out"))
    for words in ("eca-12", "wide_resnet_eca", "305,889 parameters", "57×57", "B02, B03, B04, B8A", "stores/made.h5"):
        assert words in page.words
    for words in ("1,234 train", "An Imagined 9000", "24 cores", "5 min 08 s", "rate 0.0123", "torch 2.6.1"):
        assert words in page.words
    for split in ("scores.json", "scores-test.json"):
        figures = read(run / split)
        for row in figures["averages"].values():
            assert all(f"{row[key]:.4f}" in page.words for key in ("precision", "recall", "f1", "f2", "jaccard"))
        for key in ("micro_ap", "macro_ap", "micro_f1_at_half", "macro_f1_at_half"):
            assert f"{figures[key]:.4f}" in page.words
        for row in figures["counts"][:-1]:
            assert all(
                f" {row[key]:.3f}" in page.words for key in ("precision", "recall", "f1", "f2", "ap", "threshold")
            )


def test_classes_are_in_order_with_their_colours_and_have_no_scores_without_support(tmp_path):
    page = Page(write_report([make_run(tmp_path / "run", test=False)], tmp_path))
    places = [page.words.index(f" {name} ") for name in BEN19.names]
    assert places == sorted(places)
    assert all(c.hex in page.source for c in BEN19.classes)
    absent = page.source[page.source.index('class="absent"') :].split("</tr>")[0]
    assert BEN19.names[-1] in absent
    assert absent.count("–") == 5


def test_charts_of_a_run_hold_every_evaluated_epoch(tmp_path):
    page = write_report([make_run(tmp_path / "run")], tmp_path).read_text()
    charts = {m[1]: m[0] for m in re.finditer(r"<svg.*?<title>(.*?)</title>.*?</svg>", page, re.DOTALL)}
    assert list(charts) == ["Training loss", "Validation", "Learning rate"]
    markers = len(re.findall(r"<use [^>]*fill: #", charts["Validation"]))
    assert markers == 4 * 4 + 4  # epochs times scores, and the markers of the legend; epoch 2 was not evaluated
    assert ">micro F1: 0.625<" in charts["Validation"]
    assert ">loss: 0.1444<" in charts["Training loss"]
    assert "<desc>Training loss by epoch. loss: 0.5889 at 1 to 0.1444 at 5.</desc>" in charts["Training loss"]


def test_several_runs_are_compared_first(tmp_path):
    runs = [make_run(tmp_path / place / "run", seed=k) for k, place in enumerate("ab")]
    make_run(tmp_path / "c", seed=7, test=False)
    page = Page(write_report(runs, tmp_path))
    comparison = page.source[: page.source.index("<section")]
    for k, run in enumerate(runs):
        assert f'<a href="#run-{k}">{run}</a>' in comparison  # both are called "run", so they are named by their paths
        assert f"{read(run / 'scores-test.json')['macro_f1']:.4f}" in comparison
    assert "scores on test" in comparison
    assert "different stores" not in comparison
    write_json(tmp_path / "c" / "run.json", {"store": "other.h5", "plan": "q"})
    page = write_report([runs[0], tmp_path / "c"], tmp_path).read_text()
    assert "scores on val" in page  # the only split that both were scored on
    assert "different stores" in page


def test_synthetic_data_is_marked_at_the_top_and_next_to_the_scores(tmp_path):
    made, real = make_run(tmp_path / "made", synthetic=True), make_run(tmp_path / "real", seed=1)
    page = write_report([made], tmp_path).read_text()
    assert 'class="banner"' in page.split("<section")[0]
    assert page.count("<mark>") >= 3
    assert "<mark>" not in write_report([real], tmp_path).read_text()
    assert 'class="banner"' not in write_report([real], tmp_path).read_text()
    both = write_report([made, real], tmp_path).read_text()
    assert 'class="banner"' in both
    assert "<mark>" not in both[both.index('id="run-1"') :]


def test_a_single_label_run_shows_its_accuracy_and_no_thresholds(tmp_path):
    run = make_run(tmp_path / "run", classes=EUROSAT10.names, multi_label=False)
    page = Page(write_report([run], tmp_path))
    assert f"{read(run / 'scores-test.json')['accuracy']:.3f}" in page.words
    assert "<th>threshold" not in page.source


def test_a_run_without_a_validation_split_has_a_note(tmp_path):
    run = make_run(tmp_path / "run", test=False)
    write_json(run / "scores.json", {})
    history = [",".join(line.split(",")[:5]) for line in (run / "metrics.csv").read_text().splitlines()]
    (run / "metrics.csv").write_text("\n".join(history))
    page = write_report([run], tmp_path).read_text()
    assert "no validation split" in page
    assert "Training loss" in page
    assert "no split on which all" in write_report([run, run], tmp_path).read_text()


# ---- published figures


def described(run: Path, **changes) -> Path:
    """The run with other content of its config.json."""
    write_json(run / "weights" / "config.json", read(run / "weights" / "config.json") | changes)
    return run


def test_classes_have_the_f1_of_the_paper_beside_their_own(tmp_path):
    page = Page(write_report([make_run(tmp_path / "run")], tmp_path))
    row = page.source[page.source.index("Agro-forestry areas") :].split("</tr>")[0]
    assert "<td>0.804</td>" in row
    urban = page.source[page.source.index("Urban fabric") :].split("</tr>")[0]  # two classes of the paper in one
    assert "<td></td>" in urban
    assert "<th>F1, Sedona et al. 2019, not comparable</th>" in page.source
    for reason in (
        "a data set that is not recorded",
        "19 classes instead of 43",
        "4 bands (B02, B03, B04, B8A)",
    ):
        assert reason in page.words


def test_a_run_like_the_papers_is_comparable_and_red_green_blue_has_its_own_column(tmp_path):
    store = {"source": "bigearthnet", "version": "v1"}
    run = make_run(tmp_path / "run", classes=CLC43.names)
    twelve = described(run, bands=list(BAND_SETS["s2-12"].names), provenance={"store": store})
    source = write_report([twelve], tmp_path).read_text()
    assert "<th>F1, Sedona et al. 2019</th>" in source
    assert "<td>0.785</td>" in source[source.index("Continuous urban fabric") :].split("</tr>")[0]
    assert "the split val instead of test" in source  # of the second table of scores
    source = write_report([described(run, bands=["B04", "B03", "B02"])], tmp_path).read_text()
    assert "<th>F1, Sedona et al. 2019</th>" in source
    assert "<td>0.518</td>" in source[source.index("Continuous urban fabric") :].split("</tr>")[0]


def test_runs_on_other_classes_have_no_published_figures(tmp_path):
    for k, (classes, multi_label) in enumerate(((EUROSAT10.names, False), (("a", "b", "c"), True))):
        page = write_report(
            [make_run(tmp_path / str(k), classes=classes, multi_label=multi_label)], tmp_path
        ).read_text()
        assert "Sedona" not in page
        assert "Published scores" not in page


def test_published_scores_of_networks_are_listed_for_the_19_classes(tmp_path):
    page = Page(write_report([make_run(tmp_path / "run", synthetic=True)], tmp_path))
    assert "Clasen et al. 2024 (reBEN), BigEarthNet v2, S1+S2, test" in page.words
    assert " 0.767 " in page.words
    assert "Not comparable with this run, which has synthetic data." in page.words


def test_the_authors_parameters_are_beside_those_of_the_run(tmp_path):
    page = write_report([make_run(tmp_path / "run", seed=3)], tmp_path).read_text()
    assert "305,892 parameters (Papoutsis et al. 2022: 305,889 with 10 bands and 19 classes), input" in page
    other = described(tmp_path / "run", model="resnet18")
    assert "Papoutsis" not in write_report([other], tmp_path).read_text()


def test_macro_figures_name_the_classes_they_are_over(tmp_path):
    page = Page(write_report([make_run(tmp_path / "run")], tmp_path))
    assert "macro F1, 18 of 19 classes" in page.words
    assert "over the 18 of 19 classes that occur" in page.words


# ---- a self-contained and safe page


def assert_safe_and_self_contained(page: Page) -> None:
    assert not page.all("script")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    loads = [a[key] for _, a in page.elements for key in ("src", "href", "srcset", "data", "action") if key in a]
    assert all(target.startswith(("#", "data:")) for target in loads)
    assert not re.search(r"url\(|@import", page.source)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_the_page_loads_nothing(tmp_path):
    runs = [make_run(tmp_path / name, seed=k, synthetic=True) for k, name in enumerate("abc")]
    page = Page(write_report(runs, tmp_path))
    assert_safe_and_self_contained(page)
    assert "http://" not in page.source
    assert "https://" not in page.source


def test_markup_in_names_is_escaped(tmp_path):
    folder = tmp_path / "<script>alert(3)<"
    run = make_run(folder, classes=[HOSTILE, "Pastures", "</title></style>"], name=HOSTILE, synthetic=True)
    environment = read(run / "environment.json") | {"command": HOSTILE, "processor": HOSTILE, "gpu": HOSTILE}
    write_json(run / "environment.json", environment)
    page = Page(write_report([run, make_run(tmp_path / "b", seed=1)], tmp_path))
    assert_safe_and_self_contained(page)
    assert page.words.count(HOSTILE) >= 4
    assert not page.all("img")


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("run.json", None, "is not a run"),
        ("scores.json", None, "has not finished"),
        ("recipe.yaml", "a: [", "not valid YAML"),
        ("recipe.yaml", "name: only", "did not write"),
        ("metrics.csv", "", "is not a table of epochs"),
        ("metrics.csv", "epoch,loss\n1,2\n", "lacks rate, seconds"),
        ("metrics.csv", "epoch,seconds,rate,loss\n1,2,3,broken\n", "did not write"),
        ("scores.json", "{", "not valid JSON"),
        ("scores.json", "[1]", "holds no scores"),
        ("scores.json", '{"patches": 3}', "found scores without averages, without counts"),
        ("environment.json", None, "cannot be read"),
        ("weights/config.json", None, "holds no weights"),
    ],
)
def test_a_damaged_run_is_refused_in_one_line_and_nothing_is_written(tmp_path, file, content, message):
    run = make_run(tmp_path / "run")
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_text(content)
    with pytest.raises(BadInput, match=message) as refusal:
        write_report([run], tmp_path / "out")
    assert str(run) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match="nowhere: is not a run"):
        write_report([tmp_path / "nowhere"], tmp_path)


def test_chromium_renders_the_page_without_errors(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium on PATH")
    scene, chart = make_scene(tmp_path / "scene")
    runs = [make_run(tmp_path / name, seed=k, name=HOSTILE, synthetic=True) for k, name in enumerate("ab")]
    page = write_report(runs, tmp_path, scene, chart)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path}/profile", f"--screenshot={shot}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr  # errors of the page, including loads that its policy forbids
    assert len(np.unique(np.asarray(Image.open(shot)).reshape(-1, 3), axis=0)) > 100


# ---- maps


def make_scene(folder: Path, side=240, left=300_000) -> tuple[Path, Path]:
    """A scene and its map: pastures in the left half, water in the right half, and a strip without data at the top."""
    folder.mkdir(parents=True)
    about = {"driver": "GTiff", "crs": "EPSG:32633", "transform": from_origin(left, 8_400_000, 10, 10)}
    about |= {"width": side, "height": side}
    for k, band in enumerate(("B02", "B03", "B04")):
        pixels = np.add.outer(np.arange(side) * (k + 1), np.arange(side)) + 100 * k + 1
        with rasterio.open(folder / f"{band}.tif", "w", count=1, dtype="uint16", **about) as file:
            file.write(pixels.astype(np.uint16), 1)
    names = ("Marine waters", "Pastures", "Urban fabric")
    values = np.full((3, side, side), 0.2, np.float32)
    values[1, :, : side // 2] = 0.7
    values[0, :, side // 2 :] = 0.9
    values[:, : side // 10] = np.nan
    chart = folder.parent / f"{folder.name}.tif"
    with rasterio.open(chart, "w", count=3, dtype="float32", nodata=float("nan"), **about) as file:
        file.descriptions = names
        file.write(values)
    return folder, chart


def pixels(uri: str):
    kind, content = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(BytesIO(b64decode(content))))


def test_a_map_shows_the_most_probable_class_in_its_colour(tmp_path):
    seen = render_map_view(*make_scene(tmp_path / "S2A_one"))
    chart = pixels(seen.class_map)
    assert chart.shape == (240, 240, 4)
    assert (chart[:24, :, 3] == 0).all()
    colours = {c.name: c.colour for c in BEN19.classes}
    assert (chart[24:, :120] == [*colours["Pastures"], 255]).all()
    assert (chart[24:, 120:] == [*colours["Marine waters"], 255]).all()
    assert {row.name: row.fraction for row in seen.legend} == {"Pastures": 0.5, "Marine waters": 0.5}
    assert seen.size == "2.4 × 2.4 km at 10 m, EPSG:32633"


def make_class_map(chart: Path, **tags: str) -> Path:
    """The class map of `make_scene`, as `landscale predict` writes it."""
    with rasterio.open(chart) as file:
        values, profile = file.read(), file.profile | {"count": 1, "dtype": "uint8", "nodata": 255}
    names, colours = ("Marine waters", "Pastures", "New"), ("#e6f2ff", "#e6e64d", "#e69f00")
    rows = [{"value": k, "name": names[k], "colour": colours[k]} for k in range(3)]
    path = chart.with_name("classes.tif")
    with rasterio.open(path, "w", **profile) as file:
        file.write_colormap(1, {k: (*bytes.fromhex(colour[1:]), 255) for k, colour in enumerate(colours)})
        file.update_tags(**({"CLASSES": json.dumps(rows)} | tags))
        file.write(np.where(np.isnan(values[0]), 255, values.argmax(axis=0)).astype(np.uint8), 1)
    return path


def test_a_class_map_is_shown_in_its_own_colours(tmp_path):
    scene, chart = make_scene(tmp_path / "scene", side=1200)
    seen = render_map_view(scene, make_class_map(chart, MASK="scene classification"))
    shown = pixels(seen.class_map)
    assert shown.shape == (1000, 1000, 4)
    assert (shown[:100, :, 3] == 0).all()
    assert (shown[100:, :500] == [0xE6, 0xE6, 0x4D, 255]).all()
    assert (shown[100:, 500:] == [0xE6, 0xF2, 0xFF, 255]).all()
    assert {row.name: row.fraction for row in seen.legend} == {"Pastures": 0.5, "Marine waters": 0.5}
    assert seen.clouds == "What the scene classification marks, such as clouds, has no class."
    assert "not masked" in render_map_view(scene, make_class_map(chart)).clouds


@pytest.mark.parametrize("text", ["", "[]", "{}", "[1]", '[{"value": 1, "name": "x", "colour": "#ffffff"}]'])
def test_a_class_map_without_names_is_refused(tmp_path, text):
    scene, chart = make_scene(tmp_path / "scene")
    with pytest.raises(BadInput, match="without the names of its classes"):
        render_map_view(scene, make_class_map(chart, CLASSES=text))


def test_probabilities_as_bytes_are_shown_like_numbers(tmp_path):
    scene, chart = make_scene(tmp_path / "scene", side=1200)
    with rasterio.open(chart) as file:
        values, profile = file.read(), file.profile | {"dtype": "uint8", "nodata": 255}
        names = file.descriptions
    with rasterio.open(tmp_path / "bytes.tif", "w", **profile) as file:
        file.descriptions = names
        file.write(np.where(np.isnan(values), 255, np.rint(np.nan_to_num(values) * 250)).astype(np.uint8))
    assert render_map_view(scene, tmp_path / "bytes.tif").class_map == render_map_view(scene, chart).class_map


def test_a_scene_is_shown_in_the_order_red_green_blue(tmp_path):
    scene, chart = make_scene(tmp_path / "scene")
    with rasterio.open(scene / "B04.tif", "r+") as file:
        file.write(np.where(np.arange(240) < 120, 3000, 200)[None].repeat(240, 0).astype(np.uint16), 1)
    picture = pixels(render_map_view(scene, chart).picture)
    assert (picture[:, :120, 0] == 255).all()
    assert (picture[:, 120:, 0] == 0).all()
    assert (np.diff(picture[:, 50, 2].astype(int)) >= 0).all()


def test_large_images_are_reduced(tmp_path):
    seen = render_map_view(*make_scene(tmp_path / "scene", side=1200))
    assert pixels(seen.class_map).shape == (1000, 1000, 4)
    assert pixels(seen.picture).shape == (1000, 1000, 3)


def test_the_page_shows_scene_and_map(tmp_path):
    scene, chart = make_scene(tmp_path / "S2A_two")
    with rasterio.open(scene / "B04.tif", "r+") as file:
        file.update_tags(TIFFTAG_IMAGEDESCRIPTION="synthetic")
    page = Page(write_report([make_run(tmp_path / "run")], tmp_path, scene, chart))
    assert_safe_and_self_contained(page)
    assert len(page.all("img")) == 2
    assert "S2A_two" in page.words
    assert " 50.0 %" in page.words
    assert 'class="banner"' in page.source


def test_the_legend_says_what_the_map_shows(tmp_path):
    scene, chart = make_scene(tmp_path / "scene")
    words = " ".join(Page(write_report([make_run(tmp_path / "run")], tmp_path, scene, chart)).words.split())
    assert (
        "interpolated between the centres of the overlapping windows, as large as the patches of the training:" in words
    )
    assert "Clouds are not masked" in words
    with rasterio.open(chart, "r+") as file:
        file.update_tags(WINDOW_METRES=1200.0, STRIDE_METRES=300.0)
    words = " ".join(Page(write_report([tmp_path / "run"], tmp_path, scene, chart)).words.split())
    assert "interpolated between the centres of the overlapping windows of 1.2 km, 300 m apart:" in words


def test_a_map_of_an_area_is_shown_over_its_part_of_the_scene(tmp_path):
    """As the map of a scene that is no larger than the area; a map that reaches beyond its scene is refused."""
    scene, chart = make_scene(tmp_path / "whole")
    (tmp_path / "part").mkdir()
    window = Window(100, 20, 90, 50)
    for source, place in [(chart, tmp_path / "part.tif")] + [
        (path, tmp_path / "part" / path.name) for path in scene.glob("*.tif")
    ]:
        with rasterio.open(source) as file:
            profile = file.profile | {"width": 90, "height": 50, "transform": file.window_transform(window)}
            with rasterio.open(place, "w", **profile) as cut:
                cut.write(file.read(window=window))
                cut.descriptions = file.descriptions
    seen = render_map_view(scene, tmp_path / "part.tif")
    expected = render_map_view(tmp_path / "part", tmp_path / "part.tif")
    assert seen == replace(expected, scene="whole")
    assert seen.size.startswith("0.9 × 0.5 km")
    with pytest.raises(BadInput, match="bounds or coordinate systems differ"):
        render_map_view(tmp_path / "part", chart)


def test_a_map_of_another_place_is_refused(tmp_path):
    scene, _ = make_scene(tmp_path / "here")
    _, chart = make_scene(tmp_path / "there", left=400_000)
    with pytest.raises(BadInput, match="bounds or coordinate systems differ"):
        render_map_view(scene, chart)


def test_a_raster_that_is_not_a_map_is_refused(tmp_path):
    scene, chart = make_scene(tmp_path / "scene")
    with pytest.raises(BadInput, match="without a name"):
        render_map_view(scene, scene / "B02.tif")
    chart.write_bytes(b"no raster")
    with pytest.raises(BadInput, match="cannot be read"):
        render_map_view(scene, chart)


def test_markup_in_class_names_of_a_map_is_escaped(tmp_path):
    scene, chart = make_scene(tmp_path / "scene")
    with rasterio.open(chart, "r+") as file:
        file.descriptions = ("Marine waters", HOSTILE, "Urban fabric")
    page = Page(write_report([make_run(tmp_path / "run")], tmp_path, scene, chart))
    assert_safe_and_self_contained(page)
    assert html.escape(HOSTILE, quote=False).split("&gt;")[0] in page.source
