"""The patch store: one HDF5 file that many write at once and training reads at memory speed; published LMDBs read as one."""

from landscale.store.layout import BAD, COLUMNS, PENDING, SHARES, SPLITS, SUPER, WHOLE, Layout, Plane, checksum, moments
from landscale.store.lmdb import is_environment
from landscale.store.patches import PatchStore
from landscale.store.reader import open_store
from landscale.store.writer import StoreWriter, create_store, train_statistics

__all__ = [
    "BAD",
    "COLUMNS",
    "PENDING",
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
    "train_statistics",
]
