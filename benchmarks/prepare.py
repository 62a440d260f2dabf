"""Compare preparing a store from BigEarthNet's folders with reading the twelve files of each patch with rasterio.

    python benchmarks/prepare.py [PATCHES] [FOLDER]

Synthetic archives of v1 and v2, with PATCHES on each of DAYS, and the stores are written below FOLDER (a temporary folder by
default). The files are in the page cache. A preparation includes survey, creating the store, reading, checksums, moments,
writing, syncing and sealing; a command also starts Python and its workers. CPU seconds are recorded too, because wall-clock
time depends on the disk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from days import write_days

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.survey import Survey
from landscale.preparation import prepare_survey
from landscale.store import checksum

ROUNDS = 3
DAYS = 5


def main(patches: int, parent: Path | None) -> None:
    from rounds import interleaved, record  # here, because workers import this file, and should not import torch

    cpu: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        store = folder / "store.h5"
        contenders: dict[str, Callable[[], int]] = {}
        layouts: tuple[Literal["v1", "v2"], ...] = ("v1", "v2")
        for layout in layouts:
            archive = write_days(folder / layout, patches, DAYS, layout).parent
            contenders[f"{layout}_prepare"] = preparation(archive, store)
            for workers in (1, 2):
                contenders[f"{layout}_command_{workers}"] = command(archive, store, workers)
            contenders[f"{layout}_reading"] = read_all(bigearthnet.survey([(None, archive)]))
            contenders[f"{layout}_twelve_rasterio"] = twelve_rasterio(archive)
        measured = {name: timed(work, cpu.setdefault(name, [])) for name, work in contenders.items()}
        rates = interleaved(measured, ROUNDS, before=lambda: store.unlink(missing_ok=True))
        cpu_rates = {name: statistics.median(found[1:]) for name, found in cpu.items() if "command" not in name}
        ratios = {
            f"{layout}_{way}_over_rasterio": rates[f"{layout}_{way}"] / rates[f"{layout}_twelve_rasterio"]
            for layout in ("v1", "v2")
            for way in ("prepare", "command_1", "command_2", "reading")
        }
        ratios["two_workers_over_one"] = statistics.mean(
            rates[f"{layout}_command_2"] / rates[f"{layout}_command_1"] for layout in ("v1", "v2")
        )
        ratios |= {
            f"{layout}_{way}_over_rasterio_by_cpu": cpu_rates[f"{layout}_{way}"]
            / cpu_rates[f"{layout}_twelve_rasterio"]
            for layout in ("v1", "v2")
            for way in ("prepare", "reading")
        }
        figures = {"patches_per_second": rates, "patches_per_cpu_second": cpu_rates, "ratios": ratios}
        record("prepare", {"patches": patches * DAYS, "folder": str(parent or "temporary"), **figures})


def timed(work: Callable[[], int], rates: list[float]) -> Callable[[], int]:
    """Wrap `work`, so that it also appends its items per CPU second of this process to `rates`."""

    def run() -> int:
        begun = time.process_time()
        items = work()
        rates.append(items / (time.process_time() - begun))
        return items

    return run


def preparation(archive: Path, store: Path) -> Callable[[], int]:
    def work() -> int:
        return prepare_survey(bigearthnet.survey([(None, archive)]), store).written

    return work


def command(archive: Path, store: Path, workers: int) -> Callable[[], int]:
    words: list[str | Path] = [
        Path(sys.executable).with_name("landscale"),
        "prepare",
        "bigearthnet",
        archive,
        store,
        "--json",
    ]

    def work() -> int:
        done = subprocess.run([*words, "--workers", str(workers)], capture_output=True, check=True)
        return int(json.loads(done.stdout)["written"])

    return work


def read_all(survey: Survey) -> Callable[[], int]:
    """Read all patches and compute their checksums, as a worker does, without writing."""
    buffers = survey.layout.buffers(64)
    locations = list(survey.table["location"])

    def work() -> int:
        classes = np.zeros((64, len(survey.layout.classes)), np.uint8)
        for start in range(0, len(locations), 64):
            part = locations[start : start + 64]
            planes = {key: buffer[: len(part)] for key, buffer in buffers.items()}
            for i, found in enumerate(survey.read(part, planes, classes[: len(part)])):
                assert not isinstance(found, Exception)
                checksum([planes[plane.key][i] for plane in survey.layout.planes], classes[i])
        return len(locations)

    return work


def twelve_rasterio(archive: Path) -> Callable[[], int]:
    import rasterio

    patches = sorted(path.parent for path in archive.glob("BigEarthNet-*/**/*_B02.tif"))[:64]

    def work() -> int:
        for patch in patches:
            for path in patch.glob("*.tif"):
                with rasterio.open(path) as file:
                    file.read(1)
        return len(patches)

    return work


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000, Path(sys.argv[2]) if len(sys.argv) > 2 else None)
