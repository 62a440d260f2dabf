"""Fixture: the folder of published data sets, for the tests in `tests/real_data`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

VARIABLE = "LANDSCALE_REAL_DATA"


@pytest.fixture(scope="session")
def published() -> Callable[[str], Path]:
    """`published("bigearthnet-v2")` is the path of that data set; the test is skipped where it is missing."""
    root = os.environ.get(VARIABLE)
    if not root:
        pytest.skip(f"{VARIABLE} is not set; set it to a folder of published data sets (see CONTRIBUTING.md)")

    def find(name: str) -> Path:
        path = Path(root).resolve() / name
        if not path.exists():
            pytest.skip(f"{path}: not found below {VARIABLE}")
        return path

    return find
