"""Figures of README.md and docs/*.md that link to a result in benchmarks/results agree with it, and the results are complete."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
RESULTS = sorted((BENCHMARKS / "results").glob("*.json"))
sys.path.append(str(BENCHMARKS))

import figures  # noqa: E402
import rounds  # noqa: E402

# Figures without a committed result, by the beginning of file and pointer. They may only become fewer: remove a line when
# its benchmark has been run, and run `python benchmarks/figures.py`.
NOT_MEASURED: tuple[str, ...] = ()
# Results that were measured before the load was recorded. They may only become fewer.
WITHOUT_LOAD = (
    *("archive", "learning", "lmdb_reads", "peers", "prepare"),
    *("store_reads", "superres", "training_loop", "two_ranks"),
)
WITHOUT_TIMES = ("transfer",)  # written by a command, and of scores only, which do not depend on the load
ON_THEIR_OWN_PAGE = {"zoo.json", "learning.json"}  # docs/zoo.md is written from these


def linked() -> list[tuple[str, str, float | None, str]]:
    """Page, shown figure, value of the result, and file with pointer of every link."""
    return [
        (page.name, link["figure"], figures.result(page.parent / link["file"], link["pointer"]), place(link))
        for page in figures.PAGES
        for link in figures.links(page)
    ]


def place(link) -> str:
    return f"{Path(link['file']).name}#{link['pointer']}"


def test_every_figure_agrees_with_its_result():
    wrong = [
        f"{page}: {shown}, {place}: {value}"
        for page, shown, value, place in linked()
        if value is not None and figures.as_shown(value, shown) != shown
    ]
    assert not wrong, "run `python benchmarks/figures.py`:\n" + "\n".join(wrong)


def test_every_figure_has_a_result_unless_it_is_listed():
    missing = {place for _, _, value, place in linked() if value is None}
    assert {place for place in missing if not place.startswith(NOT_MEASURED)} == set()
    measured = [start for start in NOT_MEASURED if not any(place.startswith(start) for place in missing)]
    assert not measured, "has a result now: remove it from NOT_MEASURED"


def test_every_result_is_shown_somewhere():
    shown = {place.partition("#")[0] for *_, place in linked()} | ON_THEIR_OWN_PAGE
    assert {path.name for path in RESULTS} - shown == set()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_name_versions_machine_and_load(path: Path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["environment"].keys() >= {"python", "platform", "processor", "cores", "threads", "gpu", "command"}
    assert content["environment"]["packages"].keys() >= {"landscale", "torch"}
    assert ("load" in content) == (path.stem not in WITHOUT_LOAD + WITHOUT_TIMES)


def test_a_new_result_has_date_load_and_machine(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(rounds, "__file__", str(tmp_path / "rounds.py"))
    rounds.record("few", {"ratio": 2.0})
    content = json.loads((tmp_path / "results" / "few.json").read_text())
    assert json.loads(capsys.readouterr().out) == content
    assert content.keys() == {"benchmark", "date", "load", "ratio", "environment"}


@pytest.mark.parametrize(
    "value,like,shown",
    [
        (0.7224, ".65", ".72"),
        (0.7224, "0.6", "0.7"),
        (0.98444, "95.96 %", "98.44 %"),
        (0.4, "7%", "40%"),
        (1234.5678, "1.0", "1,234.6"),
        (131.4, "99 s", "131 s"),
        (3.14159, "?.??", "3.14"),
        (1.02, ".97", "1.02"),
    ],
)
def test_a_number_keeps_its_form(value: float, like: str, shown: str):
    assert figures.as_shown(value, like) == shown


def test_a_text_without_a_number_is_no_figure():
    with pytest.raises(ValueError, match="'fast' contains no number"):
        figures.as_shown(1.0, "fast")


def test_figures_of_a_page_are_written_again(tmp_path: Path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.json").write_text('{"x y": {"of/v1": [0.5, 2.0]}}')
    text = "[?.?](results/a.json#/x%20y/of~1v1/1) times, [9.9](results/a.json#/gone), [1](results/b.json#/x), [1](a.json#/x)"
    assert figures.written_again(text, tmp_path / "page.md") == text.replace("[?.?]", "[2.0]")
