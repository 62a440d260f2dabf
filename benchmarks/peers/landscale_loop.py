"""The contender landscale: the loop of `landscale train` on a CPU (store on the disk, input stage, augmentation, step, checks).

landscale_loop.py STORE MODEL BATCH auto|fp32
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from contender import turns

from landscale.distributed import Ranks
from landscale.loading import epoch_order, train_steps
from landscale.store import open_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from landscale.training.trainer import Trainer

EPOCHS = 1000


def main(path: Path, model: str, batch: int, precision: Literal["auto", "fp32"]) -> None:
    store, device = open_store(path), torch.device("cpu")
    recipe = replace(Recipe(), model=model, batch=batch, epochs=EPOCHS, placement="disk", precision=precision)
    trainer = Trainer(
        recipe, store, Run(path.with_name(f"run-{precision}")), Ranks(), build_classifier(recipe, store), device
    )
    orders = [epoch_order(trainer.patches, recipe.seed, epoch) for epoch in range(EPOCHS)]
    steps = train_steps(np.concatenate(orders), batch)
    incoming = trainer.batches(steps)
    description = {
        "patches": len(trainer.patches),
        "labels": int(trainer.targets[trainer.patches].sum()),
        "precision": trainer.model.speed.label,
        "threads": torch.get_num_threads(),
    }
    for rows, _ in zip(steps, turns(description), strict=False):
        trainer.step([rows], incoming)
        trainer.state.step += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])  # type: ignore[arg-type]
