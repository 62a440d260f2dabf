"""Reference maps as targets: the class of every pixel of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.loading.batch import PatchBatch
from landscale.store import NO_CLASS, REFERENCE, PatchStore
from landscale.vocabulary.nomenclatures import columns_by_name

_CHUNK = 256  # patches whose maps are counted at once


def class_table(store: PatchStore, classes: Sequence[str]) -> NDArray[np.uint8]:
    """(256,): for each value of the store's reference maps the number of its class in `classes`, or `NO_CLASS`.

    Classes are matched by name; those of a finer nomenclature are merged, as for the labels of patches.

    Raises:
        UnknownName: the store has neither a class nor a part of it.
    """
    table = np.full(256, NO_CLASS, np.uint8)
    for number, columns in enumerate(columns_by_name(classes, store.layout.classes)):
        table[columns] = number
    return table


def with_pixel_targets(batch: PatchBatch, table: torch.Tensor) -> PatchBatch:
    """The batch with its reference maps (n, side, side) uint8 as targets, no longer as a plane.

    Args:
        batch: read with the band `store.REFERENCE`.
        table: of `class_table`, on the device of the batch.
    """
    planes = dict(batch.planes)
    maps = planes.pop((REFERENCE,))[:, 0]
    return replace(batch, planes=planes, targets=table[maps.long()])


def pixels_of_classes(store: PatchStore, patches: NDArray[np.int64], classes: Sequence[str]) -> NDArray[np.int64]:
    """Number of pixels of each class (C,) in the reference maps of some patches."""
    table, counts = class_table(store, classes), np.zeros(256, np.int64)
    for k in range(0, len(patches), _CHUNK):
        maps = store.pixels(REFERENCE, np.sort(patches[k : k + _CHUNK]))
        counts += np.bincount(table[maps].ravel(), minlength=256)
    return counts[: len(classes)]
