"""The whole training loop (store, input stage, step, progress) against the bare step on one fixed batch, and against eager fp32.

    python benchmarks/training_loop.py

ResNet-50, 12 bands at 120 px, 19 classes, batches of 32, on whatever device is there.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from rounds import interleaved, record

from landscale import distributed
from landscale.batches import epoch_order, train_steps
from landscale.distributed import Ranks
from landscale.prepare import prepare
from landscale.recipe import Recipe
from landscale.runs import Run
from landscale.sources import bigearthnet, synthetic
from landscale.store import open_store
from landscale.train import Trainer
from landscale.train.build import build_classifier

BATCH, STEPS = 32, 8


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthetic.write_archive(folder / "archive", patches=600)
        prepare(bigearthnet.survey([(None, folder / "archive")]), folder / "store.h5", workers=2)
        store = open_store(folder / "store.h5")
        device = distributed.device()
        recipe = replace(Recipe(), model="resnet50", batch=BATCH, epochs=1000)
        trainer = Trainer(
            recipe, store, Run(folder / "run"), Ranks(), build_classifier(recipe, store).to(device), device
        )
        epochs = iter(range(10**6))

        def loop() -> int:
            steps = train_steps(epoch_order(trainer.patches, 0, next(epochs)), BATCH)[:STEPS]
            incoming = trainer.batches(steps)
            for rows in steps:
                trainer.learn([rows], incoming)
                trainer.state.step += 1
            return len(steps) * BATCH

        x = torch.randn(BATCH, 12, 120, 120, device=device).contiguous(memory_format=torch.channels_last)
        y = torch.rand(BATCH, 19, device=device).round()
        bare = timm.create_model("resnet50", in_chans=12, num_classes=19).to(device, memory_format=torch.channels_last)
        eager = timm.create_model("resnet50", in_chans=12, num_classes=19).to(device)

        def steps_of(net: torch.nn.Module, values: torch.Tensor, reduced: bool) -> int:
            optimizer = optimizers[id(net)]
            net.train()
            for _ in range(STEPS):
                with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                    logits = net(values)
                loss = F.binary_cross_entropy_with_logits(logits.float(), y)
                loss.item()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return STEPS * BATCH

        optimizers = {id(net): torch.optim.AdamW(net.parameters(), 1e-3) for net in (bare, eager)}
        rates = interleaved(
            {
                "loop": loop,
                "bare_step": lambda: steps_of(bare, x, trainer.learner.speed.reduced),
                "eager_fp32": lambda: steps_of(eager, x.contiguous(), reduced=False),
            },
            rounds=5,
        )
        ratios = {
            "loop_over_bare_step": rates["loop"] / rates["bare_step"],
            "loop_over_eager_fp32": rates["loop"] / rates["eager_fp32"],
        }
        record(
            "training_loop",
            {"patches_per_second": rates, "ratios": ratios, "batch": BATCH, "speed": trainer.learner.speed.told},
        )


if __name__ == "__main__":
    main()
