"""A batch: the patches that the network processes in one step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Pixels of a batch at native resolution. Key: names of the bands of a plane. Value: (n, bands, side, side), the store's dtype.
Native = dict[tuple[str, ...], Tensor]


@dataclass(frozen=True)
class PatchBatch:
    """n patches, n ≥ 0. `planes` and `targets` are valid until the next batch is taken, since their memory is used again.

    rows (n,): rows in the store. planes: raw digital numbers. targets (n, C): float32 in 0…1.
    """

    rows: NDArray[np.int64]
    planes: Native
    targets: Tensor
