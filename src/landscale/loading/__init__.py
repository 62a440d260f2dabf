"""Store → batches.

`order` decides which rank reads which patches in which order, `gathering` reads their pixels ahead of use, and `placement`
decides where these are kept (disk, memory or device), by means of `in_memory`, `on_device`, `filling` and `room`.
"""

from landscale.loading.batch import Batch, Native
from landscale.loading.dataset import PatchDataset
from landscale.loading.gathering import batches
from landscale.loading.order import epoch_order, evaluation_steps, rare_class_weights, targets_by_name, train_steps
from landscale.loading.placement import Placed, Placement, place

__all__ = [
    "Batch",
    "Native",
    "PatchDataset",
    "Placed",
    "Placement",
    "batches",
    "epoch_order",
    "evaluation_steps",
    "place",
    "rare_class_weights",
    "targets_by_name",
    "train_steps",
]
