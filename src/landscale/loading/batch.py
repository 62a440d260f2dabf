"""Some patches: what the store gives and training takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# The pixels of a batch by the bands they hold: (n, bands, side, side) in the store's dtype.
Native = dict[tuple[str, ...], Tensor]


@dataclass(frozen=True)
class Batch:
    """Some patches, perhaps none. `planes` and `targets` stay valid until the next batch is asked for.

    rows (n,) are indices in the store, planes the raw digital numbers, targets (n, C) float32 in 0…1.
    """

    rows: NDArray[np.int64]
    planes: Native
    targets: Tensor
