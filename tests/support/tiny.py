"""Stores of a few patches with a few pixels, and a helper for errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from landscale.errors import BadStore
from landscale.store import BAD, SPLITS, WHOLE, Layout, Plane, StoreWriter, checksum, create_store, moments, open_store

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08")
CLASSES = ("forest", "lake", "town")
ATTRIBUTES = {"plan": "a plan", "provenance": '{"source": "tests"}'}
LAYOUT = Layout(
    (Plane("data_10m", BANDS[:3], 4, 10), Plane("data_60m", BANDS[3:5], 2, 20)), CLASSES, "custom", multi_label=True
)

Content = dict[str, NDArray[np.generic]]


def content(layout: Layout, n: int, seed: int = 0, bad: Sequence[int] = ()) -> Content:
    """Random values of all columns that are written patch by patch, for n patches."""
    rng = np.random.default_rng(seed)
    planes: Content = {p.key: rng.integers(0, 256, (n, *p.shape)).astype(p.dtype) for p in layout.planes}
    for p in layout.planes:
        if p.dtype == "uint16":
            planes[p.key] = (planes[p.key] * 257).astype(np.uint16)  # to 65535
    classes = rng.integers(0, 2, (n, len(layout.classes))).astype(np.uint8)
    state = np.full(n, WHOLE, np.uint8)
    state[list(bad)] = BAD
    return planes | {
        "classes": classes,
        "crs": np.array([f"EPSG:{32600 + k}".encode() for k in range(n)], "S16"),
        "origin": rng.normal(size=(n, 2)),
        "moments": moments([planes[p.key] for p in layout.planes]),
        "checksum": np.array([checksum([planes[p.key][i] for p in layout.planes], classes[i]) for i in range(n)], "u8"),
        "state": state,
    }


def table(n: int, splits: Sequence[str] = ("train", "val", "test")) -> Content:
    codes = np.array([SPLITS.index(splits[k % len(splits)]) for k in range(n)], np.uint8)
    return {"name": np.array([f"pätch_{k}" for k in range(n)]), "split": codes, "snow": codes == 1}


def write(path: Path, layout: Layout = LAYOUT, n: int = 6, **how: object) -> Content:
    """Write a finished store; returns its columns."""
    columns = content(layout, n, bad=how.pop("bad", ()))  # type: ignore[arg-type]
    create_store(path, layout, table(n, **how), ATTRIBUTES)  # type: ignore[arg-type]
    writer = StoreWriter(path)
    writer.put(0, columns)
    writer.finish()
    writer.close()
    return columns


def refused(path: Path, **how: bool) -> str:
    with pytest.raises(BadStore) as caught:
        open_store(path, **how)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return caught.value.problem
