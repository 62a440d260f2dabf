"""Training beside other busy processes: one thread, a thread for each core, and what landscale chooses by itself.

    python benchmarks/busy_cores.py [--busy 0 4] [--rounds 3] [--patches 64]

Each contender is a whole command, `landscale train --recipe few_labels` with two epochs of a synthetic store; its time is that of
the training steps. The contenders take turns in every round, so that other users of the machine slow down all of them, and the
medians and the fastest rounds are given. `as_before` has a thread for each core, which spins as OpenMP does by default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from rounds import record

from landscale.runtime.portability import usable_cores
from landscale.testing import make_store
from landscale.testing.synthetic_store import sentinel_planes

CORES = str(usable_cores())
CONTENDERS = {
    "one_thread": {"OMP_NUM_THREADS": "1"},
    "a_thread_a_core": {"OMP_NUM_THREADS": CORES},
    "as_before": {"OMP_NUM_THREADS": CORES, "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},
    "chosen": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 4], help="busy processes beside the training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patches", type=int, default=64, help="patches of the train split; a batch has 16")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        splits = {"train": options.patches, "val": 16}
        make_store(folder / "s.h5", planes=sentinel_planes(60), splits=splits)
        for busy in options.busy:
            seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
            loads = []
            with busy_processes(busy):
                for number in range(options.rounds):
                    for contender, environment in CONTENDERS.items():
                        run = folder / f"{busy}-{number}-{contender}"
                        seconds[contender].append(train(folder / "s.h5", run, environment))
                        loads.append(os.getloadavg()[0])
                        print(
                            f"{busy} busy, round {number}: {contender:<16} {seconds[contender][-1]:8.1f} s",
                            file=sys.stderr,
                        )
            results[f"beside_{busy}"] = summary(seconds) | {"load": [round(min(loads), 1), round(max(loads), 1)]}
    record("busy_cores", {"patches": options.patches, "rounds": options.rounds, "seconds": results})


def summary(seconds: dict[str, list[float]]) -> dict[str, object]:
    """Median and fastest round of each contender, and how the choice compares with the better number of threads."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians["one_thread"], medians["a_thread_a_core"])
    rounds = {name: [round(value, 2) for value in values] for name, values in seconds.items()}
    return {"median": medians, "rounds": rounds, "chosen_over_better": round(medians["chosen"] / best, 3)}


def train(store: Path, run: Path, environment: dict[str, str]) -> float:
    """Seconds that the steps of a training took."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, "-m", "landscale", "train", "--recipe=few_labels", f"--store={store}", f"--run={run}"]
    keys = ["--epochs=2", "--batch=16", "--evaluate-every=2", "--views=1"]
    subprocess.run([*command, *keys], env=own | environment, check=True, stdout=subprocess.DEVNULL)
    return float(pd.read_csv(run / "metrics.csv")["train_seconds"].sum())


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
