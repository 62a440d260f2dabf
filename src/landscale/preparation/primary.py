"""First pass of a sequential preparation: write the patches of the primary archive, in its order, to the store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.sequential import SequentialPatch, SequentialSurvey
from landscale.errors import BadInput, LandscaleError
from landscale.preparation.batch import Advance, PatchBatch, store_batches
from landscale.preparation.damage import DamageLog
from landscale.preparation.extract import PatchColumns
from landscale.preparation.journal import Journal
from landscale.preparation.records import NAME_BYTES, primary_record
from landscale.store import Layout
from landscale.store.growing import GrowingStore


def read_primary(
    survey: SequentialSurvey, layout: Layout, store: GrowingStore, journal: Journal, damage: DamageLog, advance: Advance
) -> None:
    """Read the primary archive, and write what the store does not have yet.

    Args:
        survey: the archives.
        layout: the planes that this pass fills: those of the archive, and those derived from them.
        store: where pixels are written.
        journal: where records (`records.primary_record`) are kept.
        damage: the damaged patches.
        advance: called with the megabytes that were read.
    """
    archive, derive = survey.primary, survey.derive

    def is_kept(batch: PatchBatch, records: NDArray[np.void]) -> bool:
        return journal.kept[batch.first : batch.end].tobytes() == records.tobytes()

    def summarise(batch: PatchBatch) -> NDArray[np.void]:
        if derive and batch.end <= len(journal.kept):  # derived by an earlier call, if the patches are the same
            for key in survey.derived:
                store.get(key, batch.first, batch.planes[key])
            records = _records(batch)
            if is_kept(batch, records):
                return records
        if derive:
            derive(batch.planes)
        return _records(batch)

    def write(batch: PatchBatch, records: NDArray[np.void]) -> None:
        first = batch.first
        if first < len(journal.kept):
            if is_kept(batch, records):
                return
            journal.cut(first)  # the archive, or a patch in it, was repaired
        for key, pixels in batch.planes.items():
            store.put(key, first, pixels)
        store.sync()
        journal.append(records)

    sequence = archive.open()

    def read_next(planes: dict[str, NDArray[np.generic]], classes: NDArray[np.uint8]) -> SequentialPatch | None:
        patch = sequence.read(planes, classes)
        if patch is not None:
            if len(patch.name.encode()) > NAME_BYTES:
                problem = f"patch {patch.name}: has a name of more than {NAME_BYTES} bytes"
                raise BadInput(archive.path, problem)
            if isinstance(patch.found, LandscaleError):
                damage.add(patch.name, str(patch.found))
            known = archive.classes_of(patch.name)
            if known is not None:
                classes[:] = known
        return patch

    store_batches(sequence, layout, read_next, summarise, write, advance)
    journal.finish()


def _records(batch: PatchBatch) -> NDArray[np.void]:
    columns = PatchColumns(batch.layout, batch.planes, batch.classes)
    for i, patch in enumerate(batch.patches):
        columns.add(i, patch.found)
    records = np.zeros(len(batch.patches), primary_record(batch.layout))
    records["name"] = [patch.name.encode() for patch in batch.patches]
    for key, values in columns.all().items():
        if key in records.dtype.fields:  # type: ignore[operator]
            records[key] = values
    return records
