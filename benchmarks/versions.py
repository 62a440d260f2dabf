"""Compare the commands of two checkouts of landscale, which take turns on the same inputs.

    python benchmarks/versions.py OTHER_CHECKOUT

Both run with this Python, so they use the same libraries. The inputs are synthetic and made once: folders and archives of
BigEarthNet (3,000 patches), two tiles, and a store to train on. A command is measured from the start of its process to its end;
of a training, the median seconds of an epoch after the first one, without its evaluation. The ratio is the time of this
checkout divided by that of the other: above 1, this one is slower.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from days import write_days
from rounds import record

from landscale.datasets.synthetic.products_and_map import MAP, write_country

ROUNDS = 3
PATCHES, DAYS, TRAINED, TILES = 375, 8, 300, 2
BUSIEST = 0.7  # load average at the start above which the figures would be noise
HERE = Path(__file__).resolve().parents[1]


def run(checkout: Path, *words: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "landscale", *map(str, words)]
    subprocess.run(command, check=True, capture_output=True, env=environment, cwd=checkout)


def command(*words: object, store: Path) -> Callable[[Path], float]:
    """Seconds that a command takes in a checkout; it writes a new `store`."""

    def seconds(checkout: Path) -> float:
        store.unlink(missing_ok=True)
        begun = time.perf_counter()
        run(checkout, *words)
        return time.perf_counter() - begun

    return seconds


def training(store: Path, folder: Path) -> Callable[[Path], float]:
    """Median seconds of an epoch of a training in a checkout."""
    recipe = ("--recipe=sedona2019", "--model=resnet18", "--batch=32", "--epochs=4", "--evaluate-every=4")

    def seconds(checkout: Path) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        run(checkout, "train", *recipe, f"--store={store}", f"--run={folder}")
        return float(pd.read_csv(folder / "metrics.csv")["train_seconds"].iloc[1:].median())

    return seconds


def main(other: Path) -> None:
    load = os.getloadavg()[0]
    if load > BUSIEST:
        raise SystemExit(f"the load average is {load:.2f}, expected at most {BUSIEST}: wait until the machine is quiet")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        v1, v2 = (write_days(root / layout, PATCHES, DAYS, layout) for layout in ("v1", "v2"))
        subprocess.run(["tar", "--hard-dereference", "-czf", root / "v1.tar.gz", "-C", v1.parent, v1.name], check=True)
        subprocess.run(
            ["tar", "--hard-dereference", "--zstd", "-cf", v2.parent / "v2.tar.zst", "-C", v2.parent, v2.name],
            check=True,
        )
        shutil.copytree(v1.parent / "metadata", root / "metadata")
        country, trained, store = root / "country", root / "trained.h5", root / "store.h5"
        write_country(country, TILES)
        # By the other checkout, which is usually the older one: a newer one opens its stores.
        run(other, "prepare", "synthetic", root / "syn", trained, "--patches", TRAINED)
        two = ("--workers", 2)
        works = {
            "folders of v1": command("prepare", "bigearthnet", v1, store, *two, store=store),
            "folders of v2": command("prepare", "bigearthnet", v2.parent, store, *two, store=store),
            "archive .tar.gz": command("prepare", "bigearthnet", root / "v1.tar.gz", store, store=store),
            "archive .tar.zst": command("prepare", "bigearthnet", v2.parent / "v2.tar.zst", store, store=store),
            "tiles": command("prepare", "tiles", country, store, "--corine", country / MAP, *two, store=store),
            "verify": command("verify", trained, store=store),
            "info": command("info", trained, store=store),
            "training epoch": training(trained, root / "run"),
        }
        figures = {}
        for work, seconds in works.items():
            ratios, of_this, of_other = [], [], []
            for number in range(ROUNDS + 1):  # the first one warms up
                pair = [seconds(HERE), seconds(other)] if number % 2 else [seconds(other), seconds(HERE)][::-1]
                if number:
                    of_this.append(pair[0])
                    of_other.append(pair[1])
                    ratios.append(pair[0] / pair[1])
            figures[work] = {
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "seconds": statistics.median(of_this),
                "seconds_of_other": statistics.median(of_other),
            }
            print(f"{work:<20} {figures[work]['ratio']:.3f}", file=sys.stderr)
        record("versions", {"other": other.name, "works": figures, "load": load})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
