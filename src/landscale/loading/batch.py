"""A batch: the patches that the network sees at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# The pixels of a batch at native resolution, by the bands of each plane: (n, bands, side, side) in the store's dtype.
Native = dict[tuple[str, ...], Tensor]


@dataclass(frozen=True)
class PatchBatch:
    """n patches, n ≥ 0. `planes` and `targets` are valid until the next batch is taken, since their memory is used again.

    rows (n,): rows in the store. planes: raw digital numbers. targets (n, C): float32 in 0…1.
    """

    rows: NDArray[np.int64]
    planes: Native
    targets: Tensor
