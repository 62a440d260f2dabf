"""`landscale benchmark transfer`: its table is that of the probes, scratch is trained once per network, and it resumes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import Cli
from landscale.cli import main
from landscale.probing import linear, study, training
from landscale.probing.linear import STRENGTHS
from landscale.store import PatchStore
from landscale.studies.transfer.inputs import find_encoders
from landscale.studies.transfer.multiples import labels_to_reach
from landscale.studies.transfer.page import multiples_table, transfer_page
from landscale.studies.transfer.plots import encoder_label, scratch_label, store_charts
from landscale.studies.transfer.study import TransferPlan
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import Recipe
from small_networks import save_small_encoder

ENCODERS = ("weights-0", "weights-1", "weights-0-0.25")
SPLITS = {"train": 60, "val": 20, "test": 50}
KEYS = ["--epochs", "1", "--batch", "8", "--warmup-epochs", "0", "--precision", "fp32"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stores and three encoders, of which the first two have the same network."""
    folder = tmp_path_factory.mktemp("transfer")
    for name, multi_label in (("single", False), ("multi", True)):
        store = make_store(
            folder / f"{name}.h5", planes=rgbn_plane(12), splits=SPLITS, multi_label=multi_label, signal=1.0
        )
    for name, seed, width in zip(ENCODERS, (0, 1, 0), (0.5, 0.5, 0.25), strict=True):
        save_small_encoder(folder / name, store, ("B04", "B03", "B02", "B08"), seed, options={"width": width})
    return folder


def quick(patched: pytest.MonkeyPatch, folder: Path) -> None:
    """Work in a folder, with few steps and strengths, and with `imitated_training` instead of trainings."""
    patched.setattr(linear, "STRENGTHS", STRENGTHS[20:22])
    patched.setattr(training, "LEAST_STEPS", 2)
    patched.setattr(study, "trained_probabilities", imitated_training)
    patched.chdir(folder)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    quick(monkeypatch, place)


def imitated_training(recipe: Recipe, store: PatchStore, rows: np.ndarray, run: Path) -> np.ndarray:
    """Probabilities of the test patches that are better with more training patches, and differ between seeds."""
    targets = store.classes[store.patches("test")]
    noise = np.random.default_rng([recipe.seed, len(rows)]).random(targets.shape)
    return np.float32(noise + 0.2 * np.log10(len(rows)) * targets) / 2


def words(
    out: Path,
    encoders: tuple[str, ...] = ENCODERS,
    protocols: str = "knn,scratch",
    stores: tuple[str, ...] = ("single.h5",),
) -> list[str]:
    names = ["--encoders", ",".join(encoders), "--protocol", protocols]
    amounts = ["--fraction", "0.1,1.0", "--shots", "40", "--seeds", "2"]
    return ["benchmark", "transfer", *stores, *names, *amounts, "--out", str(out), *KEYS]


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study."""
    out = tmp_path_factory.mktemp("done") / "study"
    with pytest.MonkeyPatch.context() as patched:
        quick(patched, place)
        assert main(words(out, stores=("single.h5", "multi.h5"))) == 0
    return out


def cells(out: Path, protocol: str) -> list[Path]:
    return list(out.glob(f"probes/*/*/cells/{protocol}-1-0.json"))


def test_the_table_has_every_probe_once(done: Path):
    rows = json.loads((done / "transfer.json").read_text())["rows"]
    assert len(rows) == 2 * 3 * (3 + 2)
    assert len(cells(done, "knn")) == 6
    assert len(cells(done, "scratch")) == 4  # two networks on two stores
    table = pd.read_csv(done / "transfer.csv")
    written = pd.read_parquet(done / "transfer.parquet").astype({"shots": "float64"})
    pd.testing.assert_frame_equal(written, table, check_dtype=False)
    assert table["accuracy"].tolist() == pytest.approx([row.get("accuracy", np.nan) for row in rows], nan_ok=True)
    scratch = table["protocol"] == "scratch"
    assert scratch.sum() == 2 * 2 * 3
    assert (table["encoder"].isna() == scratch).all()
    assert (table["times"].isna() == scratch).all()
    assert set(table["network"][scratch]) == {"wide_resnet", "wide_resnet (2)"}
    assert (table["figure"] == np.where(table["store"] == "single.h5", "accuracy", "micro_ap")).all()


def test_rows_are_those_of_the_probes(done: Path):
    rows = json.loads((done / "transfer.json").read_text())["rows"]
    probes = [pd.read_csv(file) for file in done.glob("probes/*/*/probe.csv")]
    scores = {figure: sorted(pd.concat(probes)[figure].dropna()) for figure in ("accuracy", "micro_ap_low")}
    for figure, values in scores.items():
        assert sorted(row[figure] for row in rows if figure in row) == pytest.approx(values)
    digests = {row["encoder"]: row["weights"] for row in rows if row["encoder"]}
    for row in rows:
        if row["encoder"]:
            stem = f"{Path(row['store']).stem}-{row['store_digest'][:12]}"
            about = json.loads(
                (done / "probes" / stem / f"wide_resnet-{row['weights'][:12]}" / "probe.json").read_text()
            )
            assert (about["weights"], about["store"]) == (digests[row["encoder"]], row["store_digest"])


def test_multiples_are_those_of_the_table(done: Path):
    """An independent computation: numpy's interpolation of the logarithm of labels by the score."""
    rows = json.loads((done / "transfer.json").read_text())["rows"]
    table = pd.DataFrame(rows)
    bounds = []
    for row in (row for row in rows if row["encoder"]):
        figure = row["figure"]
        curve = table[(table["store"] == row["store"]) & (table["protocol"] == "scratch")]
        curve = curve[curve["network"] == row["network"]].sort_values("fitted")
        best = np.maximum.accumulate(curve[figure].to_numpy())
        if row[figure] > best[-1]:
            expected = (curve["fitted"].iloc[-1] / row["fitted"], ">")
        elif row[figure] < best[0]:
            expected = (curve["fitted"].iloc[0] / row["fitted"], "<")
        else:
            first = np.unique(best, return_index=True)[1]  # of equal scores the one with the fewest labels
            steps = np.log(curve["fitted"].to_numpy()[first])
            expected = (np.exp(np.interp(row[figure], best[first], steps)) / row["fitted"], "=")
        assert (row["times"], row["times_bound"]) == (pytest.approx(expected[0]), expected[1])
        assert row["times_low"] <= row["times_high"]
        bounds.append(expected[1])
    assert len(set(bounds)) > 1


def test_intervals_compare_the_same_patches_and_seeds(done: Path):
    """An independent computation from the samples in the cells, one sample after another."""
    rows = json.loads((done / "transfer.json").read_text())["rows"]
    scratch = [row for row in rows if row["protocol"] == "scratch"]
    chosen = np.random.default_rng(0).integers(0, 2, size=(200, 2))  # seeds of each sample
    owners = {"wide_resnet": "weights-0", "wide_resnet (2)": "weights-0-0.25"}
    digests = {row["encoder"]: row["weights"] for row in rows}

    def samples(row: dict[str, Any]) -> np.ndarray:
        digest = digests[row["encoder"] or owners[row["network"]]]
        amount = "40-shots" if row["shots"] else f"{row['fraction']:g}"
        (folder,) = done.glob(f"probes/{Path(row['store']).stem}-*/*-{digest[:12]}/cells")
        files = [folder / f"{row['protocol']}-{amount}-{seed}.json" for seed in range(row["seeds"])]
        values = [json.loads(file.read_text())["samples"][row["figure"]] for file in files]
        return np.array([np.mean([values[s if len(values) > 1 else 0][b] for s in chosen[b]]) for b in range(200)])

    for row in (row for row in rows if row["encoder"]):
        curve = [other for other in scratch if all(other[key] == row[key] for key in ("store", "network"))]
        curve.sort(key=lambda other: other["fitted"])
        labels = np.array([other["fitted"] for other in curve])
        reached = [
            float(labels_to_reach(labels, np.array(scores), np.float64(own)))
            for own, *scores in zip(samples(row), *map(samples, curve), strict=True)
        ]
        low, high = (np.clip(sorted(reached)[k], labels[0], labels[-1]) / row["fitted"] for k in (4, 195))
        assert (row["times_low"], row["times_high"]) == pytest.approx((low, high))


def test_page_charts_and_the_command_that_repeats_it(cli: Cli, done: Path, monkeypatch: pytest.MonkeyPatch):
    content = json.loads((done / "transfer.json").read_text())
    page = (done / "transfer.md").read_text()
    assert page == transfer_page(content)
    for store in content["stores"]:
        assert f"]({store['chart']})" in page
        with Image.open(done / store["chart"]) as chart:
            assert min(chart.size) > 300

    monkeypatch.setattr(study, "_compute", None)  # nothing is computed again
    before = {path.name: path.read_bytes() for path in done.iterdir() if path.suffix not in (".json", "")}
    assert len(before) == 5
    program, *again = shlex.split(content["command"])
    assert (program, again[:2], again[2:4]) == ("landscale", ["benchmark", "transfer"], ["single.h5", "multi.h5"])
    answer = cli(*again)
    assert "as good as scratch with n times the labels" in answer.out
    assert before == {path.name: path.read_bytes() for path in done.iterdir() if path.name in before}
    assert json.loads((done / "transfer.json").read_text())["rows"] == content["rows"]


def test_labels_are_those_that_were_really_used(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        study, "trained_probabilities", lambda *_: np.full((50, 4), 0.25, np.float32)
    )  # the first class
    given = ["single.h5", "--encoders", "weights-0", "--protocol", "linear,scratch", "--shots", "2,40"]
    answer = cli("benchmark", "transfer", *given, "--out", tmp_path / "out", *KEYS, "--json")
    used = {(row["protocol"], row["shots"]): (row["drawn"], row["fitted"]) for row in answer.json["rows"]}
    # 40 of each class are more than there are: all are used, and with all labels linear is fitted to val, too
    assert used == {("linear", 2): (8, 8), ("linear", 40): (60, 80), ("scratch", 2): (8, 8), ("scratch", 40): (60, 60)}
    assert "| linear | 40 a class | 80 | 1 |" in (tmp_path / "out" / "transfer.md").read_text()
    row = next(row for row in answer.json["rows"] if (row["protocol"], row["shots"]) == ("linear", 40))
    assert (row["times"], row["times_bound"]) == (60 / 80, ">")


def test_an_encoder_that_is_added_needs_only_its_own_cells(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    first = cli(*words(out, ENCODERS[:1], "knn,scratch"), "--json")
    assert first.code == 0, first.lines
    computed = []
    true = study._compute
    monkeypatch.setattr(
        study, "_compute", lambda cell, *more, **how: (computed.append(cell.protocol), true(cell, *more, **how))[1]
    )
    second = cli(*words(out, ENCODERS[:2], "knn,scratch"), "--json")
    assert set(computed) == {"knn"}
    of_first = [row for row in second.json["rows"] if row["encoder"] in (None, "weights-0")]
    assert of_first == first.json["rows"]
    assert len(cells(out, "scratch")) == 1


def test_an_interrupted_study_is_resumed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"

    def interrupted(*_: object) -> np.ndarray:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study, "trained_probabilities", interrupted)
        assert cli(*words(out, ENCODERS[:1])).code == 130
    assert json.loads((out / "transfer.json").read_text())["rows"] == []
    assert not (out / "transfer.md").exists()
    answer = cli(*words(out, ENCODERS[:1]), "--json")
    assert len(answer.json["rows"]) == 2 * 3
    assert (out / "transfer.md").exists()


def test_without_scratch_there_are_no_multiples(cli: Cli, tmp_path: Path):
    answer = cli(*words(tmp_path / "out", ENCODERS[:1], "knn"), "--json")
    assert {row["times"] for row in answer.json["rows"]} == {None}
    assert "Without the protocol `scratch`" in (tmp_path / "out" / "transfer.md").read_text()
    assert pd.read_parquet(tmp_path / "out" / "transfer.parquet")["times"].isna().all()


def test_trainings(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(study, "trained_probabilities", training.trained_probabilities)
    given = ["single.h5", "--encoders", "weights-0,weights-1", "--protocol", "fine-tune,scratch", "--shots", 2]
    answer = cli("benchmark", "transfer", *given, "--out", tmp_path / "out", *KEYS, "--json")
    assert answer.code == 0, answer.lines
    found = [(row["encoder"], row["protocol"], row["drawn"]) for row in answer.json["rows"]]
    assert found == [("weights-0", "fine-tune", 8), (None, "scratch", 8), ("weights-1", "fine-tune", 8)]
    assert not list(tmp_path.glob("out/probes/*/*/features.parquet"))


def test_only_scratch(cli: Cli, tmp_path: Path):
    answer = cli(*words(tmp_path / "out", ENCODERS[:2], "scratch"), "--json")
    assert answer.code == 0, answer.lines
    assert [row["network"] for row in answer.json["rows"]] == ["wide_resnet"] * 3
    assert store_charts(answer.json, answer.json["stores"][0])[0].title == "scratch: accuracy"


def test_wrong_input_is_refused_before_anything_is_written(cli: Cli, tmp_path: Path, place: Path):
    no_test = make_store(tmp_path / "t.h5", planes=rgbn_plane(12), splits={"train": 8, "val": 4}, multi_label=False)
    no_val = make_store(tmp_path / "v.h5", planes=rgbn_plane(12), splits={"train": 8, "test": 4}, multi_label=False)
    eight_bit = make_store(tmp_path / "e.h5", planes=rgbn_plane(12, "uint8"), splits=SPLITS, multi_label=False)
    unlabelled = make_store(
        tmp_path / "u.h5", planes=rgbn_plane(12), splits=SPLITS, classes=(), labels=np.zeros((130, 0))
    )
    (tmp_path / "broken.h5").write_bytes(b"no store")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "transfer.csv").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "transfer.json").write_text('{"benchmark": "learning"}')
    out = ["--out", tmp_path / "new"]
    one = ["--encoders", "weights-0", *out]
    for given, problem in (
        (["single.h5", "--encoders", "weights-0,weights-9", *out], "weights-9: holds no weights"),
        (["single.h5", "--encoders", "weights-0,bundled:eurosat", *out], "bundled:eurosat-rgb"),
        (["single.h5", "--encoders", "weights-0,weights-0", *out], "are the same weights, expected each once"),
        (["single.h5", "--encoders", "", *out], "holds no weights"),
        (["single.h5", *out], "--encoders"),
        (["single.h5", "single.h5", *one], "holds the same patches as single.h5"),
        (["single.h5", "none.h5", *one], "no such store"),
        (["single.h5", tmp_path / "broken.h5", *one], "broken.h5"),
        (["single.h5", no_test.path, *one], "holds no patch of the split 'test'"),
        (["single.h5", no_val.path, *one], "holds no patch of the split 'val'"),
        (["single.h5", unlabelled.path, *one], "has no classes"),
        (["single.h5", eight_bit.path, *one, "--protocol", "knn"], "holds 8-bit"),
        (["single.h5", *one, "--protocol", "knn,linaer"], "unknown protocol 'linaer'"),
        (["single.h5", *one, "--fraction", "0"], "--fraction: found 0"),
        (["single.h5", *one, "--shots", "0"], "--shots: found 0"),
        (["single.h5", *one, "--seeds", "0"], "--seeds: found 0"),
        (["single.h5", *one, "--epoch", "3"], "unknown recipe key 'epoch'"),
        (["single.h5", *one, "--labels", "clc43"], "lacks some of the requested classes"),
        (
            ["single.h5", "--encoders", "weights-0", "--out", tmp_path / "mine"],
            "is neither an empty folder nor a transfer",
        ),
        (["single.h5", "--encoders", "weights-0", "--out", tmp_path / "other"], "contains no results of"),
    ):
        answer = cli("benchmark", "transfer", *given)
        assert answer.code == 2, given
        assert len(answer.lines) == 1, answer.lines
        assert problem in answer.lines[0]
        assert not (tmp_path / "new").exists(), given
    assert (tmp_path / "mine" / "transfer.csv").read_text() == "mine"


# ---- encoders, page and charts


def test_networks_are_numbered_where_their_input_or_options_differ(place: Path):
    found = find_encoders(ENCODERS, None, ())
    assert [(e.network, e.trains_scratch) for e in found] == [
        ("wide_resnet", True),
        ("wide_resnet", False),
        ("wide_resnet (2)", True),
    ]


def test_the_command_keeps_words_with_spaces():
    plan = TransferPlan(("my store.h5",), ("a", "b"), ("knn",), (0.1, 1.0), (), 3, "few_labels", ("--rate", "0.01"))
    assert plan.command(Path("out")) == (
        "landscale benchmark transfer 'my store.h5' --encoders a,b --protocol knn --fraction 0.1,1.0 --seeds 3"
        " --recipe few_labels --out out --rate 0.01"
    )


def row(encoder: str | None, protocol: str, shots: int, score: float, times: str = "=") -> dict[str, Any]:
    number = {"times": 2.0, "times_bound": times, "times_low": 1.0, "times_low_bound": "<"}
    number |= {"times_high": 9.0, "times_high_bound": ">"}
    empty = dict.fromkeys(number)
    return {
        **{"store": "s.h5", "encoder": encoder, "network": "net", "protocol": protocol, "fraction": None},
        **{"shots": shots, "fitted": 4.0 * shots, "seeds": 2, "figure": "accuracy", "accuracy": score},
        **{"accuracy_low": score - 0.1, "accuracy_high": score + 0.2},
        **(number if encoder else empty),
    }


CONTENT: dict[str, Any] = {
    "benchmark": "transfer",
    "command": "landscale benchmark transfer s.h5",
    "environment": {"processor": "a processor", "gpu": None, "packages": {"landscale": "0", "torch": "2", "timm": "1"}},
    "encoders": [
        {"encoder": name, "weights": digest * 16, "network": "net", "bands": ["B02", "B03"], "side": 12}
        for name, digest in (("a_b*", "1234"), ("folder/" * 5 + "weights", "5678"))
    ],
    "stores": [
        {"store": "s.h5", "digest": "abcd" * 8, "figure": "accuracy", "classes": 4, "multi_label": False}
        | {"splits": {"train": 60, "test": 50}, "chart": "transfer-s.png"}
    ],
    "rows": [
        row("a_b*", "knn", 1, 0.5),
        row("a_b*", "knn", 5, 0.6, ">"),
        row(None, "scratch", 1, 0.4),
        row(None, "scratch", 5, 0.55),
        row("folder/" * 5 + "weights", "knn", 1, 0.3),
        row("folder/" * 5 + "weights", "knn", 5, 0.7),
    ],
}


def test_tables_of_given_results():
    columns, rows = multiples_table(CONTENT, CONTENT["stores"][0])
    assert columns == ["encoder", "protocol", "1 a class", "5 a class"]
    assert rows[0] == ["a_b*", "knn", "2 [< 1 … > 9]", "> 2 [< 1 … > 9]"]
    page = transfer_page(CONTENT)
    assert r"| a_b\* | knn | 2 [< 1 … > 9] | > 2 [< 1 … > 9] |" in page
    assert r"| a_b\* | net | B02 B03 | 12 px | 123412341234 |" in page
    assert r"| none, net | scratch | 5 a class | 20 | 2 | 0.5500 [0.450 … 0.750] |" in page
    assert "4 classes, single-label; patches: 60 train, 50 test; digest abcdabcdabcd. The score is accuracy." in page


def test_charts_have_a_line_for_each_encoder_and_for_scratch():
    (chart,) = store_charts(CONTENT, CONTENT["stores"][0])
    assert chart.title == "knn: accuracy"
    assert [line.name for line in chart.lines] == ["scratch, net", "a_b*", "…older/folder/weights 567856"]
    assert len({line.colour for line in chart.lines}) == 3
    assert chart.lines[0].points == [(4.0, 0.4), (20.0, 0.55)]
    assert chart.lines[0].intervals[0] == pytest.approx((0.3, 0.6))


def test_labels_of_long_names_differ():
    one, other = ({"encoder": f"{k}/{'folder/' * 9}weights", "weights": k * 64} for k in "12")
    assert encoder_label(one) != encoder_label(other)
    assert len(encoder_label(one)) == 28
    assert scratch_label("x" * 40 + " (2)").endswith(" (2)")
    assert len(scratch_label("x" * 40 + " (2)")) == 36
