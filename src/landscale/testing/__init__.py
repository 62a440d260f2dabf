"""For tests of users and of this project: write a small store, and check that a store keeps the contract of `PatchStore`."""

from landscale.testing.store_contract import StoreContract, check_store
from landscale.testing.synthetic_store import CLASSES, SPLIT_SIZES, make_store, rgbn_plane, sentinel_planes

__all__ = ["CLASSES", "SPLIT_SIZES", "StoreContract", "check_store", "make_store", "rgbn_plane", "sentinel_planes"]
