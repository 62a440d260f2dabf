"""Training on a GPU: patches a second for each placement, eager and compiled, in less than 8 minutes.

    python benchmarks/gpu_training.py

A store of random patches (fewer than BigEarthNet's 269,695 to train on) is written first. Each network is trained in bf16 by the
Trainer of `landscale train`: store, input stage at 12×120×120, augmentation, step, checks. The fraction of time in which a step
waits for its batch is measured on the host. To try the script without a GPU: `--patches 64 --batch 4 --seconds 1`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rounds import record

from landscale.distributed import Ranks, local_device
from landscale.loading import PatchBatch, place, train_steps
from landscale.loading.placement import Placement
from landscale.store import SPLITS, WHOLE, Layout, PatchStore, Plane, StoreWriter, create_store, moments, open_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe
from landscale.training.runs import Run
from landscale.training.trainer import Trainer
from landscale.vocabulary.bands import band
from landscale.vocabulary.nomenclatures import nomenclature

MODELS = {"resnet50": 120, "wide_resnet_eca_b4": 90}  # network → side of its input in pixels
PLACEMENTS: tuple[Placement, ...] = ("disk", "memory", "device")
COMPILED: tuple[Literal["off", "on"], ...] = ("off", "on")
TRAIN = 269_695  # patches of BigEarthNet v1's official list
LIMIT = 420.0  # seconds after which no measurement is started
FLOORS = {
    "resnet50 memory-bound, unfused, H200 at 4.3 TB/s": 46_700,
    "resnet50 at 790 TFLOP/s (7.89 GFLOP forward and backward)": 790e12 / 7.89e9,
    "resnet50, MLPerf-class H100 figures translated": 21_600,
}
PLANES = (
    Plane("data_10m", ("B02", "B03", "B04", "B08"), 120, 10),
    Plane("data_20m", ("B05", "B06", "B07", "B8A", "B11", "B12"), 60, 20),
    Plane("data_60m", ("B01", "B09"), 20, 60),
)


def write_store(path: Path, patches: int) -> PatchStore:
    """Write a store that repeats the same thousand random patches. Each class is set in a tenth of the patches."""
    classes = nomenclature("ben19").names
    layout = Layout(PLANES, classes, "ben19", multi_label=True)
    rng = np.random.default_rng(0)
    part = min(patches, 1000)
    pixels: dict[str, Any] = {}
    for p in PLANES:
        means = np.array([300 + 10 * band(name).wavelength % 1700 for name in p.bands])[:, None, None]
        pixels[p.key] = rng.normal(means, 300, (part, *p.shape)).clip(0, 10_000).astype(np.uint16)
    sums = moments([pixels[p.key] for p in PLANES])
    columns = {
        "name": np.array([f"random_{k}" for k in range(patches)]),
        "split": np.full(patches, SPLITS.index("train"), np.uint8),
    }
    create_store(path, layout, columns, {"plan": f"random-{patches}", "provenance": '{"synthetic": true}'})
    writer = StoreWriter(path)
    for start in range(0, patches, part):
        n = min(part, patches - start)
        more: dict[str, Any] = {
            "classes": (rng.random((n, len(classes))) < 0.1).astype(np.uint8),
            "moments": sums[:n],
            "state": np.full(n, WHOLE, np.uint8),
        }
        writer.put(start, {**{key: values[:n] for key, values in pixels.items()}, **more})
    writer.finish()
    writer.close()
    return open_store(path)


class Waiting:
    """Iterates over batches and sums the seconds spent waiting for them."""

    def __init__(self, incoming: Iterator[PatchBatch]) -> None:
        self.incoming, self.seconds = incoming, 0.0

    def __iter__(self) -> Waiting:
        return self

    def __next__(self) -> PatchBatch:
        begun = time.perf_counter()
        batch = next(self.incoming)
        self.seconds += time.perf_counter() - begun
        return batch


def measure(trainer: Trainer, seconds: float) -> dict[str, float]:
    """Measure patches a second for about `seconds`, after a few steps that are not counted."""
    device, size = trainer.device, trainer.step_size
    order = np.random.default_rng(1).permutation(trainer.patches)
    steps = train_steps(np.concatenate([order] * (1 + 3000 * size // len(order))), size)
    incoming = Waiting(trainer.batches(steps))
    upcoming = iter(steps)

    def train_for(most: int, until: float) -> int:
        done = 0
        while done < most and time.perf_counter() < until:
            trainer.step([next(upcoming)], incoming)  # type: ignore[arg-type]
            trainer.state.step += 1
            done += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
        return done

    begun = time.perf_counter()
    train_for(5, float("inf"))  # warm-up: libraries choose kernels, graphs are compiled
    set_up = time.perf_counter() - begun
    incoming.seconds, begun = 0.0, time.perf_counter()
    done = train_for(len(steps) - 5, begun + seconds)
    took = time.perf_counter() - begun
    rate = done * size / took
    return {
        "patches_per_second": rate,
        "waiting_fraction": incoming.seconds / took,
        "set_up_seconds": set_up,
        "seconds_of_100_epochs": 100 * TRAIN / rate,
    }


def bare_step(trainer: Trainer, side: int, batch: int, seconds: float) -> float:
    """Measure patches a second of only forward pass, backward pass and update, on one batch on the device."""
    device, model = trainer.device, trainer.model
    values = torch.randn(batch, 12, side, side, device=device).contiguous(memory_format=torch.channels_last)
    targets = (torch.rand(batch, 19, device=device) < 0.1).float()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=model.speed.reduced):
            logits = model.compiled_network(values)
        model.loss(logits, targets).backward()  # type: ignore[no-untyped-call]
        model.optimizer.step()
        model.optimizer.zero_grad()

    for _ in range(3):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step()
        done += 1
        if device.type == "cuda" and done % 10 == 0:
            torch.cuda.synchronize()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return done * batch / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=24_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=8.0, help="seconds of each measurement")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--eager-only", action="store_true")
    options = parser.parse_args()
    begun = time.monotonic()
    device = local_device()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        store = write_store(Path(name) / "store.h5", options.patches)
        for model in options.models.split(","):
            side = MODELS.get(model, 120)
            for compiled in COMPILED[:1] if options.eager_only else COMPILED:
                if time.monotonic() - begun > LIMIT:
                    break
                recipe = replace(Recipe(), model=model, side=side, batch=options.batch, epochs=1000, compile=compiled)
                classifier = build_classifier(recipe, store).to(device)
                trainer = Trainer(recipe, store, Run(Path(name) / "run"), Ranks(), classifier, device)
                row: dict[str, Any] = {"model": model, "side": side, "compiled": compiled == "on"}
                for how in PLACEMENTS:
                    trainer.placed = place(
                        store, trainer.description.bands, False, trainer.patches, Ranks(), device, how
                    )
                    row[how] = measure(trainer, options.seconds)
                trainer.placed = None
                row["bare_step_patches_per_second"] = bare_step(trainer, side, options.batch, options.seconds / 2)
                row["bf16"] = trainer.model.speed.reduced
                if device.type == "cuda":
                    row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                rows.append(row)
                del trainer, classifier
    about = {"batch": options.batch, "patches": options.patches, "floors_patches_per_second": FLOORS}
    results = {"rows": rows, **about, "seconds": time.monotonic() - begun}
    if device.type == "cuda":
        record("gpu_training", results)
    else:
        print(json.dumps(results, indent=1))  # on a CPU, results are not recorded


if __name__ == "__main__":
    main()
