"""`landscale models`, `landscale benchmark zoo`, and the page docs/zoo.md."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscale.cli import main
from landscale.models import ZOO, create_model, describe_model
from landscale.models.catalogue import AUTHORS_BANDS, AUTHORS_CLASSES, BANDS, CLASSES, stored_rows, zoo_rows
from landscale.models.differences import PARTS, format_difference, reasons_for_differences
from landscale.models.registry import AUTHORS
from landscale.studies.zoo import page
from landscale.studies.zoo import speed as zoo
from landscale.studies.zoo.measure import OUT_OF_MEMORY, SpeedMeasurement, measure_speed_if_memory_suffices
from landscale.studies.zoo.page import COLUMNS
from landscale.studies.zoo.speed import LARGE, SMALL, comparison_sentences

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ["--device", "cpu", "--batch", "2", "--seconds", "0.05"]
TINY = ["mlp_mixer_tiny", "wide_resnet"]
WRONG_SIDE = "halonet26t"  # a network of timm that does not accept the side of a patch


def answer(capsys, *words: str):
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys, *words: str) -> str:
    """Run a command that must be refused, and return its one line on stderr."""
    assert main(list(words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


# ---- the rows of the zoo


def test_the_kept_table_lists_every_network_and_the_authors_parameters():
    assert list(stored_rows()) == list(ZOO)
    for name, row in stored_rows().items():
        authors = row["authors"] or {}
        assert authors.get("parameters") == ZOO[name].published.get(AUTHORS, {}).get("parameters")


FIRST_OF_FAMILY = {entry.family: name for name, entry in reversed(ZOO.items())}.values()


@pytest.mark.parametrize(
    "name", [name if name in FIRST_OF_FAMILY else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_the_kept_table_equals_a_new_count(name):
    row = {key: value for key, value in stored_rows()[name].items() if key != "authors"}
    assert row == describe_model(name, BANDS, CLASSES)


def test_the_listing_does_not_import_torch():
    command = [sys.executable, "-X", "importtime", "-m", "landscale", "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "landscale.models.catalogue" in done.stderr
    assert "torch" not in done.stderr
    rows = json.loads(done.stdout)
    assert [row["name"] for row in rows] == list(ZOO)
    for row in rows:
        assert row.keys() == {"name", "family", "parameters", "flops", "input", "source", "published", "authors"}


def test_one_network_and_one_family(capsys):
    assert answer(capsys, "models", "resnet50") == [stored_rows()["resnet50"]]
    rows = answer(capsys, "models", "--family", "wide_resnet")
    assert {row["name"] for row in rows} == {e.name for e in ZOO.values() if e.family == "wide_resnet"}
    assert answer(capsys, "models", "resnet50", "--family", "vgg") == []


def test_other_bands_and_classes(capsys):
    rgb = answer(capsys, "models", "wide_resnet", "--bands", "rgb", "--classes", "43")
    assert rgb == answer(capsys, "models", "wide_resnet", "--bands", "3", "--classes", "43")
    assert rgb[0]["input"] == [3, 60, 60]
    assert rgb[0]["parameters"] == sum(p.numel() for p in create_model("wide_resnet", 3, 43).parameters())
    assert rgb[0]["authors"] == stored_rows()["wide_resnet"]["authors"]


def test_a_network_of_timm(capsys):
    (row,) = answer(capsys, "models", "mobilenetv3_small_050")
    assert (row["family"], row["input"], row["authors"]) == ("mobilenetv3", [12, 120, 120], None)


@pytest.mark.parametrize(
    "words,line",
    [
        (["resnt50"], "unknown model 'resnt50'; did you mean resnet50"),
        (["--family", "wide_resnt"], "unknown family 'wide_resnt'; did you mean wide_resnet"),
        (["--bands", "s2-11"], "unknown band or band set 's2-11'; did you mean s2-1"),
        (["--bands", "0"], "--bands: found 0, expected at least 1"),
        (["--classes", "-1"], "--classes: found -1, expected at least 0"),
    ],
)
def test_the_listing_refuses(capsys, words, line):
    assert line in refusal(capsys, "models", *words)


def test_a_network_that_does_not_accept_the_side_is_refused(capsys):
    assert main(["models", WRONG_SIDE]) == 2
    assert f"landscale: model '{WRONG_SIDE}' does not take 120 px" in capsys.readouterr().err


def test_the_table_shows_counts_and_published_figures(capsys):
    assert main(["models", "resnet50"]) == 0
    shown = capsys.readouterr().out
    for word in ("23,575,187", "23,595,475", "-26,560", "macro_f1 0.644", "AiTLAS"):
        assert word in shown


# ---- measuring


@pytest.mark.slow
def test_a_killed_benchmark_is_resumed(tmp_path, capsys, monkeypatch):
    out = tmp_path / "zoo.json"
    words = ["benchmark", "zoo", *TINY, *QUICK, "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "landscale", *words], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not out.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (first,) = json.loads(out.read_text())["models"]
    assert first["name"] == TINY[0]

    # a network that fails does not stop the others
    words = ["benchmark", "zoo", TINY[0], WRONG_SIDE, TINY[1], *QUICK, "--out", str(out)]
    assert main([*words, "--json"]) == 1
    captured = capsys.readouterr()
    assert f"landscale: {WRONG_SIDE} failed: AssertionError" in captured.err
    content = json.loads(captured.out)
    assert content == json.loads(out.read_text())
    assert [row["name"] for row in content["models"]] == [TINY[0], WRONG_SIDE, TINY[1]]
    assert content["models"][0] == first
    check_schema(content)

    # only networks that failed are measured again
    again = []
    monkeypatch.setattr(zoo, "measure_in_process", lambda job: again.append(job.name) or {"failed": OUT_OF_MEMORY})
    assert main(words) == 0
    assert main(words) == 0
    assert again == [WRONG_SIDE]
    capsys.readouterr()
    assert refusal(capsys, *words, "--batch", "3") == (
        f"landscale: {out}: contains results with batch 2, not 3; choose another --out"
    )

    written = tmp_path / "zoo.md"
    few = [
        *zoo_rows("mlp_mixer_tiny"),
        *zoo_rows("wide_resnet"),
        *zoo_rows("vgg16_gap"),
    ]  # because counting all networks takes long
    monkeypatch.setattr(page, "zoo_rows", lambda **_: few)
    assert main(["benchmark", "zoo", "--out", str(out), "--markdown", str(written)]) == 0
    rows = rows_of(written.read_text())
    assert list(rows) == ["mlp_mixer_tiny", "wide_resnet", "vgg16_gap"]
    assert rows["wide_resnet"]["training images/s"] == f"{content['models'][2]['training']:,.1f}"
    assert rows["vgg16_gap"]["training images/s"] == ""
    assert f"--markdown {written}" in written.read_text()


def check_schema(content):
    assert content["settings"].items() >= {"device": "cpu", "batch": 2, "seconds": 0.05, "classes": 19}.items()
    assert len(content["settings"]["bands"]) == 10
    assert content["environment"].keys() >= {"processor", "cores", "threads", "gpu", "packages"}
    assert content["comparison"] == []  # measured only if both of its networks are named
    for row in content["models"]:
        assert row.keys() >= {"name", "family", "side"}
        if "failed" not in row:
            described = describe_model(row["name"], AUTHORS_BANDS, AUTHORS_CLASSES)
            assert (row["parameters"], row["flops"]) == (described["parameters"], described["flops"])
            assert min(row["training"], row["machine_flops"], row["chunks"]) > 0
            assert (
                row["inference"] > row["training"] / 2
            )  # inference is a part of training; measurements this short are noisy
            assert row["training_share"] == pytest.approx(3 * row["flops"] * row["training"] / row["machine_flops"])
            assert (
                1e6 < row["peak_memory"] < 1e9
            )  # megabytes of activations, much less than the memory of an interpreter


def test_out_of_memory_is_a_result():
    job = SpeedMeasurement("wide_resnet", 60, "cpu", batch=10**9, seconds=0.05, bands=("B02",), classes=19)
    assert measure_speed_if_memory_suffices(job) == {"failed": OUT_OF_MEMORY}


@pytest.mark.parametrize(
    "words,line",
    [
        (["resnt50"], "unknown model 'resnt50'; did you mean resnet50"),
        (["--family", "vitt"], "unknown family 'vitt'; did you mean vit"),
        (["--bands", "s3"], "unknown band or band set 's3'"),
        (["--batch", "1"], "--batch: found 1, expected at least 2"),
        (["--seconds", "0"], "--seconds: found 0, expected a number above 0"),
        (["--classes", "0"], "--classes: found 0, expected at least 1"),
        (["resnet50", "--family", "vit"], "--family: found together with names of networks"),
        (["--markdown", "page.md"], "zoo.json: cannot be read"),
    ],
)
def test_the_benchmark_refuses(tmp_path, capsys, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    assert line in refusal(capsys, "benchmark", "zoo", *words)
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_not_overwritten(tmp_path, capsys):
    out = tmp_path / "other.json"
    out.write_text('{"benchmark": "tiles"}')
    assert "contains no results of `landscale benchmark zoo`" in refusal(
        capsys, "benchmark", "zoo", "resnet18", "--out", str(out)
    )
    assert out.read_text() == '{"benchmark": "tiles"}'


# ---- the main claim of Papoutsis et al. 2022


def rounds(small: float, at_120: float, large: float) -> list[dict]:
    """Three rounds of the comparison, of which one was slowed down."""
    rows = []
    for k, noise in enumerate((1.0, 0.2, 1.0)):
        for name, side, speed, parameters in (
            (SMALL, 90, small, 10),
            (SMALL, 120, at_120, 10),
            (LARGE, 120, large, 100),
        ):
            figures = {"training": noise * speed, "inference": 2 * speed, "peak_memory": 5, "parameters": parameters}
            rows.append({"name": name, "side": side, "round": k, "flops": 7} | figures)
    return rows


@given(*[st.floats(0.1, 1e5)] * 3)
def test_sentences_contain_the_ratios_of_medians(small, at_120, large):
    lines = comparison_sentences({"comparison": rounds(small, at_120, large), "settings": {"batch": 2}})
    assert "10.0 times fewer" in lines[0]
    for line, where, speed in zip(lines[1:], ("Each at its own side", "Both at 120 px"), (small, at_120), strict=True):
        assert line.startswith(where)
        assert f"trains {speed / large:.2f} times as fast" in line


def test_no_sentences_without_measurements():
    assert comparison_sentences({"comparison": [], "settings": {"batch": 2}}) == []
    failed = [{"name": LARGE, "side": 120, "round": 0, "failed": "out of memory"}]
    assert comparison_sentences({"comparison": failed, "settings": {"batch": 2}}) == []


def test_the_comparison_takes_turns(tmp_path, monkeypatch):
    jobs = []
    figures = {"training": 1.0, "inference": 1.0, "peak_memory": None, "parameters": 1, "flops": 1}
    monkeypatch.setattr(zoo, "measure_in_process", lambda job: jobs.append((job.name, job.side)) or figures)
    content = zoo.measure_zoo([SMALL, LARGE], tmp_path / "zoo.json", "cpu", 2, 1.0, ("B02",), 19)
    assert jobs == [(SMALL, 90), (LARGE, 120), *[(SMALL, 90), (SMALL, 120), (LARGE, 120)] * 3]
    assert [row["round"] for row in content["comparison"]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "nan of the memory" in comparison_sentences(content)[1]


# ---- the page


def rows_of(text: str) -> dict[str, dict[str, str]]:
    """The cells of all families' tables of the page, by network and column."""
    text = text.partition("## What the networks learn")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    return {cells[0].strip("`"): dict(zip(COLUMNS, cells, strict=True)) for cells in rows}


def test_the_documented_page_lists_every_network_with_its_parameters():
    text = (DOCS / "zoo.md").read_text(encoding="utf-8")
    rows = rows_of(text)
    assert set(rows) == set(ZOO)
    for name, cells in rows.items():
        parameters = int(cells["parameters"].replace(",", ""))
        if name in FIRST_OF_FAMILY:  # of the others, this would take long
            with torch.device("meta"):
                network = create_model(name, AUTHORS_BANDS, AUTHORS_CLASSES)
            assert parameters == sum(p.numel() for p in network.parameters() if p.requires_grad), name
        published = ZOO[name].published.get(AUTHORS, {}).get("parameters")
        assert cells["authors'"] == (f"{published:,}" if published else ""), name
        assert cells["difference"] == (format_difference(int(parameters - published)) if published else ""), name
        assert cells["input px"] == str(ZOO[name].side)
    for family in {entry.family for entry in ZOO.values()}:
        assert all(
            line in text for line in reasons_for_differences([e.name for e in ZOO.values() if e.family == family])
        )


def test_every_difference_from_the_published_code_has_reasons():
    differing = {row["name"]: row["authors"]["difference"] for row in zoo_rows() if row["authors"]}
    assert {name: number for name, number in differing.items() if number} == {
        name: sum(parts.values()) for name, parts in PARTS.items()
    }


@given(st.integers(-(10**9), 10**9))
def test_signed_numbers_have_a_sign_and_keep_their_value(number):
    text = format_difference(number)
    assert int(text.replace("−", "-").replace(",", "")) == number
    assert text[0] in "+−" or number == 0


def test_networks_with_the_same_reason_share_a_line():
    lines = reasons_for_differences(["resnet50", "vgg16_gap", "resnet101"])
    assert len(lines) == 1
    assert lines[0].endswith("`resnet50` −26,560, `resnet101` −52,672")
