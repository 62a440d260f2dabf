"""The records of patches in the journal of a sequential preparation, as numpy dtypes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from landscale.store import Layout, Plane

NAME_BYTES = 96  # of the longest name that fits; names of BigEarthNet have up to 58


def primary_record(layout: Layout) -> np.dtype[np.void]:
    """The record of a patch of the primary archive, with the planes of `layout`. Records are in the order of the store's rows."""
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
    """The record of a patch of the partner archive. Records are in the order of that archive.

    row: row in the store plus 1, so that no record is all zeros. checksum: checksum of the patch with
    the planes of both archives.
    pixels: checksum of the partner's planes alone.
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
