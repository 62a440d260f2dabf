"""Store → batches.

`order` decides which patches come, in which order and on which rank; `gathering` reads their pixels ahead of use; `placement`
keeps a split on the disk, in memory or on the device (above `in_memory`, `on_device` and `filling`); `dataset` is for other
training loops.
"""

from landscale.loading.batch import Native, PatchBatch
from landscale.loading.dataset import PatchDataset
from landscale.loading.gathering import batches
from landscale.loading.order import (
    epoch_order,
    evaluation_steps,
    labelled_patches,
    rare_class_weights,
    targets_by_name,
    train_steps,
)
from landscale.loading.placement import PlacedSplit, Placement, place

__all__ = [
    "Native",
    "PatchBatch",
    "PatchDataset",
    "PlacedSplit",
    "Placement",
    "batches",
    "epoch_order",
    "evaluation_steps",
    "labelled_patches",
    "place",
    "rare_class_weights",
    "targets_by_name",
    "train_steps",
]
