"""Archives → store, without unpacking: each is read once, from front to back, straight into a store that grows.

One thread decompresses (and another reads a `.tar.zst`), this one takes the members apart, one more writes. The store grows as
`STORE.h5.partial`, with a journal beside it. After a kill the archive is read again, as there is no other way into it; what it
says is compared with the journal, and only what is not there yet, or differs, is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.archive import Patch, Stream
from landscale.datasets.bigearthnet.sentinel1 import RADAR
from landscale.errors import BadInput, BadStore, LandscaleError
from landscale.preparation.batch import Advance, Batch, pump
from landscale.preparation.extract import Rows
from landscale.preparation.journal import Journal
from landscale.preparation.preparation import Outcome
from landscale.runtime.files import exclusive_lock, sync
from landscale.runtime.progress import progress_bar
from landscale.store import BAD, SUPER, WHOLE, Layout, checksum, moments, open_store
from landscale.store.growing import GrowingStore, StoreFullError

_MISSING = 255  # the state of a patch whose other half is not there
_NAME = 96  # bytes of the longest name; those of BigEarthNet have up to 58


def prepare_stream(stream: Stream, path: Path, *, skip_bad: bool = False) -> Outcome:
    """Fill the store at `path` with the patches of an archive, in its order.

    Raises:
        LandscaleError: a damaged patch (unless `skip_bad`) or archive; what is done stays and counts when called again.
        BadStore: `path` holds something else already.
    """
    digest = stream.digest()
    partial = path.with_name(path.name + ".partial")
    journals = [path.with_name(f"{partial.name}.{half}") for half in ("s2", "s1")]
    if path.exists():
        store = open_store(path)
        if store.attributes["plan"] != digest:
            raise BadStore(path, "exists and was prepared from something else; remove it or choose another name")
        for file in journals:  # of a preparation that was killed at its very end
            file.unlink(missing_ok=True)
        names = store.column("name")[store.states == BAD]
        return Outcome(len(store.states), 0, [(str(name), f"was damaged when {path} was made") for name in names])
    path.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and not journals[0].exists():
        raise BadStore(partial, "is the beginning of another preparation; remove it to start anew")
    capacity = stream.most()
    with exclusive_lock(journals[0]):
        if not partial.exists():  # removed by hand, perhaps
            _empty(*journals)
        while True:
            try:
                outcome = _Preparation(stream, digest, partial, journals, capacity, skip_bad).run()
                break
            except (
                StoreFullError
            ):  # rare: the archive begins with patches that are far easier to compress than the rest
                capacity *= 2
                _empty(partial, *journals)
        partial.rename(path)
        for file in journals:
            file.unlink(missing_ok=True)
        sync(path.parent)
    return outcome


def _empty(*files: Path) -> None:
    for file in files:
        file.write_bytes(b"")


class _Preparation:
    def __init__(
        self, stream: Stream, digest: str, partial: Path, journals: list[Path], capacity: int, skip_bad: bool
    ) -> None:
        self._stream, self._digest, self._partial, self._skip_bad = stream, digest, partial, skip_bad
        self._journals, self._capacity = journals, capacity
        self._damaged: dict[str, str] = {}
        self._optical = replace(stream.layout, planes=tuple(p for p in stream.layout.planes if p != RADAR))

    def run(self) -> Outcome:
        archives = [path for path in (self._stream.optical, self._stream.radar) if path]
        megabytes = sum(path.stat().st_size for path in archives) // 1_000_000
        with ExitStack() as stack:
            kind = _optical_record(self._optical)
            first = stack.enter_context(closing(Journal(self._journals[0], kind, self._digest, self._capacity)))
            store = stack.enter_context(closing(GrowingStore(self._partial, self._stream.layout, first.capacity)))
            advance = stack.enter_context(progress_bar("prepare", megabytes, "MB"))
            known = len(first.kept)
            if not first.complete:
                self._read_optical(store, first, advance)
            records = first.records()
            if not len(records):
                raise BadInput(self._stream.optical, "holds no patch that its lists or metadata know")
            if self._stream.radar:
                second = stack.enter_context(closing(Journal(self._journals[1], _RADAR_RECORD, self._digest, 0)))
                known = len(second.kept)
                if not second.complete:
                    self._read_radar(store, records, second, advance)
                records = self._joined(store, records, second.records())
            return self._finish(store, records, known)

    def _read_optical(self, store: GrowingStore, journal: Journal, advance: Advance) -> None:
        complete = self._stream.complete

        def kept(batch: Batch, records: NDArray[np.void]) -> bool:
            return journal.kept[batch.first : batch.end].tobytes() == records.tobytes()

        def sum_up(batch: Batch) -> NDArray[np.void]:
            if complete and batch.end <= len(journal.kept):  # then it was made already, if the patches are the same
                store.get(SUPER, batch.first, batch.planes[SUPER])
                records = self._records(batch)
                if kept(batch, records):
                    return records
            if complete:
                complete(batch.planes)
            return self._records(batch)

        def write(batch: Batch, records: NDArray[np.void]) -> None:
            first = batch.first
            if first < len(journal.kept):
                if kept(batch, records):
                    return
                journal.cut(first)  # the archive was mended, or a patch in it
            for key, pixels in batch.planes.items():
                store.put(key, first, pixels)
            store.sync()
            journal.append(records)

        patches = self._stream.optical_patches()

        def read(planes: dict[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> Patch | None:
            patch = patches.read(planes, classes)
            if patch is not None:
                self._check(patch.name, patch)
                labels = self._stream.labels(patch.name)
                if labels is not None:
                    classes[:] = labels
            return patch

        pump(patches, self._optical, read, sum_up, write, advance)
        journal.finish()

    def _check(self, name: str, patch: Patch) -> None:
        """Note a damaged patch, or stop at it."""
        if len(patch.name.encode()) > _NAME:
            raise BadInput(self._stream.optical, f"patch {patch.name}: has a name of more than {_NAME} characters")
        if isinstance(patch.found, LandscaleError):
            self._reject(name, str(patch.found))

    def _reject(self, name: str, reason: str) -> None:
        if not self._skip_bad:
            raise LandscaleError(f"{reason} (--skip-bad leaves such patches out)")
        self._damaged.setdefault(name, reason)

    def _records(self, batch: Batch) -> NDArray[np.void]:
        rows = Rows(batch.layout, batch.planes, batch.classes)
        for i, patch in enumerate(batch.patches):
            rows.add(i, patch.found)
        records = np.zeros(len(batch.patches), _optical_record(batch.layout))
        records["name"] = [patch.name.encode() for patch in batch.patches]
        for key, values in rows.columns().items():
            if key in records.dtype.fields:  # type: ignore[operator]
                records[key] = values
        return records

    def _read_radar(self, store: GrowingStore, optical: NDArray[np.void], journal: Journal, advance: Advance) -> None:
        pairs = self._stream.optical_names()
        row_of = {name.decode(): row for row, name in enumerate(optical["name"])}
        kept = {int(record["row"]): record for record in journal.kept}
        taken: dict[str, int] = {}  # by Sentinel-1 patch
        filled: set[int] = set()
        patches = self._stream.radar_patches(pairs)

        def read(planes: dict[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> Patch | None:
            """The next patch whose Sentinel-2 half is there."""
            while (patch := patches.read(planes, classes)) is not None:
                name = pairs.get(patch.name) or patch.partner
                row = row_of.get(name, -1)
                if row < 0 or optical["state"][row] != WHOLE:
                    continue
                if row in filled:
                    raise BadInput(self._stream.radar or "", f"holds two Sentinel-1 partners of {name}")
                filled.add(row)
                taken[patch.name] = row
                patch = _at_place(patch, optical[row], f"{self._stream.radar}: patch {patch.name}")
                self._check(name, patch)
                return patch
            return None

        buffers = {key: plane[0] for key, plane in self._optical.buffers(1).items()}

        def sum_up(batch: Batch) -> NDArray[np.void]:
            radar = batch.planes[RADAR.key]
            records = np.zeros(len(batch.patches), _RADAR_RECORD)
            for i, patch in enumerate(batch.patches):
                if isinstance(patch.found, LandscaleError):
                    radar[i] = 0
                row = taken.pop(patch.name)
                records[i]["row"] = row + 1
                records[i]["state"] = BAD if isinstance(patch.found, LandscaleError) else WHOLE
                records[i]["pixels"] = checksum([radar[i]], _NOTHING)
                records[i]["checksum"] = self._joint_checksum(store, optical[row], row, buffers, radar[i])
            records["moments"] = moments([radar])
            return records

        def write(batch: Batch, records: NDArray[np.void]) -> None:
            todo = [i for i, r in enumerate(records) if kept.get(int(r["row"]), _NONE).tobytes() != r.tobytes()]
            for begin, end in _runs(records["row"], todo):
                store.put(RADAR.key, int(records["row"][begin]) - 1, batch.planes[RADAR.key][begin:end])
            if todo:
                store.sync()
                journal.append(records[todo])

        pump(patches, replace(self._optical, planes=(RADAR,)), read, sum_up, write, advance)
        journal.finish()

    def _joint_checksum(
        self,
        store: GrowingStore,
        record: np.void,
        row: int,
        buffers: dict[str, NDArray[np.generic]],
        radar: NDArray[np.generic],
    ) -> int:
        """Of both halves of a patch. The first comes back from the disk, where it must be what was written."""
        for key, out in buffers.items():
            store.get(key, row, out)
        planes = [buffers[p.key] for p in self._optical.planes]
        if checksum(planes, record["classes"]) != int(record["checksum"]):
            raise BadStore(self._partial, f"patch {record['name'].decode()}: is damaged; remove the file to start anew")
        by_key = buffers | {RADAR.key: radar}
        return checksum([by_key[p.key] for p in self._stream.layout.planes], record["classes"])

    def _joined(self, store: GrowingStore, optical: NDArray[np.void], radar: NDArray[np.void]) -> NDArray[np.void]:
        """The records of the patches with both halves; a patch without one of them is a damaged one."""
        records = np.zeros(len(optical), _optical_record(self._stream.layout))
        for key in ("name", "classes", "crs", "origin", "tile", "state"):
            records[key] = optical[key]
        rows = radar["row"].astype(np.int64) - 1
        records["moments"][:, : len(self._optical.bands)] = optical["moments"]
        records["moments"][rows, len(self._optical.bands) :] = radar["moments"]
        records["checksum"][rows] = radar["checksum"]
        state = np.full(len(optical), _MISSING, np.uint8)
        state[rows] = radar["state"]
        for row in np.flatnonzero((state != WHOLE) & (optical["state"] == WHOLE)):
            name = optical["name"][row].decode()
            if state[row] == _MISSING:
                where = f"{self._stream.optical}: patch {name}"
                self._reject(name, f"{where}: has no Sentinel-1 partner in {self._stream.radar}")
            self._clear(store, records, int(row))
        return records

    def _clear(self, store: GrowingStore, records: NDArray[np.void], row: int) -> None:
        """Make a patch whose other half is missing or damaged what any damaged patch is."""
        for plane in self._stream.layout.planes:
            store.put(plane.key, row, np.zeros((1, *plane.shape), plane.dtype))
        name, classes = records["name"][row], records["classes"][row].copy()
        records[row] = np.zeros((), records.dtype)
        records["name"][row], records["origin"][row], records["state"][row] = name, np.nan, BAD
        if self._stream.classes is not None:
            records["classes"][row] = classes

    def _finish(self, store: GrowingStore, records: NDArray[np.void], known: int) -> Outcome:
        names = [name.decode() for name in records["name"]]
        bad = [names[row] for row in np.flatnonzero(records["state"] != WHOLE)]
        for name in bad:
            self._reject(name, f"{self._stream.optical}: patch {name}: is damaged")
        if len(bad) == len(records):
            raise LandscaleError(f"none of {len(bad)} patches can be read: {self._damaged[bad[0]]}")
        described = self._stream.describe(names)
        found = {key: records[key] for key in records.dtype.names or () if key not in described}
        provenance = json.dumps(self._stream.provenance | {"landscale": version("landscale")})
        columns = {str(key): described[key].to_numpy() for key in described}
        store.finish(columns, found, {"plan": self._digest, "provenance": provenance})
        return Outcome(len(records), len(records) - len(bad) - known, [(name, self._damaged[name]) for name in bad])


def _at_place(patch: Patch, optical: np.void, where: str) -> Patch:
    """The Sentinel-1 half of a patch, damaged if it lies elsewhere than the Sentinel-2 half."""
    if isinstance(patch.found, LandscaleError):
        return patch
    place = patch.found.place
    crs, (x, y) = optical["crs"].decode(), optical["origin"]
    if (place.crs, place.x, place.y) == (crs, x, y):
        return patch
    problem = f"lies at {place}, its Sentinel-2 patch {optical['name'].decode()} at {crs} {x:.0f} {y:.0f}"
    return replace(patch, found=BadInput(where, problem))


def _runs(rows: NDArray[Any], chosen: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of `chosen` that stand side by side in a batch and in the store."""
    if not chosen:
        return
    at = np.array(chosen)
    breaks = np.flatnonzero((np.diff(at) != 1) | (np.diff(rows[at].astype(np.int64)) != 1)) + 1
    for part in np.split(at, breaks):
        yield int(part[0]), int(part[-1]) + 1


_NOTHING = np.empty(0, np.uint8)
_RADAR_RECORD = np.dtype(
    [  # row: from 1 on, so that no record is all zeros
        ("row", np.uint32),
        ("state", np.uint8),
        ("moments", np.float64, (len(RADAR.bands), 2)),
        ("checksum", np.uint64),
        ("pixels", np.uint64),
    ]
)
_NONE = np.zeros((), _RADAR_RECORD)


def _optical_record(layout: Layout) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("name", f"S{_NAME}"),
            ("classes", np.uint8, (len(layout.classes),)),
            ("crs", "S16"),
            ("origin", np.float64, (2,)),
            ("tile", "S8"),
            ("moments", np.float64, (len(layout.bands), 2)),
            ("checksum", np.uint64),
            ("state", np.uint8),
        ]
    )
