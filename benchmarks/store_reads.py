"""Compare random reads from a store with a memcpy of the same bytes, and with rasterio on the original files.

    python benchmarks/store_reads.py [ARCHIVE]

ARCHIVE is a BigEarthNet folder; without it, a synthetic archive of 2,000 patches is made in a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import rasterio
import torch
from rounds import interleaved, record

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.synthetic import bigearthnet_archive as synthetic
from landscale.formats.geotiff import read_band
from landscale.loading import batches
from landscale.preparation import prepare_survey
from landscale.store import PatchStore, open_store
from landscale.vocabulary.bands import band_set

BATCH = 256


def memory_maps(store: PatchStore) -> list[np.memmap[Any, Any]]:
    """Memory maps of the planes of a store, which are contiguous in its HDF5 file, without the reader of landscale."""
    with h5py.File(store.path) as file:
        datasets = [file[plane.key] for plane in store.layout.planes]
        return [np.memmap(store.path, d.dtype, "r", d.id.get_offset(), d.shape) for d in datasets]


def main(archive: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if archive is None:
            archive = Path(folder) / "archive"
            synthetic.write_archive(archive, patches=2000)
        survey = bigearthnet.survey([(None, archive)])
        prepare_survey(survey, Path(folder) / "store.h5", workers=1)
        store = open_store(Path(folder) / "store.h5")
        n = len(store)
        rng = np.random.default_rng(0)
        steps = [rng.integers(0, n, BATCH) for _ in range(40)]
        bands = band_set("s2-12").names
        no_labels = np.empty((n, 0), np.uint8)
        planes = memory_maps(store)
        buffers = [np.zeros((BATCH, *p.shape[1:]), p.dtype) for p in planes]
        source = [np.array(p[:BATCH] if n >= BATCH else np.resize(p, (BATCH, *p.shape[1:]))) for p in planes]
        locations = list(survey.table["location"])

        def memcpy() -> int:
            for _ in steps:
                for a, b in zip(source, buffers, strict=True):
                    np.copyto(b, a)
            return len(steps) * BATCH

        def one_thread() -> int:
            for rows in steps:
                for plane, out in zip(planes, buffers, strict=True):
                    np.take(plane, rows, axis=0, out=out, mode="clip")
            return len(steps) * BATCH

        def loader() -> int:
            return sum(len(b.rows) for b in batches(store, bands, no_labels, steps, torch.device("cpu")))

        def twelve_rasterio() -> int:
            for row in steps[0][:64]:
                folder = Path(locations[row])
                for band in bands:
                    with rasterio.open(folder / f"{folder.name}_{band}.tif") as file:
                        file.read(1)
            return 64

        patch_buffers = survey.layout.buffers(1)

        def plain_files() -> int:
            for row in steps[0]:
                folder = Path(locations[row])
                for plane in survey.layout.planes:
                    for band, out in zip(plane.bands, patch_buffers[plane.key][0], strict=True):
                        read_band(f"{folder}/{folder.name}_{band}.tif", out)
            return BATCH

        contenders = {
            "memcpy": memcpy,
            "store_one_thread": one_thread,
            "store_batches": loader,
            "files_plain": plain_files,
            "files_twelve_rasterio": twelve_rasterio,
        }
        rates = interleaved(contenders)
        ratios = {
            "store_over_memcpy": rates["store_batches"] / rates["memcpy"],
            "store_one_thread_over_memcpy": rates["store_one_thread"] / rates["memcpy"],
            "store_over_rasterio": rates["store_batches"] / rates["files_twelve_rasterio"],
            "plain_files_over_rasterio": rates["files_plain"] / rates["files_twelve_rasterio"],
        }
        record("store_reads", {"patches": n, "patches_per_second": rates, "ratios": ratios})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
