"""What the journal of a sequential preparation keeps of each patch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landscale.store import Layout, Plane

NAME_BYTES = 96  # of the longest name; those of BigEarthNet have up to 58


def primary_record(layout: Layout) -> np.dtype[np.void]:
    """A patch of the primary archive, in the order of the store; `layout` has the planes that it fills."""
    return np.dtype(
        [
            ("name", f"S{NAME_BYTES}"),
            ("classes", np.uint8, (len(layout.classes),)),
            ("crs", "S16"),
            ("origin", np.float64, (2,)),
            ("tile", "S8"),
            ("moments", np.float64, (len(layout.bands), 2)),
            ("checksum", np.uint64),
            ("state", np.uint8),
        ]
    )


def partner_record(planes: Sequence[Plane]) -> np.dtype[np.void]:
    """A patch of the partner archive, in its order.

    row: row in the store plus 1, so that no record is all zeros. checksum: of the patch with both halves.
    pixels: checksum of these planes alone.
    """
    return np.dtype(
        [
            ("row", np.uint32),
            ("state", np.uint8),
            ("moments", np.float64, (sum(len(plane.bands) for plane in planes), 2)),
            ("checksum", np.uint64),
            ("pixels", np.uint64),
        ]
    )
