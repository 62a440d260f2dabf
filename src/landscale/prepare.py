"""Sources → store: survey, extract in parallel, statistics; called again after a kill, it goes on.

The store grows as `STORE.h5.partial`, which is created whole, and takes its name when every patch is in it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import BadStore, LandscaleError
from landscale.files import sync
from landscale.progress import bar
from landscale.sources.survey import Reader, Survey
from landscale.store import BAD, PENDING, WHOLE, Layout, Writer, checksum, create, moments, open_store

CHUNK = 64  # patches written, synced and counted together: 10 MB of BigEarthNet


@dataclass(frozen=True)
class Outcome:
    """What a call of prepare did. `skipped` are damaged patches: name and reason."""

    patches: int
    written: int
    skipped: list[tuple[str, str]]


@dataclass(frozen=True)
class _Chunk:
    start: int
    names: list[str]
    wheres: list[str]
    classes: NDArray[np.uint8] | None


def prepare(survey: Survey, path: Path, workers: int = 1, *, skip_bad: bool = False) -> Outcome:
    """Fill the store at `path` with the patches of `survey`.

    Raises:
        LandscaleError: a damaged patch (unless `skip_bad`); what is done stays and counts when called again.
        BadStore: `path` holds something else already.
    """
    plan = _digest(survey)
    partial = path.with_name(path.name + ".partial")
    if path.exists():
        store = open_store(path)
        if store.attributes["plan"] != plan:
            raise BadStore(path, "exists and was prepared from something else; remove it or choose another name")
        names = survey.table["name"].to_numpy()[store.states == BAD]
        return Outcome(len(survey.table), 0, [(str(name), f"was damaged when {path} was made") for name in names])
    if not partial.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(survey, partial, plan)
    begun = open_store(partial, unfinished=True)
    if begun.attributes["plan"] != plan:
        raise BadStore(partial, "is the beginning of another preparation; remove it to start anew")

    # A patch that was bad is tried again: its file may have been mended.
    todo = np.flatnonzero(begun.states != WHOLE)
    skipped: list[tuple[str, str]] = []
    chunks = list(_chunks(survey, todo))
    with bar("prepare", len(todo)) as advance, closing(_extract(survey, partial, chunks, workers)) as extracted:
        for chunk, bad in extracted:
            if bad and not skip_bad:
                raise LandscaleError(f"{bad[0][1]} (--skip-bad leaves such patches out)")
            skipped += bad
            advance(len(chunk.names))
    if len(skipped) == len(survey.table):
        raise LandscaleError(f"none of {len(skipped)} patches can be read: {skipped[0][1]}")
    if (open_store(partial, unfinished=True).states == PENDING).any():
        raise BadStore(partial, "was replaced meanwhile, as by another prepare of it; run the same command again")
    with closing(Writer(partial)) as writer:
        writer.finish()
    partial.rename(path)
    sync(path.parent)
    return Outcome(len(survey.table), len(todo) - len(skipped), skipped)


def _digest(survey: Survey) -> str:
    """What decides the content of a store: a resumed preparation must have the same."""
    digest = hashlib.sha256(json.dumps([asdict(survey.layout), survey.provenance], sort_keys=True).encode())
    for key in sorted(map(str, survey.table)):
        if key != "where":  # an archive may move
            digest.update("\n".join([key, *survey.table[key].astype(str)]).encode())
    if survey.classes is not None:
        digest.update(survey.classes.tobytes())
    return digest.hexdigest()


def _create(survey: Survey, path: Path, plan: str) -> None:
    columns = {str(key): survey.table[key].to_numpy() for key in survey.table if key != "where"}
    provenance = json.dumps(survey.provenance | {"landscale": version("landscale")})
    create(path, survey.layout, columns, {"plan": plan, "provenance": provenance})


def _chunks(survey: Survey, todo: NDArray[np.int64]) -> Iterator[_Chunk]:
    """Runs of consecutive patches, at most CHUNK long."""
    if not len(todo):
        return
    breaks = np.flatnonzero(np.diff(todo) > 1) + 1
    names, wheres = survey.table["name"], survey.table["where"]
    for run in np.split(todo, breaks):
        for k in range(0, len(run), CHUNK):
            rows = slice(int(run[k]), int(run[min(k + CHUNK, len(run)) - 1]) + 1)
            classes = None if survey.classes is None else survey.classes[rows]
            yield _Chunk(rows.start, list(names[rows]), list(wheres[rows]), classes)


def _extract(
    survey: Survey, path: Path, chunks: list[_Chunk], workers: int
) -> Generator[tuple[_Chunk, list[tuple[str, str]]], None, None]:
    """Extract all chunks; yields each with its damaged patches as it ends."""
    job = (survey.read, survey.layout, path)
    if workers <= 1 or len(chunks) <= 1:
        with closing(_Extractor(*job)) as extract:
            yield from ((chunk, extract(chunk)) for chunk in chunks)
        return
    context = multiprocessing.get_context("spawn")  # no inherited threads, locks or HDF5 handles
    resource_tracker.ensure_running()  # by ourselves, as starting it lifts the block of signals below
    with ProcessPoolExecutor(min(workers, len(chunks)), context, _start_worker, (os.getpid(), *job)) as pool:
        waiting = iter(chunks)
        running: dict[Future[list[tuple[str, str]]], _Chunk] = {}
        try:
            while True:
                while len(running) < 2 * workers and (chunk := next(waiting, None)) is not None:
                    with _interrupts_blocked():
                        running[pool.submit(_extract_in_worker, chunk)] = chunk
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool:
            raise LandscaleError(
                "a worker process died (killed, or out of memory?); run the same command again"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes that start in here stay deaf to Ctrl-C, which is their parent's to handle; for us it only waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_extractor: _Extractor


def _extract_in_worker(chunk: _Chunk) -> list[tuple[str, str]]:
    return _extractor(chunk)


def _start_worker(parent: int, read: Reader, layout: Layout, path: Path) -> None:
    global _extractor  # noqa: PLW0603  a pool's worker has no other place for what it keeps
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no worker outlives a killed parent
    if os.getppid() != parent:  # killed before we could ask for that signal
        os._exit(1)
    _extractor = _Extractor(read, layout, path)


class _Extractor:
    """Reads chunks into buffers that are used again, and writes them."""

    def __init__(self, read: Reader, layout: Layout, path: Path) -> None:
        self._read, self._layout, self._writer = read, layout, Writer(path)
        self._buffers = layout.buffers(CHUNK)

    def close(self) -> None:
        self._writer.close()

    def __call__(self, chunk: _Chunk) -> list[tuple[str, str]]:
        n = len(chunk.names)
        layout = self._layout
        columns: dict[str, NDArray[Any]] = {key: buffer[:n] for key, buffer in self._buffers.items()}
        planes = [columns[p.key] for p in layout.planes]
        classes = np.zeros((n, len(layout.classes)), np.uint8) if chunk.classes is None else chunk.classes
        columns |= {
            "classes": classes,
            "crs": np.zeros(n, "S16"),
            "origin": np.full((n, 2), np.nan),
            "moments": np.zeros((n, len(layout.bands), 2)),
            "checksum": np.zeros(n, np.uint64),
            "state": np.full(n, WHOLE, np.uint8),
        }
        tiles, bad = np.zeros(n, "S8"), []
        for i, where in enumerate(chunk.wheres):
            patch = {p.key: columns[p.key][i] for p in layout.planes}
            try:
                found = self._read(where, patch, classes[i])
            except LandscaleError as error:
                bad.append((chunk.names[i], str(error)))
                columns["state"][i] = BAD
                for plane in planes:
                    plane[i] = 0
                continue
            columns["crs"][i] = found.place.crs.encode()
            columns["origin"][i] = found.place.x, found.place.y
            tiles[i] = found.tile.encode()
            columns["moments"][i] = np.concatenate([moments(plane[i]) for plane in planes])
            columns["checksum"][i] = checksum([plane[i] for plane in planes], classes[i])
        if tiles.any():  # where the survey knew the tile, the store has it already
            columns["tile"] = tiles
        self._writer.put(chunk.start, columns)
        return bad
