"""The fuzz suite with a few cases of each kind, the same ones each time; `make proof` tries a thousand of each."""

from __future__ import annotations

import json
from pathlib import Path

from launchers import codes_of, run_script, start_ranks

KINDS = ("weights", "checkpoints", "stores", "recipes", "sources", "command_lines")


def test_altered_inputs_are_refused_or_mean_the_same(tmp_path: Path) -> None:
    report, log = tmp_path / "report.json", tmp_path / "log.txt"
    started = start_ranks(1, log, run_script, Path(__file__).parent / "fuzz", "--cases", 8, "--json", report)
    codes = codes_of(started)
    results = json.loads(report.read_text())
    assert not [case for kind in KINDS for case in results[kind]["wrong"]], log.read_text()
    assert sum(results[kind]["counts"]["refused"] for kind in KINDS) >= 4 * len(KINDS)  # most cases are noticed
    assert codes == [0]
