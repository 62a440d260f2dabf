"""Compare the commands of two checkouts of landscale, which work on the same inputs at the same time, on one core each.

    python benchmarks/versions.py OTHER_CHECKOUT

The speed of a virtual machine changes from minute to minute by more than the differences that matter here. So both checkouts run
at once, each on a core of its own, and swap cores in the next round: whatever slows the machine slows both. Both use this Python
and its libraries. The inputs are synthetic and made once: folders and archives of BigEarthNet (6,000 patches), two tiles, and a
store to train on. A command is measured from the start of its process to its end; of a training, the median seconds of an epoch
after the first one, without its evaluation. The ratio is the time of this checkout divided by that of the other: above 1, this
one is slower. Its standard error comes from the spread of the rounds.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
from days import write_days
from rounds import record

from landscale.datasets.synthetic.products_and_map import MAP, write_country

ROUNDS = 6
PATCHES, DAYS, TRAINED, TILES = 750, 8, 300, 2
BUSIEST = 0.7  # load average at the start above which the figures would be noise
HERE = Path(__file__).resolve().parents[1]
OUT = object()
Work = Callable[[Path, int, Path], float]  # of a checkout, a core and an empty folder; seconds


def run(checkout: Path, *words: object, core: int) -> str:
    """Run Python with these arguments, which imports landscale from the checkout, on one core; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    command = ["taskset", "--cpu-list", str(core), sys.executable, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=checkout).stdout


def command(*words: object) -> Work:
    """Seconds that a command takes in a checkout; OUT among the words is a new file."""

    def seconds(checkout: Path, core: int, folder: Path) -> float:
        placed = [folder / "out.h5" if word is OUT else word for word in words]
        begun = time.perf_counter()
        run(checkout, "-m", "landscale", *placed, core=core)
        return time.perf_counter() - begun

    return seconds


def training(store: Path) -> Work:
    """Median seconds of an epoch of a training in a checkout."""
    recipe = ("--recipe=sedona2019", "--model=resnet18", "--batch=32", "--epochs=4", "--evaluate-every=4")

    def seconds(checkout: Path, core: int, folder: Path) -> float:
        words = ("train", *recipe, f"--store={store}", f"--run={folder / 'run'}")
        run(checkout, "-m", "landscale", *words, core=core)
        return float(pd.read_csv(folder / "run" / "metrics.csv")["train_seconds"].iloc[1:].median())

    return seconds


READS = """
import sys, time
from pathlib import Path
import numpy as np
from landscale.store import open_store
store = open_store(Path(sys.argv[1]))
random = np.random.default_rng(0)
batches = [random.integers(0, len(store), 256) for _ in range(40)]
arrays = {plane.key: np.empty((256, *plane.shape), plane.dtype) for plane in store.layout.planes}
for repeat in range(6):
    if repeat == 1:
        begun = time.perf_counter()
    for rows in batches:
        store.gather(rows, arrays)
print(time.perf_counter() - begun)
"""


def reads(store: Path) -> Work:
    """Seconds to read 200 batches of 256 random patches, all planes, from the page cache."""

    def seconds(checkout: Path, core: int, _: Path) -> float:
        return float(run(checkout, "-c", READS, store, core=core))

    return seconds


def compare(work: Work, this: Path, other: Path, folder: Path) -> dict[str, Any]:
    """Ratio of the two checkouts' times in every pair of rounds, in which each checkout had each core once."""
    logarithms, of_this, of_other = [], [], []
    for number in range(ROUNDS):
        pair = 0.0
        for cores in ((0, 1), (1, 0)):
            folders = [Path(tempfile.mkdtemp(dir=folder)) for _ in cores]
            with ThreadPoolExecutor(2) as both:
                took = list(both.map(work, (this, other), cores, folders))
            for used in folders:
                shutil.rmtree(used)
            pair += math.log(took[0] / took[1]) / 2
            if number:
                of_this.append(took[0])
                of_other.append(took[1])
        if number:  # the first pair of rounds fills the page cache
            logarithms.append(pair)
    return {
        "ratio": math.exp(statistics.mean(logarithms)),
        "standard_error": statistics.stdev(logarithms) / math.sqrt(len(logarithms)),
        "ratios": [math.exp(value) for value in logarithms],
        "seconds": statistics.median(of_this),
        "seconds_of_other": statistics.median(of_other),
    }


def main(other: Path) -> None:
    load = os.getloadavg()[0]
    if load > BUSIEST:
        raise SystemExit(f"the load average is {load:.2f}, expected at most {BUSIEST}: wait until the machine is quiet")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        v1, v2 = (write_days(root / layout, PATCHES, DAYS, layout) for layout in ("v1", "v2"))
        subprocess.run(["tar", "--hard-dereference", "-czf", root / "v1.tar.gz", "-C", v1.parent, v1.name], check=True)
        subprocess.run(
            ["tar", "--hard-dereference", "--zstd", "-cf", v2.parent / "v2.tar.zst", "-C", v2.parent, v2.name],
            check=True,
        )
        shutil.copytree(v1.parent / "metadata", root / "metadata")
        country, trained = root / "country", root / "trained.h5"
        write_country(country, TILES)
        # By the other checkout, which is usually the older one: a newer one opens its stores.
        run(other, "-m", "landscale", "prepare", "synthetic", root / "syn", trained, "--patches", TRAINED, core=0)
        one = ("--workers", 1)
        works = {
            "folders of v1": command("prepare", "bigearthnet", v1, OUT, *one),
            "folders of v2": command("prepare", "bigearthnet", v2.parent, OUT, *one),
            "archive .tar.gz": command("prepare", "bigearthnet", root / "v1.tar.gz", OUT),
            "archive .tar.zst": command("prepare", "bigearthnet", v2.parent / "v2.tar.zst", OUT),
            "tiles": command("prepare", "tiles", country, OUT, "--corine", country / MAP, *one),
            "store reads": reads(trained),
            "verify": command("verify", trained),
            "info": command("info", trained),
            "training epoch": training(trained),
        }
        figures = {}
        for name, work in works.items():
            figures[name] = compare(work, HERE, other, root)
            print(f"{name:<20} {figures[name]['ratio']:.3f} ± {figures[name]['standard_error']:.3f}", file=sys.stderr)
        record("versions", {"other": other.name, "works": figures, "load": load})


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
