"""Compare training on two gloo ranks of one thread each with one process of two threads and the same global batch.

    python benchmarks/two_ranks.py

ResNet-50, 12 bands at 120 px, 19 classes, 64 patches a step over all ranks; gradients as float32 and as bf16.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from rounds import interleaved, record

from landscale.datasets.synthetic import bigearthnet_archive as synthetic
from landscale.distributed import end_process_group, start_process_group
from landscale.loading import epoch_order, train_steps
from landscale.preparation import prepare_survey
from landscale.store import open_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from landscale.training.trainer import Trainer

BATCH, STEPS, ROUNDS = 64, 3, 5  # patches of a step over all ranks; steps of a turn
CONTENDERS = {"one_process": (1, "none"), "two_ranks": (2, "none"), "two_ranks_bf16": (2, "bf16")}


def run_rank(path: Path, compress: str) -> None:
    """Run one rank, which trains for the number of steps that rank 0 reads from stdin, until that is 0."""
    ranks = start_process_group()
    torch.set_num_threads(2 // ranks.world)
    store, device = open_store(path), torch.device("cpu")
    recipe = replace(Recipe(), model="resnet50", batch=BATCH // ranks.world, epochs=1000)
    recipe = replace(recipe, compress=compress)  # type: ignore[arg-type]  # one of CONTENDERS
    trainer = Trainer(recipe, store, Run(path.with_name("run")), ranks, build_classifier(recipe, store), device)
    steps = train_steps(np.concatenate([epoch_order(trainer.patches, 0, e) for e in range(1000)]), BATCH)
    incoming, upcoming = trainer.batches(steps), iter(steps)
    number = torch.zeros(1, dtype=torch.int64)
    while True:
        number[0] = int(sys.stdin.readline() or 0) if ranks.first else 0
        if ranks.world > 1:
            dist.broadcast(number, 0)
        if not number.item():
            break
        for _ in range(int(number)):
            trainer.step([next(upcoming)], incoming)
            trainer.state.step += 1
        if ranks.first:
            print("done", flush=True)
    end_process_group()


def start(path: Path, ranks: int, compress: str, stack: ExitStack) -> Callable[[], int]:
    """Start the processes of a contender; returns a function that does one turn."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        rendezvous = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    command = [sys.executable, __file__, str(path), compress]
    processes = [
        stack.enter_context(
            subprocess.Popen(
                command,
                env=os.environ | rendezvous | {"RANK": str(rank), "OMP_NUM_THREADS": str(2 // ranks)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        for rank in range(ranks)
    ]
    first = processes[0]
    assert first.stdin is not None
    stack.callback(first.stdin.close)  # makes all ranks end, before `Popen` waits for any of them

    def turn() -> int:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(f"{STEPS}\n")
        first.stdin.flush()
        assert first.stdout.readline() == "done\n"
        return STEPS * BATCH

    return turn


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        prepare_survey(synthetic.survey([(None, folder / "archive")], 600), folder / "store.h5", workers=2)
        turns = {
            contender: start(folder / "store.h5", ranks, compress, stack)
            for contender, (ranks, compress) in CONTENDERS.items()
        }
        rates = interleaved(turns, ROUNDS)
    ratios = {f"{name}_over_one_process": rates[name] / rates["one_process"] for name in list(CONTENDERS)[1:]}
    record("two_ranks", {"patches_per_second": rates, "ratios": ratios, "batch": BATCH})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_rank(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
