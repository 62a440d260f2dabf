"""Patches whose classes are bright squares in one band each, at places that the tests have, and a network trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

SIDE, SPOT = 24, 8
CLASSES = ("blue", "green")  # of B02 and B03; B04 and B08 are noise


def spots(n: int, seed: int = 0):
    """Labels (n, 2), pixels (n, 4, SIDE, SIDE) uint16, and the upper left corners (n, 2, 2) of the squares."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n, 2)).astype(np.uint8)
    corners = rng.integers(0, SIDE - SPOT + 1, (n, 2, 2))
    pixels = rng.normal(1000, 100, (n, 4, SIDE, SIDE))
    for k in range(n):
        for c in np.flatnonzero(labels[k]):
            top, left = corners[k, c]
            pixels[k, c, top : top + SPOT, left : left + SPOT] += 800
    return labels, pixels.astype(np.uint16), corners


@pytest.fixture(scope="session")
def spotted(tmp_path_factory):
    """A store of 128 patches to train on, 24 to validate and 24 to test, and the run of a training on it."""
    from landscale.testing import make_store, rgbn_plane
    from trainings import PLAIN, learn

    folder: Path = tmp_path_factory.mktemp("spotted")
    labels, pixels, _ = spots(176)
    splits = {"train": 128, "val": 24, "test": 24}
    options = {"planes": rgbn_plane(SIDE), "classes": CLASSES, "splits": splits, "labels": labels}
    store = make_store(folder / "s.h5", **options, pixels={"data_10m": pixels})
    recipe = replace(PLAIN, side=SIDE, scale="linear", epochs=20, batch=16)
    learn(recipe, store, folder / "run")
    return store, folder / "run"
