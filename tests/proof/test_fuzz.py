"""The fuzz suite with a few cases of each kind, the same ones each time; `make proof` tries a thousand of each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

KINDS = ("weights", "checkpoints", "stores", "recipes", "sources", "command_lines")


def test_altered_inputs_are_refused_or_mean_the_same(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    words = [sys.executable, Path(__file__).parent / "fuzz", "--cases", "8", "--json", report]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    results = json.loads(report.read_text())
    assert not [case for kind in KINDS for case in results[kind]["wrong"]], done.stdout
    assert sum(results[kind]["counts"]["refused"] for kind in KINDS) >= 4 * len(KINDS)  # most cases are noticed
    assert done.returncode == 0
