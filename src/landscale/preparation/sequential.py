"""Archives → store, without unpacking: each is read once, from front to back, directly into a store.

One thread decompresses (and another reads a `.tar.zst`), the main thread parses the members, one more writes. The file
`STORE.h5.partial` grows with each batch, and a journal next to it lists the finished patches. After a kill the archive is
read again from its beginning, as it has no index; each patch is compared with the journal, and only patches that are missing
or differ are written.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.sequential import SequentialSurvey
from landscale.errors import BadInput, LandscaleError
from landscale.preparation.damage import DamageLog
from landscale.preparation.journal import Journal
from landscale.preparation.partial import another_preparation, finished_result, partial_path
from landscale.preparation.partner import join_records, read_partner
from landscale.preparation.primary import read_primary
from landscale.preparation.records import partner_record, primary_record
from landscale.preparation.result import PreparationResult
from landscale.runtime.files import exclusive_lock, sync
from landscale.runtime.progress import progress_bar
from landscale.store import WHOLE, Layout
from landscale.store.growing import GrowingStore, StoreFullError


def prepare_sequential(survey: SequentialSurvey, path: Path, *, skip_bad: bool = False) -> PreparationResult:
    """Fill the store at `path` with the patches of an archive, in its order.

    Raises:
        LandscaleError: a damaged patch (unless `skip_bad`) or archive; patches that are written are kept for the next call.
        BadStore: `path` exists and holds other data.
    """
    digest = survey.digest()
    partial = partial_path(path)
    journals = [path.with_name(f"{partial.name}.{half}") for half in ("primary", "partner")]
    if path.exists():
        result = finished_result(path, digest)
        for file in journals:  # left by a preparation that was killed at its very end
            file.unlink(missing_ok=True)
        return result
    path.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists() and not journals[0].exists():
        raise another_preparation(partial)
    capacity = survey.primary.capacity()
    with exclusive_lock(journals[0]):
        if not partial.exists():  # removed by hand, perhaps
            _empty(*journals)
        while True:
            try:
                result = _SequentialRun(survey, digest, path, journals, skip_bad=skip_bad).run(capacity)
                break
            except StoreFullError:  # rare: the archive begins with patches that compress far better than the rest
                capacity *= 2
                _empty(partial, *journals)
        partial.rename(path)
        for file in journals:
            file.unlink(missing_ok=True)
        sync(path.parent)
    return result


def _empty(*files: Path) -> None:
    for file in files:
        file.write_bytes(b"")


class _SequentialRun:
    """One attempt to fill and finish the partial store."""

    def __init__(
        self, survey: SequentialSurvey, digest: str, path: Path, journals: list[Path], *, skip_bad: bool
    ) -> None:
        self._survey, self._digest, self._path, self._journals = survey, digest, path, journals
        self._damage = DamageLog(skip_bad=skip_bad)

    def run(self, capacity: int) -> PreparationResult:
        """Read the archives and finish the store.

        Raises:
            StoreFullError: there are more patches than `capacity`, or the capacity that an earlier attempt began with.
        """
        survey = self._survey
        primary = _primary_layout(survey)
        archives = [archive.path for archive in (survey.primary, survey.partner) if archive]
        megabytes = sum(path.stat().st_size for path in archives) // 1_000_000
        with ExitStack() as stack:
            first = Journal(self._journals[0], primary_record(primary), self._digest, capacity)
            stack.enter_context(closing(first))
            store = GrowingStore(partial_path(self._path), survey.layout, first.capacity)
            stack.enter_context(closing(store))
            advance = stack.enter_context(progress_bar("prepare", megabytes, "MB"))
            known = len(first.kept)
            if not first.complete:
                read_primary(survey, primary, store, first, self._damage, advance)
            records = first.records()
            if not len(records):
                raise BadInput(survey.primary.path, "holds no patch that is in its lists or metadata")
            if survey.partner:
                second = Journal(self._journals[1], partner_record(survey.partner.planes), self._digest, 0)
                stack.enter_context(closing(second))
                known = len(second.kept)
                if not second.complete:
                    partial = partial_path(self._path)
                    read_partner(survey, primary, store, partial, records, second, self._damage, advance)
                records = join_records(survey, store, records, second.records(), self._damage)
            return self._finish(store, records, known)

    def _finish(self, store: GrowingStore, records: NDArray[np.void], known: int) -> PreparationResult:
        survey, damage = self._survey, self._damage
        names = [name.decode() for name in records["name"]]
        bad = [names[row] for row in np.flatnonzero(records["state"] != WHOLE)]
        for name in bad:
            damage.add(name, f"{survey.primary.path}: patch {name}: is damaged")
        if len(bad) == len(records):
            raise LandscaleError(f"none of {len(bad)} patches can be read: {damage.problems[bad[0]]}")
        described = survey.describe(names)
        found = {key: records[key] for key in records.dtype.names or () if key not in described}
        provenance = json.dumps(survey.provenance | {"landscale": version("landscale")})
        columns = {str(key): described[key].to_numpy() for key in described}
        store.finish(columns, found, {"plan": self._digest, "provenance": provenance})
        skipped = [(name, damage.problems[name]) for name in bad]
        notes: tuple[str, ...] = ()
        if survey.listed is not None and len(records) < survey.listed:
            notes = (
                f"{survey.primary.path}: has {len(records):,} of the {survey.listed:,} patches that its metadata list",
            )
        return PreparationResult(self._path, len(records), len(records) - len(bad) - known, skipped, notes)


def _primary_layout(survey: SequentialSurvey) -> Layout:
    """The planes that the first pass fills: all but the partner's, which are the last."""
    partner = survey.partner.planes if survey.partner else ()
    return replace(survey.layout, planes=tuple(plane for plane in survey.layout.planes if plane not in partner))
