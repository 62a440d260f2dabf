"""What is whole of a store that grows: records of fixed size, appended after the pixels they vouch for are on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.errors import BadInput, BadStore


class Journal:
    """A file of records, each with a checksum: what a kill or a crash tore off its end does not count.

    Args:
        path: the file, made if need be.
        kind: dtype of a record.
        plan: 64 characters on what is prepared; a journal of something else is refused.
        capacity: for how many patches the store has room; an older journal knows it better.

    kept: the records that were there. complete: whether they are all.
    """

    def __init__(self, path: Path, kind: np.dtype[np.void], plan: str, capacity: int) -> None:
        self._path = path
        self._kind = np.dtype([("content", kind), ("seal", np.uint64)])
        head = np.array([(plan.encode(), capacity)], [("plan", "S64"), ("capacity", np.uint64)])
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        data = path.read_bytes()
        if len(data) < head.nbytes:
            os.ftruncate(self._file, 0)
            self._write(head.tobytes(), 0)
            data = head.tobytes()
        found = np.frombuffer(data, head.dtype, 1)
        if found["plan"][0] != head["plan"][0]:
            os.close(self._file)
            raise BadStore(path, "is the beginning of another preparation; remove it to start anew")
        self.capacity = int(found["capacity"][0])
        self._begin = head.nbytes
        records = np.frombuffer(data[self._begin :], self._kind, (len(data) - self._begin) // self._kind.itemsize)
        good = [_seal(record) == record["seal"] for record in records]
        whole = len(good) if all(good) else good.index(False)
        contents = records["content"][:whole]
        self.complete = bool(whole) and not any(contents[-1].tobytes())
        self.kept = contents[: whole - self.complete].copy()
        self._parts: list[NDArray[np.void]] = []
        self._written = len(self.kept)

    def close(self) -> None:
        os.close(self._file)

    def append(self, contents: NDArray[np.void]) -> None:
        self._put(contents)
        self._parts.append(contents)
        self._written += len(contents)

    def cut(self, length: int) -> None:
        """Forget all that was kept but the first records; nothing has been appended yet."""
        self.kept, self._written = self.kept[:length], length

    def finish(self) -> None:
        """Nothing will follow."""
        self._put(np.zeros(1, self._kind["content"]))
        os.fsync(self._file)
        self.complete = True

    def records(self) -> NDArray[np.void]:
        """All of them: what was kept of an earlier call, and what was appended."""
        return np.concatenate([self.kept, *self._parts])

    def _put(self, contents: NDArray[Any]) -> None:
        records = np.zeros(len(contents), self._kind)
        records["content"] = contents
        records["seal"] = [_seal(record) for record in records]
        position = self._begin + self._written * self._kind.itemsize
        os.ftruncate(self._file, position)
        self._write(records.tobytes(), position)

    def _write(self, data: bytes, position: int) -> None:
        try:
            while data:
                written = os.pwrite(self._file, data, position)
                data, position = data[written:], position + written
        except OSError as error:
            raise BadInput(self._path, f"cannot be written ({error.strerror})") from None


def _seal(record: np.void) -> int:
    return xxhash.xxh3_64_intdigest(record["content"].tobytes())
