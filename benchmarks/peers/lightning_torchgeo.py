"""The peer: TorchGeo's BigEarthNet and ClassificationTask in Lightning's Trainer on a CPU, with their defaults.

    lightning_torchgeo.py ROOT MODEL BATCH files|memory|bare fp32|bf16

fp32 is Lightning's default; bf16 is its precision `bf16-mixed`, which is autocast.

files: 12 GeoTIFFs a patch, read by two workers of a DataLoader. memory: the same patches as float32 tensors, indexed by batch.
bare: only the training step of the same network on one fixed batch, without Lightning. Nothing is normalised or augmented.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from typing import Any

import torch
from contender import turns
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler
from torchgeo.datasets import BigEarthNet
from torchgeo.trainers import ClassificationTask

ENDLESS = 10**7  # patches of an epoch, so that no epoch ends during the measurement
PACKAGES = ("torchgeo", "lightning", "torch", "timm", "numpy", "rasterio")


class Turns(Callback):
    """Waits between two batches until it is this contender's turn."""

    def __init__(self, turns: Iterator[None]) -> None:
        self.turns = turns

    def on_train_start(self, *_: Any) -> None:
        next(self.turns)

    def on_train_batch_end(self, *_: Any) -> None:
        next(self.turns)


class InMemory(Dataset[dict[str, Tensor]]):
    """A dataset whose index is the list of rows of a batch."""

    def __init__(self, samples: dict[str, Tensor]) -> None:
        self.samples = samples

    def __getitem__(self, rows: list[int]) -> dict[str, Tensor]:
        return {key: values[rows] for key, values in self.samples.items()}


def main(root: str, model: str, batch: int, variant: str, precision: str) -> None:
    dataset = BigEarthNet(root, split="train", bands="s2", num_classes=19)
    task = ClassificationTask(model=model, weights=None, in_channels=12, task="multilabel", num_labels=19, loss="bce")
    steps = turns(
        {
            "patches": len(dataset),
            "labels": sum(int(dataset._load_target(i).sum()) for i in range(len(dataset))),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        }
    )
    if variant == "bare":
        bare(task.model, read(dataset, batch), precision, steps)
        return
    rows = RandomSampler(dataset, num_samples=ENDLESS)
    loader: DataLoader[dict[str, Tensor]]
    if variant == "files":
        loader = DataLoader(dataset, batch, sampler=rows, num_workers=2)
    else:
        samples = InMemory(read(dataset, len(dataset)))
        loader = DataLoader(samples, batch_size=None, sampler=BatchSampler(rows, batch, drop_last=True))
    options = {
        "precision": "bf16-mixed" if precision == "bf16" else "32-true",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(accelerator="cpu", max_epochs=1, callbacks=[Turns(steps)], **options).fit(task, loader)


def read(dataset: BigEarthNet, count: int) -> dict[str, Tensor]:
    samples = [dataset[i] for i in range(count)]
    return {key: torch.stack([sample[key] for sample in samples]) for key in ("image", "label")}


def bare(network: torch.nn.Module, batch: dict[str, Tensor], precision: str, steps: Iterator[None]) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    criterion = torch.nn.BCEWithLogitsLoss()
    images, labels = batch["image"], batch["label"].float()
    network.train()
    for _ in steps:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = criterion(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
