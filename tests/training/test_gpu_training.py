"""The benchmark of training on a GPU also runs on a CPU."""

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
    "compiled", [False, pytest.param(True, marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs g++"))]
)
def test_the_gpu_benchmark_measures_every_placement(compiled):
    args = ["--patches=32", "--batch=4", "--seconds=0.2", "--models=wide_resnet_eca"]
    process = subprocess.run(
        [sys.executable, SCRIPT, *args, *([] if compiled else ["--eager-only"])],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    content = json.loads(process.stdout)
    assert [row["compiled"] for row in content["rows"]] == ([False, True] if compiled else [False])
    for row in content["rows"]:
        for placement in ("disk", "memory", "device"):
            assert row[placement]["patches_per_second"] > 0
            assert 0 <= row[placement]["waiting_share"] < 1
        assert row["bare_step_patches_per_second"] > 0
