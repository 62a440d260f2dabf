"""Keep finished parts of a long computation on the disk, so that a killed process can resume."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.runtime.files import atomic_file, exclusive_lock, remove_abandoned, write_text


class Parts:
    """Finished parts: arrays by name, in a folder."""

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder, self._prefix = folder, prefix

    def part_of(self, name: str) -> Parts:
        """Parts of one of several computations, whose names may be those of the others."""
        return Parts(self._folder, f"{self._prefix}{name}-")

    def has(self, name: str) -> bool:
        """Whether the array of that name is finished."""
        return (self._folder / f"{self._prefix}{name}.npy").exists()

    def get(self, name: str) -> NDArray[Any] | None:
        """The array of that name; None if it is not finished."""
        file = self._folder / f"{self._prefix}{name}.npy"
        return np.load(file, allow_pickle=False) if file.exists() else None

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Store an array; it is on the disk when this returns."""
        with atomic_file(self._folder / f"{self._prefix}{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array)


@contextmanager
def resumable_parts(out: Path, plan: Mapping[str, Any]) -> Iterator[Parts]:
    """The parts of `out` that earlier attempts have finished; new ones are added.

    While the block runs, `out` is locked against other processes. The parts are stored next to it in the folder `.OUT.parts`,
    which is removed when the block ends, or raises BadInput, or has finished no part; otherwise it stays for the next attempt.

    Args:
        out: the file or folder that the parts belong to.
        plan: everything that determines the parts, as JSON; parts of another plan or version of landscale are deleted.

    Raises:
        BadInput: another process is computing the same output.
    """
    folder = out.with_name(f".{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / "lock"):
        remove_abandoned(out)
        planned = folder / "plan.json"
        description = json.dumps({**plan, "landscale": version("landscale")}, sort_keys=True)
        if not planned.exists() or planned.read_text(encoding="utf-8") != description:
            for file in folder.glob("*.npy"):
                file.unlink()
            write_text(planned, description)
        try:
            yield Parts(folder)
        except BaseException as error:
            if isinstance(error, BadInput) or not any(folder.glob("*.npy")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
