"""A map for each of many scenes: one after the other, by several processes, by a dask cluster, or in parts, as of a SLURM array.

A map states by a digest what it was made from: weights, scene and options. Where it is there already, the scene is left out, so
the same call resumes after an interruption, and every scene resumes where it was. A scene that fails does not stop the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import rasterio
import torch
from rasterio.errors import RasterioError

from landscale.errors import BadInput, LandscaleError, reason
from landscale.inference.evaluate import load_predictor
from landscale.inference.exported import Predictor
from landscale.maps.predict import predict
from landscale.runtime.files import check_regular, sha256_of
from landscale.runtime.portability import usable_cores
from landscale.runtime.progress import console
from landscale.runtime.workers import exit_with_parent, interrupts_left_to_parent, start_fork_server
from landscale.scenes.product_files import stat_of
from landscale.scenes.scene import open_scene

LIST = ".txt"  # suffix of a file with the path of a scene on each line
_SUFFIXES = {".safe", ".zip", ".tif", ".tiff", ".mat", ".json"}  # that names of maps do without
_TIMEOUT = 60  # seconds for a dask scheduler to answer
_TRIES = 3  # of a scene whose workers die


@dataclass(frozen=True)
class SceneMap:
    """One scene: its path and that of its map, and whether it was written, kept from an earlier call, or failed and why."""

    scene: str
    map: str
    state: Literal["written", "kept", "failed"]
    problem: str = ""


@dataclass(frozen=True)
class _Job:
    model: str
    scene: str
    out: str
    options: Mapping[str, Any]


def predict_each(
    model: str | Path,
    scenes: Sequence[str | Path],
    folder: str | Path,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    part: tuple[int, int] = (1, 1),
    **options: Any,
) -> list[SceneMap]:
    """Write the map of every scene into a folder, named after the scene.

    Args:
        model: the name of weights, or the folder of an exported network.
        scenes: products in any layout of `scenes.scene`, or text files (.txt) with the path of one on each line.
        folder: of the maps; it is made if it is missing.
        workers: number of processes on this machine, which share its cores.
        scheduler: address of a dask scheduler whose workers do the work, on a file system that they share.
        part: (k, n): only every n-th scene, beginning with the k-th, in the order of their names.
        options: as for `predict`, without `overlap` and `polygons`.

    Raises:
        BadInput: a list cannot be read, or two scenes have the same name.
        LandscaleError: the weights cannot be used, or the cluster does not answer.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise BadInput(folder, "is not a folder, expected that of the maps")
    jobs = _jobs(str(model), scenes, folder, options)[part[0] - 1 :: part[1]]
    classifier = load_predictor(model)
    if (classes := getattr(classifier, "check_classes", None)) is not None:
        classes()
    folder.mkdir(parents=True, exist_ok=True)
    if scheduler is not None:
        found = _on_cluster(jobs, scheduler)
    elif workers > 1 and len(jobs) > 1:
        found = _in_processes(jobs, min(workers, len(jobs)))
    else:
        found = (_map_scene(job, classifier) for job in jobs)
    done, begun = [], time.monotonic()
    for one in found:
        done.append(one)
        left = (time.monotonic() - begun) / len(done) * (len(jobs) - len(done))
        how = f"{one.state}: {one.problem}" if one.problem else one.state
        rest = f", {left / 60:.0f} min left" if left >= 60 else ""
        console.print(
            f"{len(done)} of {len(jobs)}{rest}: {one.map}: {how}", markup=False, highlight=False, soft_wrap=True
        )
    return sorted(done, key=lambda one: one.map)


def _jobs(model: str, scenes: Sequence[str | Path], folder: Path, options: Mapping[str, Any]) -> list[_Job]:
    """One for each scene, in the order of their maps' names."""
    paths: list[Path] = []
    for path in map(Path, scenes):
        if path.suffix.lower() == LIST:
            check_regular(path)
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            paths += [Path(line.strip()) for line in lines if line.strip()]
        else:
            paths.append(path)
    if not paths:
        raise LandscaleError("no scene was given")
    jobs: dict[str, _Job] = {}
    for path in paths:
        name = path.resolve().name
        while Path(name).suffix.lower() in _SUFFIXES:
            name = Path(name).stem
        key = name.casefold()  # some file systems ignore case
        if key in jobs:
            raise BadInput(path, f"would have the same map {name}.tif as {jobs[key].scene}")
        jobs[key] = _Job(model, str(path), str(folder / f"{name}.tif"), options)
    return [jobs[key] for key in sorted(jobs)]


def _map_scene(job: _Job, classifier: Predictor) -> SceneMap:
    try:
        request = _request(job, classifier)
        if _is_written(Path(job.out), request):
            return SceneMap(job.scene, job.out, "kept")
        predict(classifier, job.scene, job.out, request=request, **job.options)
    except (LandscaleError, OSError) as error:
        return SceneMap(job.scene, job.out, "failed", reason(error))
    return SceneMap(job.scene, job.out, "written")


def _request(job: _Job, classifier: Predictor) -> str:
    """A digest of all that determines a map."""
    scene = open_scene(Path(job.scene), job.options.get("offset"))
    mask = scene.classification and stat_of(scene.classification)
    files = [sha256_of(value) for value in job.options.values() if isinstance(value, Path)]  # an area, a mask
    content = {
        "weights": classifier.digest(),
        "scene": scene.identity(),
        "classification": mask and [mask.st_size, mask.st_mtime_ns],
        "options": {key: str(value) for key, value in job.options.items()},
        "files": files,
        "landscale": version("landscale"),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode(errors="surrogateescape")).hexdigest()


def _is_written(out: Path, request: str) -> bool:
    """Whether a map is there that was made for the same request. Its files appear together, so one stands for all."""
    if not out.is_file():
        return False
    try:
        with rasterio.open(out, driver="GTiff") as file:
            return bool(file.tags().get("REQUEST") == request)
    except RasterioError:
        return False


@cache
def _loaded(model: str, threads: int | None) -> Predictor:
    """The weights of a worker, which maps several scenes with them."""
    if threads is not None:
        torch.set_num_threads(threads)
    return load_predictor(model)


def _map_in_worker(job: _Job, threads: int | None = None) -> SceneMap:
    console.quiet = True  # lines of several scenes would mix
    try:
        return _map_scene(job, _loaded(job.model, threads))
    except LandscaleError as error:
        return SceneMap(job.scene, job.out, "failed", str(error))


def _in_processes(jobs: Sequence[_Job], workers: int) -> Iterator[SceneMap]:
    threads = max(1, usable_cores() // workers)
    context = start_fork_server(("landscale.maps.predict", "rasterio"))
    with ProcessPoolExecutor(workers, context, exit_with_parent) as pool:
        running: set[Future[SceneMap]] = set()
        with interrupts_left_to_parent():
            running.update(pool.submit(_map_in_worker, job, threads) for job in jobs)
        try:
            while running:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        except BrokenProcessPool:
            raise LandscaleError(
                "a worker process died (killed, or out of memory?); run the same command again to resume"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _on_cluster(jobs: Sequence[_Job], scheduler: str) -> Iterator[SceneMap]:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError:
        raise LandscaleError("--scheduler needs dask.distributed: pip install 'landscale[dask]'") from None
    for name in ("distributed", "distributed.client"):  # each has its own handler
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(scheduler, timeout=_TIMEOUT)
    except (OSError, ValueError) as error:
        raise LandscaleError(f"--scheduler {scheduler}: no dask scheduler answers there ({reason(error)})") from None
    with client:
        of = {client.submit(_map_in_worker, job, pure=False, retries=_TRIES): job for job in jobs}
        for future in as_completed(list(of)):
            try:
                yield future.result()
            except KilledWorker as killed:
                yield SceneMap(of[future].scene, of[future].out, "failed", f"its workers died ({killed})")
