"""Parts of long work on one file that are done once, even if the process is killed before the whole is there."""

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
    """Arrays by name, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str) -> NDArray[Any] | None:
        """The array of that name; None if it is not made yet."""
        file = self._folder / f"{name}.npy"
        return np.load(file, allow_pickle=False) if file.exists() else None

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Keep an array; it is on the disk when this returns."""
        with atomic_file(self._folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array)


@contextmanager
def resumable_parts(out: Path, plan: Mapping[str, Any]) -> Iterator[Parts]:
    """The parts of `out` that earlier attempts have made, to which this one adds its own.

    Whoever has them holds `out` against other processes. They lie beside it in the folder `.OUT.parts` until the block ends,
    and longer if it is interrupted; bad input leaves none.

    Args:
        out: the file or folder that the parts are for.
        plan: what decides them, for JSON; those made by another plan, or another landscale, are thrown away.

    Raises:
        BadInput: another process is at the same work.
    """
    folder = out.with_name(f".{out.name}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / "lock"):
        remove_abandoned(out)
        planned = folder / "plan.json"
        told = json.dumps({**plan, "landscale": version("landscale")}, sort_keys=True)
        if not planned.exists() or planned.read_text(encoding="utf-8") != told:
            for file in folder.glob("*.npy"):
                file.unlink()
            write_text(planned, told)
        try:
            yield Parts(folder)
        except BaseException as error:
            if isinstance(error, BadInput) or not any(folder.glob("*.npy")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
