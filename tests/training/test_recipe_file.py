"""Files of recipes that are damaged, crafted, or leave a key without a value are refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from landscale.errors import LandscaleError
from landscale.training.recipe import load_recipe

REFUSED = {
    "epochs: 1\nepochs: 2\n": "is not valid YAML (epochs is listed twice",
    "options:\n  width: 1\n  width: 2\n": "is not valid YAML (width is listed twice",
    "epochs:\n": "--epochs: has no value",
    "options: ~\n": "--options",
    "bands: null\n": "--bands: has no value",
    "weight_decay: .inf\n": "--weight_decay: found inf",
    'balance: "1e999"\n': "--balance: found inf",
    "milestones: [.nan]\n": "--milestones",
    "progressive: [[0.5, .inf]]\n": "--progressive",
    "milestones: &a [1, *a]\n": "is not valid YAML (found the alias *a",
    f"milestones: {'[' * 3000}{']' * 3000}\n": "nested too deeply",
    f"seed: {'9' * 5000}\n": "is not valid YAML",
    "model: !!python/object/apply:os.system [true]\n": "is not valid YAML",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_it_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(LandscaleError) as caught:
        load_recipe(str(tmp_path / "r.yaml"), [])
    assert REFUSED[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flag_without_a_value_is_refused() -> None:
    with pytest.raises(LandscaleError, match="epochs"):
        load_recipe(None, ["--epochs=null"])


def test_merged_keys_are_no_repetition(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("options:\n  <<: {width: 0.5}\n  drop_rate: 0.1\n")
    assert load_recipe(str(tmp_path / "r.yaml"), []).options == {"width": 0.5, "drop_rate": 0.1}


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").touch()
    os.truncate(tmp_path / "r.yaml", 1 << 36)
    with pytest.raises(LandscaleError, match=r"expected at most 1,048,576"):
        load_recipe(str(tmp_path / "r.yaml"), [])
    with pytest.raises(LandscaleError, match="/dev/zero"):
        load_recipe("/dev/zero", [])
