"""The result of preparing a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DamagedPatches = list[tuple[str, str]]  # name, and what is wrong with it


@dataclass(frozen=True)
class PreparationResult:
    """The result of one call of `prepare`.

    store: the finished store.
    patches: the number of patches in it, with the damaged ones.
    written: how many of them this call wrote; 0 if the store was complete already.
    skipped: the damaged ones, which are marked as such and have no pixels: name and reason.
    notes: lines about the inputs, see `Survey`.
    """

    store: Path
    patches: int
    written: int
    skipped: DamagedPatches
    notes: tuple[str, ...] = ()
