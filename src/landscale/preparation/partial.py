"""The names and states of a store that is being made: `STORE.h5.partial` until it is complete, then `STORE.h5`."""

from __future__ import annotations

from pathlib import Path

from landscale.errors import BadStore
from landscale.preparation.result import PreparationResult
from landscale.store import BAD, open_store


def partial_path(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def finished_result(path: Path, digest: str) -> PreparationResult:
    """The result of preparing a store that is complete already.

    Raises:
        BadStore: it was made from other data or with other options, so that its digest differs.
    """
    store = open_store(path)
    if store.attributes["plan"] != digest:
        raise BadStore(
            path, "exists and was prepared from other data or with other options; remove it or choose another name"
        )
    names = store.column("name")[store.states == BAD]
    skipped = [(str(name), f"was damaged when {path} was made") for name in names]
    return PreparationResult(path, len(store.states), 0, skipped)


def another_preparation(partial: Path) -> BadStore:
    """The error for a partial store that belongs to other data or options."""
    return BadStore(partial, "belongs to a preparation of other data or with other options; remove it to start again")
