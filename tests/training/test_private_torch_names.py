"""Training depends on private names of torch; this test fails with the name that a new version of torch lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import landscale

SOURCE = Path(landscale.__file__).parent
NEEDED = {"torch._standard_gamma": "gamma draws from a generator, for mixup's and cutmix's beta distribution"}


@pytest.mark.parametrize("name", NEEDED)
def test_torch_still_has_the_private_name(name):
    value = torch
    for part in name.split(".")[1:]:
        assert hasattr(value, part), f"torch {torch.__version__} has no {name} ({NEEDED[name]}); find a replacement"
        value = getattr(value, part)


def test_no_other_private_name_is_used():
    used = set()
    for path in (*SOURCE.glob("training/*.py"), *SOURCE.glob("loading/*.py")):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r"\b(?:torch|timm)(?:\.\w+)*\._[a-z]\w*", text))
        used |= set(re.findall(r"from (?:torch|timm)\S* import .*?\b_\w+", text))
    assert used == set(NEEDED)
