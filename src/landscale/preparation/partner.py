"""Second pass of a sequential preparation: write the planes of the partner archive to the rows of the first pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.sequential import PartnerArchive, SequentialPatch, SequentialSurvey
from landscale.errors import BadInput, BadStore, LandscaleError
from landscale.preparation.batch import Advance, PatchBatch, store_batches
from landscale.preparation.damage import DamageLog
from landscale.preparation.journal import Journal
from landscale.preparation.records import partner_record, primary_record
from landscale.store import BAD, WHOLE, Layout, checksum, moments
from landscale.store.growing import GrowingStore

_MISSING = 255  # state of a patch without a partner
_NO_CLASSES = np.empty(0, np.uint8)


def read_partner(
    survey: SequentialSurvey,
    primary: Layout,
    store: GrowingStore,
    partial: Path,
    records: NDArray[np.void],
    journal: Journal,
    damage: DamageLog,
    advance: Advance,
) -> None:
    """Read the partner archive, and write what the store does not have yet.

    Args:
        survey: the archives.
        primary: the planes that the first pass filled.
        store: where pixels are written.
        partial: path of the store, for messages.
        records: the records of the first pass (`records.primary_record`).
        journal: the journal of this pass, with records of `records.partner_record`.
        damage: the damaged patches.
        advance: called with the megabytes that were read.

    Raises:
        BadInput: two partners of one patch. BadStore: a patch of the first pass has changed on the disk.
    """
    archive = survey.partner
    assert archive is not None
    keys = [plane.key for plane in archive.planes]
    pairs = archive.pairs()
    row_of = {name.decode(): row for row, name in enumerate(records["name"])}
    kept = {int(record["row"]): record.tobytes() for record in journal.kept}
    rows: dict[str, int] = {}  # row in the store, by partner patch: read, but not yet summarised
    filled: set[int] = set()
    sequence = archive.open(pairs)

    def read_next(planes: dict[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> SequentialPatch | None:
        """The next patch of the partner archive that belongs to a patch in the store."""
        while (patch := sequence.read(planes, classes)) is not None:
            name = pairs.get(patch.name) or patch.primary
            row = row_of.get(name, -1)
            if row < 0 or records["state"][row] != WHOLE:
                continue
            if row in filled:
                raise BadInput(archive.path, f"holds two {archive.title} partners of {name}")
            filled.add(row)
            rows[patch.name] = row
            patch = _check_place(patch, records[row], archive)
            if isinstance(patch.found, LandscaleError):
                damage.add(name, str(patch.found))
            return patch
        return None

    both = _BothHalves(store, partial, primary, survey.layout)

    def summarise(batch: PatchBatch) -> NDArray[np.void]:
        found = np.zeros(len(batch.patches), partner_record(archive.planes))
        for i, patch in enumerate(batch.patches):
            pixels = {key: batch.planes[key][i] for key in keys}
            damaged = isinstance(patch.found, LandscaleError)
            if damaged:
                for plane in pixels.values():
                    plane[...] = 0
            row = rows.pop(patch.name)
            found[i]["row"] = row + 1
            found[i]["state"] = BAD if damaged else WHOLE
            found[i]["pixels"] = checksum(list(pixels.values()), _NO_CLASSES)
            found[i]["checksum"] = both.checksum(records[row], row, pixels)
        found["moments"] = moments([batch.planes[key] for key in keys])
        return found

    def write(batch: PatchBatch, found: NDArray[np.void]) -> None:
        new = [i for i, record in enumerate(found) if kept.get(int(record["row"])) != record.tobytes()]
        for begin, end in _runs(found["row"], new):
            for key in keys:
                store.put(key, int(found["row"][begin]) - 1, batch.planes[key][begin:end])
        if new:
            store.sync()
            journal.append(found[new])

    store_batches(sequence, replace(primary, planes=archive.planes), read_next, summarise, write, advance)
    journal.finish()


def _check_place(patch: SequentialPatch, record: np.void, archive: PartnerArchive) -> SequentialPatch:
    """The patch, marked as damaged if its place differs from that of the primary patch in `record`."""
    if isinstance(patch.found, LandscaleError):
        return patch
    place = patch.found.place
    crs, (x, y) = record["crs"].decode(), record["origin"]
    if (place.crs, place.x, place.y) == (crs, x, y):
        return patch
    problem = f"lies at {place}, but its partner {record['name'].decode()} lies at {crs} {x:.0f} {y:.0f}"
    return replace(patch, found=BadInput(f"{archive.path}: patch {patch.name}", problem))


class _BothHalves:
    """Checksums of patches with the planes of both archives. The primary planes are read back from the store, and checked."""

    def __init__(self, store: GrowingStore, path: Path, primary: Layout, layout: Layout) -> None:
        self._store, self._path, self._primary, self._layout = store, path, primary, layout
        self._buffers = {key: plane[0] for key, plane in primary.buffers(1).items()}

    def checksum(self, record: np.void, row: int, partner: dict[str, NDArray[np.generic]]) -> int:
        for key, out in self._buffers.items():
            self._store.get(key, row, out)
        planes = [self._buffers[plane.key] for plane in self._primary.planes]
        if checksum(planes, record["classes"]) != int(record["checksum"]):
            name = record["name"].decode()
            raise BadStore(self._path, f"patch {name}: is damaged; remove the file to start again")
        by_key = self._buffers | partner
        return checksum([by_key[plane.key] for plane in self._layout.planes], record["classes"])


def _runs(rows: NDArray[np.uint32], chosen: list[int]) -> Iterator[tuple[int, int]]:
    """Begin and end of ranges of `chosen` (indices of a batch) that are consecutive in the batch and in the store."""
    if not chosen:
        return
    at = np.array(chosen)
    breaks = np.flatnonzero((np.diff(at) != 1) | (np.diff(rows[at].astype(np.int64)) != 1)) + 1
    for part in np.split(at, breaks):
        yield int(part[0]), int(part[-1]) + 1


def join_records(
    survey: SequentialSurvey,
    store: GrowingStore,
    primary: NDArray[np.void],
    partner: NDArray[np.void],
    damage: DamageLog,
) -> NDArray[np.void]:
    """The records of both passes as records of the whole layout. A patch that is in one archive only becomes a damaged one."""
    archive = survey.partner
    assert archive is not None
    records = np.zeros(len(primary), primary_record(survey.layout))
    for key in ("name", "classes", "crs", "origin", "tile", "state"):
        records[key] = primary[key]
    rows = partner["row"].astype(np.int64) - 1
    bands = primary["moments"].shape[1]
    records["moments"][:, :bands] = primary["moments"]
    records["moments"][rows, bands:] = partner["moments"]
    records["checksum"][rows] = partner["checksum"]
    state = np.full(len(primary), _MISSING, np.uint8)
    state[rows] = partner["state"]
    for row in np.flatnonzero((state != WHOLE) & (primary["state"] == WHOLE)).tolist():
        name = primary["name"][row].decode()
        if state[row] == _MISSING:
            at = f"{survey.primary.path}: patch {name}"
            damage.add(name, f"{at}: has no {archive.title} partner in {archive.path}")
        _clear(survey, store, records, row)
    return records


def _clear(survey: SequentialSurvey, store: GrowingStore, records: NDArray[np.void], row: int) -> None:
    """Turn a patch that is in one archive only into a damaged one: pixels are 0, the place is unknown, classes as in metadata."""
    for plane in survey.layout.planes:
        store.put(plane.key, row, np.zeros((1, *plane.shape), plane.dtype))
    name = records["name"][row]
    records[row] = np.zeros((), records.dtype)
    records["name"][row], records["origin"][row], records["state"][row] = name, np.nan, BAD
    known = survey.primary.classes_of(name.decode())
    if known is not None:
        records["classes"][row] = known
