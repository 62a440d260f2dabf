"""The journal of a sequential preparation: which patches are on disk, in records that are appended after their pixels."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.preparation.partial import another_preparation


class Journal:
    """A file of records, each with a checksum. Records that a kill or a crash left incomplete at its end are ignored.

    Args:
        path: the file, which is created if it does not exist.
        record: dtype of a record.
        digest: 64 characters that identify what is prepared; a journal of something else is refused.
        capacity: number of patches that fit into the store; an existing journal has its own, which takes precedence.

    kept: the records of earlier calls (n,). complete: whether the journal was finished, so that `kept` has all records.

    Raises:
        BadStore: the file is the journal of another preparation.
    """

    def __init__(self, path: Path, record: np.dtype[np.void], digest: str, capacity: int) -> None:
        self._path = path
        self._record = np.dtype([("content", record), ("seal", np.uint64)])
        header = np.array([(digest.encode(), capacity)], [("plan", "S64"), ("capacity", np.uint64)])
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        data = path.read_bytes()
        if len(data) < header.nbytes:
            os.ftruncate(self._file, 0)
            self._write(header.tobytes(), 0)
            data = header.tobytes()
        found = np.frombuffer(data, header.dtype, 1)
        if found["plan"][0] != header["plan"][0]:
            os.close(self._file)
            raise another_preparation(path)
        self.capacity = int(found["capacity"][0])
        self._begin = header.nbytes
        size = self._record.itemsize
        records = np.frombuffer(data[self._begin :], self._record, (len(data) - self._begin) // size)
        intact = [_seal(record) == record["seal"] for record in records]
        count = len(intact) if all(intact) else intact.index(False)
        contents = records["content"][:count]
        self.complete = bool(count) and not any(contents[-1].tobytes())
        self.kept = contents[: count - self.complete].copy()
        self._appended: list[NDArray[np.void]] = []
        self._written = len(self.kept)

    def close(self) -> None:
        os.close(self._file)

    def append(self, contents: NDArray[np.void]) -> None:
        self._put(contents)
        self._appended.append(contents)
        self._written += len(contents)

    def cut(self, length: int) -> None:
        """Drop all kept records after the first `length`. Must be called before anything is appended."""
        self.kept, self._written = self.kept[:length], length

    def finish(self) -> None:
        """Mark the journal complete, by a record of zeros."""
        self._put(np.zeros(1, self._record["content"]))
        os.fsync(self._file)
        self.complete = True

    def records(self) -> NDArray[np.void]:
        """All records: those of earlier calls and those appended."""
        return np.concatenate([self.kept, *self._appended])

    def _put(self, contents: NDArray[Any]) -> None:
        records = np.zeros(len(contents), self._record)
        records["content"] = contents
        records["seal"] = [_seal(record) for record in records]
        position = self._begin + self._written * self._record.itemsize
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
