"""Store → batches: `order` (which patches, in which order, by which rank), `gathering` (their pixels, ahead of use)."""

from landscale.batches.gathering import Batch, Native, batches
from landscale.batches.order import epoch_order, evaluation_steps, targets_by_name, train_steps

__all__ = ["Batch", "Native", "batches", "epoch_order", "evaluation_steps", "targets_by_name", "train_steps"]
