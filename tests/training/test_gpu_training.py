"""The benchmark that waits for a GPU goes the same road on a CPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_training.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "compiled", [False, pytest.param(True, marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++ here"))]
)
def test_every_placement_is_measured(compiled):
    words = ["--patches=32", "--batch=4", "--seconds=0.2", "--models=wide_resnet_eca"]
    ended = subprocess.run(
        [sys.executable, SCRIPT, *words, *([] if compiled else ["--eager-only"])],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    content = json.loads(ended.stdout)
    assert [row["compiled"] for row in content["rows"]] == ([False, True] if compiled else [False])
    for row in content["rows"]:
        for placement in ("disk", "memory", "device"):
            assert row[placement]["patches_per_second"] > 0
            assert 0 <= row[placement]["waiting_share"] < 1
        assert row["bare_step_patches_per_second"] > 0
