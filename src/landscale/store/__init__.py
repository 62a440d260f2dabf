"""The patch store: one HDF5 file that many write at once and training reads at memory speed."""

from landscale.store.layout import BAD, PENDING, SHARES, SPLITS, WHOLE, Layout, Plane, checksum, moments
from landscale.store.reader import PatchStore, open_store
from landscale.store.writer import Writer, create, train_statistics

__all__ = [
    "BAD",
    "PENDING",
    "SHARES",
    "SPLITS",
    "WHOLE",
    "Layout",
    "PatchStore",
    "Plane",
    "Writer",
    "checksum",
    "create",
    "moments",
    "open_store",
    "train_statistics",
]
