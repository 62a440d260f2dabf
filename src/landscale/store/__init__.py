"""The patch store: an HDF5 file that many processes write and that is mapped into memory; and published LMDBs, read in place."""

from landscale.store.band_sums import moments
from landscale.store.checksums import checksum
from landscale.store.layout import (
    BAD,
    COLUMNS,
    NO_CLASS,
    PENDING,
    REFERENCE,
    SHARES,
    SPLITS,
    SUPER,
    WHOLE,
    Layout,
    Plane,
)
from landscale.store.lmdb import is_environment
from landscale.store.patches import PatchStore
from landscale.store.reader import open_store
from landscale.store.subset import subset
from landscale.store.writer import StoreWriter, create_store, train_statistics

__all__ = [
    "BAD",
    "COLUMNS",
    "NO_CLASS",
    "PENDING",
    "REFERENCE",
    "SHARES",
    "SPLITS",
    "SUPER",
    "WHOLE",
    "Layout",
    "PatchStore",
    "Plane",
    "StoreWriter",
    "checksum",
    "create_store",
    "is_environment",
    "moments",
    "open_store",
    "subset",
    "train_statistics",
]
