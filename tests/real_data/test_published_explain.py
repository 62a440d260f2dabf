"""The heat maps of bundled weights on published patches of BigEarthNet v2 pass the deletion test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Cli

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),  # of rasterio, in its own affine transforms
]


@pytest.mark.parametrize("name", ["bigearthnet-s2-10", "bigearthnet-s2-12"])
def test_removing_what_is_marked_lowers_the_probability_faster(
    name: str, published: Callable[[str], Path], tmp_path: Path, cli: Cli
) -> None:
    assert cli("prepare", "bigearthnet", published("bigearthnet-v2"), tmp_path / "v2.h5").code == 0
    out = tmp_path / "out"
    answer = cli("explain", f"bundled:{name}", tmp_path / "v2.h5", out, "--patches", 1, "--band-patches", 0, "--json")
    assert answer.code == 0, answer.lines
    deletion = answer.json["deletion"]
    assert answer.json == json.loads((out / "explanation.json").read_text())
    assert deletion["patches"] >= 20
    assert deletion["marked"] < deletion["moved"] - 0.05
    assert deletion["marked"] < deletion["scattered"]  # by 0.04 with the 10 bands: scattered pixels destroy the texture
    assert deletion["faster_than_moved"] >= 0.8 * deletion["patches"]
