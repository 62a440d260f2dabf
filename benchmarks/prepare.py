"""Preparing a store from BigEarthNet's folders against reading them with rasterio, twelve files a patch.

    python benchmarks/prepare.py [PATCHES] [FOLDER]

Synthetic archives of v1 and v2 and the stores are written below FOLDER (a temporary folder by default), files warm.
A preparation is all of it: survey, creating the store, reading, checksums, moments, writing, syncing, seals.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rounds import interleaved, record

from landscale.prepare import prepare
from landscale.sources import bigearthnet, synthetic
from landscale.sources.survey import Survey

ROUNDS = 5


def main(patches: int, parent: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        contenders: dict[str, Callable[[], int]] = {}
        for layout in ("v1", "v2"):
            archive = folder / layout
            synthetic.write_archive(archive, patches, layout=layout)
            for workers in (1, 2):
                contenders[f"{layout}_{workers}_workers"] = preparation(archive, folder / "store.h5", workers)
            contenders[f"{layout}_reading"] = reading(bigearthnet.survey([(None, archive)]))
            contenders[f"{layout}_twelve_rasterio"] = twelve_rasterio(archive)
        rates = interleaved(contenders, ROUNDS)
        ratios = {
            f"{layout}_{way}_over_rasterio": rates[f"{layout}_{way}"] / rates[f"{layout}_twelve_rasterio"]
            for layout in ("v1", "v2")
            for way in ("1_workers", "2_workers", "reading")
        }
        ratios["two_workers_over_one"] = statistics.mean(
            rates[f"{layout}_2_workers"] / rates[f"{layout}_1_workers"] for layout in ("v1", "v2")
        )
        record("prepare", {"patches": patches, "patches_per_second": rates, "ratios": ratios})


def preparation(archive: Path, store: Path, workers: int) -> Callable[[], int]:
    def work() -> int:
        store.unlink(missing_ok=True)
        return prepare(bigearthnet.survey([(None, archive)]), store, workers).written

    return work


def reading(survey: Survey) -> Callable[[], int]:
    """What a worker reads, without anything that follows from it."""
    buffers = survey.layout.buffers(64)
    wheres = list(survey.table["where"])

    def work() -> int:
        classes = np.zeros((64, len(survey.layout.classes)), np.uint8)
        for start in range(0, len(wheres), 64):
            part = wheres[start : start + 64]
            found = list(survey.read(part, {k: b[: len(part)] for k, b in buffers.items()}, classes[: len(part)]))
            assert not any(isinstance(one, Exception) for one in found)
        return len(wheres)

    return work


def twelve_rasterio(archive: Path) -> Callable[[], int]:
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
