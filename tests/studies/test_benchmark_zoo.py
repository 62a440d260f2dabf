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
from landscale.studies.zoo.page import COLUMNS, speed_cells
from landscale.studies.zoo.summary import speed_of

DOCS = Path(__file__).parents[2] / "docs"
QUICK = ["--device", "cpu", "--batch", "2", "--seconds", "0.05", "--rounds", "2"]
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
    while not (out.exists() and '"round"' in out.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = json.loads(out.read_text())["measurements"][0]
    assert (first["name"], first["round"]) == (TINY[0], 0)

    # a network that fails does not stop the others
    monkeypatch.setattr(zoo, "REPEATS", 0)  # because other tests keep the machine busy
    words = ["benchmark", "zoo", TINY[0], WRONG_SIDE, TINY[1], *QUICK, "--out", str(out)]
    assert main([*words, "--json"]) == 1
    captured = capsys.readouterr()
    assert f"landscale: {WRONG_SIDE} failed: " in captured.err
    content = json.loads(captured.out)
    assert content == json.loads(out.read_text())
    assert [row["name"] for row in content["models"]] == [TINY[0], TINY[1], WRONG_SIDE]
    assert content["measurements"][0] == first
    assert sorted((row["name"], row["round"]) for row in content["measurements"]) == [
        (name, number) for name in sorted(TINY) for number in (0, 1)
    ]
    check_schema(content)
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
    cells = speed_cells(speed_of(content, content["models"][1]))
    assert rows["wide_resnet"]["training images/s"] == cells[0] != ""
    assert rows["vgg16_gap"]["training images/s"] == ""
    assert f"--markdown {written}" in written.read_text()


def check_schema(content):
    assert content["settings"].items() >= {"device": "cpu", "batch": 2, "seconds": 0.05, "classes": 19}.items()
    assert len(content["settings"]["bands"]) == 10
    assert content["environment"].keys() >= {"processor", "cores", "threads", "gpu", "packages"}
    assert content["load"] >= 0
    for row in content["models"]:
        assert row.keys() >= {"name", "family", "side"}
        if "failed" not in row:
            described = describe_model(row["name"], AUTHORS_BANDS, AUTHORS_CLASSES)
            assert (row["parameters"], row["flops"]) == (described["parameters"], described["flops"])
    for row in content["measurements"]:
        assert min(row["training"], row["reference"], row["seconds"]) > 0
        assert row["inference"] > row["training"] / 2  # inference is a part of training; short measurements are noisy
        assert 1e6 < row["peak_memory"] < 1e9  # activations, much less than the memory of an interpreter


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
        (["--rounds", "0"], "--rounds: found 0, expected at least 1"),
        (["--max-time", "25"], "--max-time: found '25', expected a number followed by s, m or h"),
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
