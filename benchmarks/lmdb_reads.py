"""Compare random reads of the LMDB of BigEarthNet v2 by landscale with `safetensors.load` of each value.

    python benchmarks/lmdb_reads.py

Every contender fills the same arrays with all twelve bands of 256 patches. The values are synthetic, as large as the real ones,
and in the page cache.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import lmdb
import numpy as np
import pandas as pd
import safetensors.numpy
import safetensors.torch
import torch
from rounds import interleaved, record

from landscale.loading import batches
from landscale.store import PatchStore, open_store

PATCHES, BATCH = 4000, 256


def write(folder: Path) -> None:
    """Write an environment of random pixels, as rico-hdl does, and its metadata."""
    from landscale.store.planes import SENTINEL2

    rng = np.random.default_rng(0)
    names = [f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{k // 100:02d}_{k % 100:02d}" for k in range(PATCHES)]
    with lmdb.open(str(folder), map_size=2**31) as environment, environment.begin(write=True) as transaction:
        for name in names:
            bands = {
                band: rng.integers(0, 10_000, (plane.side, plane.side), np.uint16)
                for plane in SENTINEL2
                for band in plane.bands
            }
            transaction.put(name.encode(), safetensors.numpy.save(bands))
    table = pd.DataFrame(
        {"patch_id": names, "labels": [["Pastures"]] * PATCHES, "split": "train", "country": "Austria"}
    )
    table["s1_name"], table["contains_seasonal_snow"], table["contains_cloud_or_shadow"] = "none", False, False
    table.to_parquet(folder / "metadata.parquet")


def measure(store: PatchStore, folder: Path) -> None:
    rng = np.random.default_rng(1)
    steps = [rng.integers(0, PATCHES, BATCH) for _ in range(60)]
    planes = store.layout.planes
    buffers = store.layout.buffers(BATCH)
    keys = [name.encode() for name in store.column("name")]
    no_labels = np.empty((PATCHES, 0), np.uint8)
    second = folder / "second"  # a process can open an LMDB file only once
    second.mkdir()
    (second / "data.mdb").write_bytes((folder / "data.mdb").read_bytes())
    environment = lmdb.open(str(second), readonly=True, lock=False, readahead=False)

    def gather() -> int:
        for rows in steps:
            store.gather(rows, buffers)
        return len(steps) * BATCH

    def loader() -> int:
        return sum(len(b.rows) for b in batches(store, store.layout.bands, no_labels, steps, torch.device("cpu")))

    def by_numpy() -> int:
        for rows in steps:
            with environment.begin() as transaction:
                for i, row in enumerate(rows):
                    bands = safetensors.numpy.load(transaction.get(keys[row]) or b"")
                    for plane in planes:
                        for k, band in enumerate(plane.bands):
                            buffers[plane.key][i, k] = bands[band]
        return len(steps) * BATCH

    tensors = {key: torch.from_numpy(plane) for key, plane in buffers.items()}

    def by_torch() -> int:
        for rows in steps:
            with environment.begin() as transaction:
                for i, row in enumerate(rows):
                    bands = safetensors.torch.load(transaction.get(keys[row]) or b"")
                    for plane in planes:
                        for k, band in enumerate(plane.bands):
                            tensors[plane.key][i, k] = bands[band]
        return len(steps) * BATCH

    rates = interleaved(
        {"gather": gather, "batches": loader, "safetensors_numpy": by_numpy, "safetensors_torch": by_torch}
    )
    ratios = {
        f"{reader}_over_{reference}": rates[reader] / rates[reference]
        for reader in ("gather", "batches")
        for reference in ("safetensors_numpy", "safetensors_torch")
    }
    record("lmdb_reads", {"patches": PATCHES, "batch": BATCH, "patches_per_second": rates, "ratios": ratios})


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "Encoded-BigEarthNet"
        write(folder)
        measure(open_store(folder), folder)


if __name__ == "__main__":
    main()
