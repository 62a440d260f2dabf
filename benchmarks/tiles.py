"""Compare preparing a store from JPEG 2000 tiles with decoding the same bands once, with 1 and with 2 processes.

    python benchmarks/tiles.py [FOLDER]

6 and 12 synthetic tiles of 2,400×2,400 px are written to FOLDER if it lacks them (a minute for 6); by default to a temporary
folder. The command is measured from the start of its process. It is compared with a pool of running processes that read each
band with rasterio, which is a lower limit.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import rasterio
from rounds import interleaved, record

from landscale.datasets.synthetic.products_and_map import MAP, write_country
from landscale.store import open_store

ROUNDS, SIZES = 3, (6, 12)


def decode(path: Path) -> None:
    with rasterio.Env(GDAL_NUM_THREADS=1), rasterio.open(path) as file:
        file.read(1)


def main(root: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        before = os.getloadavg()[0]
        countries = {tiles: (root or Path(folder)) / f"country{tiles}" for tiles in SIZES}
        figures = {f"{tiles}_tiles": measure(path, tiles, Path(folder)) for tiles, path in countries.items()}
        record("tiles", {**figures, "load": {"before": before, "after": os.getloadavg()[0]}})


def measure(country: Path, tiles: int, folder: Path) -> dict[str, Any]:
    write_country(country, tiles)
    store = folder / "store.h5"
    bands = sorted(country.rglob("*_B*.jp2"), key=lambda path: -path.stat().st_size)

    def decode_all(pool: ProcessPoolExecutor) -> Callable[[], int]:
        def work() -> int:
            list(pool.map(decode, bands))
            return tiles

        return work

    def prepare(workers: int) -> Callable[[], int]:
        program = Path(sys.executable).with_name("landscale")
        words = ["prepare", "tiles", country, store, "--corine", country / MAP, "--workers", workers]

        def work() -> int:
            store.unlink(missing_ok=True)
            subprocess.run([program, *map(str, words)], check=True, capture_output=True)
            return tiles

        return work

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as one, ProcessPoolExecutor(2, spawn) as two:
        contenders = {
            "decode_1": decode_all(one),
            "prepare_1": prepare(1),
            "decode_2": decode_all(two),
            "prepare_2": prepare(2),
        }
        seconds = {name: tiles / rate for name, rate in interleaved(contenders, ROUNDS).items()}
    ratios = {
        "prepare_over_decoding_1": seconds["prepare_1"] / seconds["decode_1"],
        "prepare_over_decoding_2": seconds["prepare_2"] / seconds["decode_2"],
        "speed_up_of_2_workers": seconds["prepare_1"] / seconds["prepare_2"],
    }
    return {"bands": len(bands), "patches": len(open_store(store)), "seconds": seconds, "ratios": ratios}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
