"""Compare the training loop (store, input stage, step, progress) with the bare step on one batch, and with eager fp32.

    python benchmarks/training_loop.py

ResNet-50, 12 bands at 120 px, 19 classes, batches of 32 and of 128 (the default), on the GPU if there is one. The bare step runs
in the same process as the loop, with the same settings (memory that malloc keeps, cuDNN's benchmark mode); eager fp32 runs
with default settings in another process.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from rounds import interleaved, record

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.synthetic import bigearthnet_archive as synthetic
from landscale.distributed import Ranks, local_device
from landscale.loading import epoch_order, train_steps
from landscale.preparation import prepare_survey
from landscale.store import open_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from landscale.training.trainer import Trainer

BATCHES, PATCHES = (32, 128), 512  # PATCHES: patches of one turn


def main() -> None:
    other_process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with other_process, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic.write_archive(folder / "archive", patches=3 * PATCHES)
        prepare_survey(bigearthnet.survey([("train", folder / "archive")]), folder / "store.h5", workers=2)
        device = local_device()
        contenders: dict[str, Callable[[], int]] = {}
        for batch in BATCHES:
            trainer = training(folder, batch, device)
            speed = trainer.model.speed
            contenders |= {
                f"loop_{batch}": partial(loop, trainer, iter(range(10**6))),
                f"bare_step_{batch}": partial(bare_steps, batch, torch.channels_last, speed.reduced),
                f"eager_fp32_{batch}": partial(in_process, other_process, batch),
            }
        rates = interleaved(contenders, rounds=5)
    ratios = {
        f"loop_over_{peer}_{batch}": rates[f"loop_{batch}"] / rates[f"{peer}_{batch}"]
        for batch in BATCHES
        for peer in ("bare_step", "eager_fp32")
    }
    record("training_loop", {"patches_per_second": rates, "ratios": ratios, "speed": speed.label})


def training(folder: Path, batch: int, device: torch.device) -> Trainer:
    store = open_store(folder / "store.h5")
    recipe = replace(Recipe(), model="resnet50", batch=batch, epochs=1000)
    classifier = build_classifier(recipe, store).to(device)
    return Trainer(recipe, store, Run(folder / f"run-{batch}"), Ranks(), classifier, device)


def loop(trainer: Trainer, epochs: Iterator[int]) -> int:
    batch = trainer.recipe.batch
    steps = train_steps(epoch_order(trainer.patches, 0, next(epochs)), batch)[: PATCHES // batch]
    incoming = trainer.batches(steps)
    for rows in steps:
        trainer.step([rows], incoming)
        trainer.state.step += 1
    return PATCHES


def in_process(process: ProcessPoolExecutor, batch: int) -> int:
    return process.submit(bare_steps, batch, torch.contiguous_format, False).result()


def bare_steps(batch: int, memory: torch.memory_format, reduced: bool) -> int:
    """Train without landscale on one fixed batch; returns the number of patches."""
    step = bare_step(batch, memory, reduced)
    for _ in range(PATCHES // batch):
        step()
    return PATCHES


@cache
def bare_step(batch: int, memory: torch.memory_format, reduced: bool) -> Callable[[], None]:
    device = local_device()
    x = torch.randn(batch, 12, 120, 120, device=device).contiguous(memory_format=memory)
    y = torch.rand(batch, 19, device=device).round()
    net = timm.create_model("resnet50", in_chans=12, num_classes=19).to(device)
    net = net.to(memory_format=memory)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
            logits = net(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), y)
        loss.item()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
