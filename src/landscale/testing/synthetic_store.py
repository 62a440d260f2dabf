"""Small synthetic stores for tests, written by `StoreWriter`.

Pixels and labels depend on the seed, the number of the patch and the names of bands and classes, not on their order. So two
stores that differ only in the order of planes, bands or classes hold the same patches.

The classes can be learnt: each class raises the values of one band by a few standard deviations. The band is chosen by the
rank of the class among the sorted class names.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.store import (
    BAD,
    NO_CLASS,
    REFERENCE,
    SPLITS,
    WHOLE,
    Layout,
    PatchStore,
    Plane,
    StoreWriter,
    checksum,
    create_store,
    moments,
    open_store,
)
from landscale.vocabulary.units import Level, Unit

CLASSES = ("forest", "lake", "town", "wheat")
SPLIT_SIZES = {"train": 48, "val": 24, "test": 24}
_UNITS: dict[str, Unit] = {"uint16": "digital number", "uint8": "8-bit"}


def sentinel_planes(side: int = 24, dtype: str = "uint16") -> tuple[Plane, ...]:
    """Planes of all level 2A bands. `side` is the number of pixels at 10 m, a multiple of 6."""
    return (
        Plane("data_10m", ("B02", "B03", "B04", "B08"), side, 10, dtype, _UNITS.get(dtype, "unknown")),
        Plane(
            "data_20m", ("B05", "B06", "B07", "B8A", "B11", "B12"), side // 2, 20, dtype, _UNITS.get(dtype, "unknown")
        ),
        Plane("data_60m", ("B01", "B09"), side // 6, 60, dtype, _UNITS.get(dtype, "unknown")),
    )


def rgbn_plane(side: int = 24, dtype: str = "uint16") -> tuple[Plane, ...]:
    """The four bands at 10 m: the fastest store from which classes can be learnt."""
    return (Plane("data_10m", ("B02", "B03", "B04", "B08"), side, 10, dtype, _UNITS.get(dtype, "unknown")),)


def make_store(
    path: str | Path,
    *,
    planes: Sequence[Plane] | None = None,
    classes: Sequence[str] = CLASSES,
    splits: Mapping[str, int] = SPLIT_SIZES,
    multi_label: bool = True,
    nomenclature: str = "custom",
    level: Level = "L2A",
    seed: int = 0,
    signal: float = 3.0,
    bad: Sequence[int] = (),
    labels: NDArray[np.uint8] | None = None,
    pixels: Mapping[str, NDArray[np.generic]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    reference_maps: bool = False,
) -> PatchStore:
    """Write a store and open it.

    Args:
        path: the HDF5 file; its folder exists.
        planes: by default the four bands at 10 m.
        splits: number of patches of each split; the patches of a split are consecutive, in this order.
        signal: how many standard deviations of the noise a class raises its band; with 0 nothing can be learnt.
        bad: indices of patches whose state is bad, as after `--skip-bad`.
        labels: (N, C) of 0 and 1, instead of random ones.
        pixels: by key of a plane (N, bands, side, side), instead of random ones.
        level: processing level that the store records.
        provenance: fields that are added to the attribute `provenance`.
        reference_maps: add the class of every pixel: the classes of a patch lie in vertical stripes and raise their band only
            there; the first row has none.
    """
    path = Path(path)
    planes = tuple(planes) if planes is not None else rgbn_plane()
    if reference_maps:
        finest = max(planes, key=lambda plane: plane.side)
        planes += (Plane(REFERENCE, (REFERENCE,), finest.side, finest.gsd, "uint8", "class"),)
    layout = Layout(planes, tuple(classes), nomenclature, multi_label, level)
    n = sum(splits.values())
    targets = _labels(n, tuple(classes), multi_label, seed) if labels is None else labels.astype(np.uint8)
    maps = _stripes(targets, layout.side) if reference_maps else None
    content = {
        p.key: _pixels(p, targets, layout, seed, signal, maps)
        if pixels is None or p.key not in pixels
        else pixels[p.key]
        for p in planes
    }
    state = np.full(n, WHOLE, np.uint8)
    state[list(bad)] = BAD
    columns = {
        "name": np.array([f"patch_{k:04d}" for k in range(n)]),
        "split": np.repeat([SPLITS.index(s) for s in splits], list(splits.values())).astype(np.uint8),
    }
    about = json.dumps({"source": "tests", "synthetic": True, **(provenance or {})})
    create_store(path, layout, columns, {"plan": f"tests-{seed}-{n}-{','.join(classes)}", "provenance": about})
    writer = StoreWriter(path)
    rows = {
        "classes": targets,
        "crs": np.full(n, b"EPSG:32633", "S16"),
        "origin": np.stack([300_000 + 1200.0 * np.arange(n), np.full(n, 5_000_000.0)], 1),
        "moments": moments([content[p.key] for p in planes]),
        "checksum": np.array([checksum([content[p.key][i] for p in planes], targets[i]) for i in range(n)], np.uint64),
        "state": state,
    }
    writer.put(0, {**content, **rows})
    writer.finish()
    writer.close()
    return open_store(path)


def _rng(*words: int | str) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(w.encode()) if isinstance(w, str) else w for w in words])


def _labels(n: int, classes: tuple[str, ...], multi_label: bool, seed: int) -> NDArray[np.uint8]:
    if multi_label:
        return np.stack([_rng(seed, "label", c).random(n) < 0.4 for c in classes], axis=1).astype(np.uint8)
    chosen = _rng(seed, "label").integers(len(classes), size=n)
    return np.stack([chosen == sorted(classes).index(c) for c in classes], axis=1).astype(np.uint8)


def _stripes(targets: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Maps (N, side, side) of the classes (N, C) of each patch in stripes; the first row has no class."""
    maps = np.full((len(targets), side, side), NO_CLASS, np.uint8)
    for stripes, row in zip(maps, targets, strict=True):
        present = np.flatnonzero(row)
        if len(present):
            stripes[1:] = present[np.arange(side) * len(present) // side]
    return maps


def _pixels(
    plane: Plane,
    targets: NDArray[np.uint8],
    layout: Layout,
    seed: int,
    signal: float,
    maps: NDArray[np.uint8] | None,
) -> NDArray[np.generic]:
    """Pixels (N, bands, side, side) of a plane; classes raise them in whole patches, or where they lie in `maps`."""
    if plane.key == REFERENCE:
        assert maps is not None
        return maps[:, None]
    out = np.empty((len(targets), *plane.shape), plane.dtype)
    finest = max(layout.planes, key=lambda p: p.side)
    carriers = sorted(band for band in finest.bands if band != REFERENCE)
    ranks = {name: k for k, name in enumerate(sorted(layout.classes))}
    unit = 10.0 if plane.dtype == "uint8" else 100.0
    for b, band in enumerate(plane.bands):
        rng = _rng(seed, "pixels", band)
        mean = unit * (5 + zlib.crc32(band.encode()) % 7)
        values = mean + unit * rng.standard_normal((len(targets), plane.side, plane.side))
        for c, name in enumerate(layout.classes):
            if band in carriers and carriers.index(band) == ranks[name] % len(carriers):
                ratio = layout.side // plane.side
                where = targets[:, c, None, None] if maps is None else maps[:, ::ratio, ::ratio] == c
                values += unit * signal * where
        top = np.iinfo(plane.dtype).max if np.issubdtype(np.dtype(plane.dtype), np.integer) else np.inf
        out[:, b] = np.clip(values if np.isinf(top) else np.rint(values), 0, top).astype(plane.dtype)
    return out
