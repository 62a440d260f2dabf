"""A map is complete or absent at every moment, and a killed command resumes."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from conftest import command, outcome
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from mapped import description_with, draw_scene, files_of, names_in, write_scene

pytestmark = pytest.mark.slow
KILLS = 20


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_map_that_is_killed_at_any_moment_is_the_same_in_the_end(tmp_path, seed):
    save_weights(tmp_path / "weights", Classifier(description_with()).eval(), {})
    scene = write_scene(tmp_path / "scene", draw_scene(600, 600))
    options = "--probabilities", "--entropy"
    started = time.monotonic()
    answer = outcome(command("predict", tmp_path / "weights", scene, tmp_path / "first" / "map.tif", *options))
    assert answer.code == 0, answer.lines
    whole = time.monotonic() - started
    expected = contents(tmp_path / "first")
    assert {*expected} == files_of("map") | {"map-entropy.tif"}
    rng, out = random.Random(seed), tmp_path / "second" / "map.tif"
    for _ in range(KILLS):
        process = command("predict", tmp_path / "weights", scene, out, *options)
        parts = out.with_name(".map.tif.parts")
        while not parts.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, whole / 2))
        process.kill()
        process.communicate()
        found = contents(out.parent)
        assert found.items() <= expected.items()
        if "map.tif" in found:  # it is renamed last
            assert found == expected
    answer = outcome(command("predict", tmp_path / "weights", scene, out, *options))
    assert answer.code == 0, answer.lines
    assert contents(out.parent) == expected
    assert names_in(out.parent) == {*expected}
