"""`landscale explain` on a network that was trained on bright squares: it finds their place and band, and what it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio

from conftest import Cli
from landscale.explain import explain as explain_module
from landscale.explain.explain import Choices, explain
from landscale.testing import make_store, rgbn_plane
from spots import CLASSES, SIDE, SPOT, spots

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # raised by rasterio itself
NAMES = {"explanation.json", "index.html", "bands.csv", "heat_maps", "heat_maps.csv"}


@pytest.fixture(scope="module")
def explained(spotted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store, run = spotted
    out = tmp_path_factory.mktemp("explained") / "out"
    explain(str(run), store.path, str(out), choices=Choices(patches=6, repeats=3), show=False)
    return out


def test_what_is_written(explained: Path) -> None:
    assert {path.name for path in explained.iterdir()} == NAMES
    summary = json.loads((explained / "explanation.json").read_text())
    assert (summary["split"], summary["patches"]) == ("test", 24)
    assert summary["examples"]["true positive"] == 12
    listed = pd.read_csv(explained / "heat_maps.csv")
    assert sorted(listed["file"]) == [f"heat_maps/{path.name}" for path in sorted((explained / "heat_maps").iterdir())]
    assert len(listed) == sum(summary["examples"].values())
    text = (explained / "index.html").read_text(encoding="utf-8")
    assert text.count("<figure>") == len(listed)
    assert "http" not in text.replace("http-equiv", "")


def test_heat_maps_lie_on_the_squares_and_on_the_ground(explained: Path) -> None:
    labels, _, corners = spots(176)
    inside, places = [], 0
    for row in pd.read_csv(explained / "heat_maps.csv").itertuples():
        number, wanted = int(row.patch.removeprefix("patch_")), CLASSES.index(row[3])
        with rasterio.open(explained / row.file) as file:
            heat = file.read(1)
            assert (file.crs.to_epsg(), file.shape, file.tags()["PATCH"]) == (32633, (SIDE, SIDE), row.patch)
            assert file.transform[:6] == (10.0, 0.0, 300_000 + 1200.0 * number, 0.0, -10.0, 5_000_000.0)
        if row.kind == "true positive":
            assert labels[number, wanted]
            top, left = corners[number, wanted]
            square = heat[max(top - 2, 0) : top + SPOT + 2, max(left - 2, 0) : left + SPOT + 2]
            inside.append(square.sum() / heat.sum())
            places += square.size / heat.size
    assert np.mean(inside) > 1.8 * places / len(inside)  # much more than if heat were spread evenly


def test_removing_what_is_marked_lowers_the_probability_faster(explained: Path) -> None:
    deletion = json.loads((explained / "explanation.json").read_text())["deletion"]
    assert deletion["patches"] >= 12
    assert deletion["marked"] < deletion["moved"] - 0.1
    assert deletion["faster_than_moved"] >= 0.8 * deletion["patches"]


def test_the_bands_of_the_squares_are_important_and_the_others_are_not(explained: Path) -> None:
    table = pd.read_csv(explained / "bands.csv").set_index(["bands", "class", "method"])["importance"]
    for method in ("occlusion", "permutation"):
        for own, other, label in (("B02", "B03", "blue"), ("B03", "B02", "green")):
            assert table[own, label, method] > 0.2
            assert abs(table[other, label, method]) < 0.1
        assert abs(table["B08", "all classes", method]) < 0.1
        assert table["visible", "all classes", method] > 0.2
    rows = pd.read_csv(explained / "bands.csv")
    permuted = rows[rows["method"] == "permutation"]
    assert (permuted["low"] <= permuted["importance"]).all()
    assert (permuted["high"] >= permuted["importance"]).all()
    assert rows[rows["method"] == "occlusion"]["low"].isna().all()


def test_the_command_gives_the_same_again(explained: Path, spotted, tmp_path: Path, cli: Cli) -> None:
    """Also over an older result, which is replaced."""
    store, run = spotted
    out = tmp_path / "out"
    words = ("explain", run, store.path, out, "--patches", 6, "--repeats", 3, "--json")
    assert cli("explain", run, store.path, out, "--class", "blue", "--patches", 1, "--band-patches", 0).code == 0
    assert set(pd.read_csv(out / "heat_maps.csv")["class"]) == {"blue"}
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    assert answer.json == json.loads((explained / "explanation.json").read_text())
    for name in ("index.html", "bands.csv", "heat_maps.csv", "heat_maps/0000.tif"):
        assert (out / name).read_bytes() == (explained / name).read_bytes(), name


def test_a_single_label_classifier_without_true_colour_and_without_a_place(tmp_path: Path) -> None:
    from dataclasses import replace

    from trainings import PLAIN, learn

    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), multi_label=False, splits={"train": 16, "val": 8})
    learn(replace(PLAIN, bands="B08", scale="linear", epochs=1), store, tmp_path / "run")
    summary = explain(tmp_path / "run", store, tmp_path / "out", choices=Choices(patches=1, repeats=1), show=False)
    assert summary["split"] == "val"
    assert {row["bands"] for row in summary["bands"]} == {"B08"}
    assert all(row["low"] is None for row in summary["bands"])


@pytest.mark.parametrize(
    "words,part",
    [
        (["--patches", "-1"], "--patches: found -1, expected at least 0"),
        (["--repeats", "11"], "--repeats: found 11, expected 1 to 10"),
        (["--band-patches", "1"], "--band-patches: found 1, expected 0 or at least 2"),
        (["--class", "bleu"], "unknown class 'bleu'; did you mean blue?"),
        (["--pick", "randm"], "unknown way to pick 'randm'; did you mean random?"),
        (["--split", "tst"], "unknown split 'tst'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(words: list[str], part: str, spotted, tmp_path: Path, cli: Cli) -> None:
    store, run = spotted
    answer = cli("explain", run, store.path, tmp_path / "out", *words)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert part in answer.lines[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_with_anything_else_is_not_replaced(spotted, tmp_path: Path, cli: Cli) -> None:
    store, run = spotted
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, part in (
        (tmp_path / "mine", "neither empty nor an older explanation"),
        (run / "explained", "is the input"),
        (store.path.parent, "is the input"),
        (tmp_path / "mine" / "notes.txt", "is not a folder"),
    ):
        answer = cli("explain", run, store.path, out)
        assert (answer.code, len(answer.lines)) == (2, 1)
        assert part in answer.lines[0]
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_nothing_is_left_after_an_error(spotted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, run = spotted

    def fail(*_: object) -> str:
        raise OSError("full")

    monkeypatch.setattr(explain_module, "page", fail)
    with pytest.raises(OSError, match="full"):
        explain(run, store, tmp_path / "out", choices=Choices(patches=1, band_patches=0), show=False)
    assert not list(tmp_path.iterdir())
