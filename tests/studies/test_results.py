"""The file of results of a study, which the same command resumes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from landscale.errors import BadInput
from landscale.studies import results
from landscale.studies.results import needs_row, open_results, put_row, read_results, rows_with_values

MACHINE = {"processor": "a processor", "cores": 4, "command": "landscale benchmark zoo"}


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    current = dict(MACHINE)
    monkeypatch.setattr(results, "environment", lambda: dict(current))
    return current


def test_new_results_have_settings_machine_and_empty_tables(tmp_path):
    content = open_results(tmp_path / "zoo.json", "zoo", {"batch": 2}, ("models", "comparison"))
    assert datetime.now(UTC) - datetime.fromisoformat(content.pop("date")) < timedelta(minutes=1)
    assert content.pop("load") >= 0
    assert content == {
        "benchmark": "zoo",
        "settings": {"batch": 2},
        "environment": MACHINE,
        "models": [],
        "comparison": [],
    }
    assert not (tmp_path / "zoo.json").exists()


def test_results_are_read_again_only_with_the_same_settings_on_the_same_machine(tmp_path, machine):
    out = tmp_path / "zoo.json"
    content = open_results(out, "zoo", {"batch": 2}, ("models",)) | {"models": [{"name": "a"}]}
    out.write_text(json.dumps(content))
    machine["command"] = "the same command with other words"
    assert open_results(out, "zoo", {"batch": 2}, ("models",)) == content
    with pytest.raises(BadInput, match="contains results with batch 2, not 3; choose another --out"):
        open_results(out, "zoo", {"batch": 3}, ("models",))
    machine["cores"] = 8
    with pytest.raises(BadInput, match="contains results with cores 4, not 8"):
        open_results(out, "zoo", {"batch": 2}, ("models",))


def test_results_of_another_benchmark_are_refused(tmp_path):
    out = tmp_path / "zoo.json"
    out.write_text('{"benchmark": "zoo"}')
    assert read_results(out) == {"benchmark": "zoo"}
    with pytest.raises(BadInput, match="contains no results of `landscale benchmark learning`"):
        read_results(out, "learning")


def test_a_row_is_needed_until_it_has_values_or_a_final_failure():
    rows = [{"name": "a", "speed": 1}, {"name": "b", "failed": "killed"}, {"name": "c", "failed": "out of memory"}]
    needed = [needs_row(rows, {"name": name}, final=("out of memory",)) for name in "abcd"]
    assert needed == [False, True, False, True]
    assert needs_row(rows, {"name": "c"})
    assert needs_row(rows, {"name": "a", "side": 60})
    assert rows_with_values(rows) == rows[:1]


def test_a_new_row_replaces_the_failed_one_of_its_key_only():
    rows = [{"name": "a", "side": 60, "failed": "killed"}, {"name": "a", "side": 120, "speed": 1}]
    put_row(rows, {"name": "a", "side": 60}, {"speed": 2})
    assert rows == [{"name": "a", "side": 120, "speed": 1}, {"name": "a", "side": 60, "speed": 2}]
