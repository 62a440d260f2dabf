"""Train DSen2's networks, one after the other, on scenes without labels, within a time limit.

The learning rate follows the fraction of the network's time that has passed, so that training ends within the limit on slow
and on busy machines too. Batches are a function of (seed, step).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor

from landscale.errors import BadInput, Diverged
from landscale.models.classifier import reduced_precision
from landscale.runtime.progress import console, print_notes, training_bar
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.superres.network import DSen2, network_shape
from landscale.superres.samples import BATCH_SIZES, TrainingArea, draw_batch, read_training_areas
from landscale.superres.weights import read_superres_config, save_networks
from landscale.training.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer
from landscale.vocabulary.units import common_level

PLANNED_FRACTION = 0.9  # of the time limit; the rest is for reading, saving, and a machine that becomes slower
START_UP_SECONDS = 3.0  # reserved for starting and ending the interpreter
TIME_FRACTIONS = {20: 0.75, 60: 0.25}  # fraction of the time for each network
MAX_STEPS = {20: 60_000, 60: 20_000}  # more steps do not improve the networks
MAX_RATE, WARM_UP = 1e-3, 0.05  # highest learning rate, and the fraction of the training until it is reached
EMA_DECAY = 0.998
SAVE_EVERY = 60.0  # seconds between checkpoints, or a twentieth of the network's time if that is less


@dataclass
class NetworkProgress:
    """Steps of one network and the seconds they took, over all sessions."""

    steps: int = 0
    seconds: float = 0.0


@dataclass
class SuperresState:
    """Content of a checkpoint other than its tensors. A training can only be resumed with the same `settings`."""

    settings: dict[str, Any]
    done: dict[str, NetworkProgress] = field(default_factory=dict)


def train_superres(
    scenes: Sequence[Path],
    weights: Path,
    device: torch.device,
    seconds: float,
    *,
    deep: bool = False,
    seed: int = 0,
    offset: int | None = None,
) -> dict[str, Any]:
    """Train on scenes and write the weights. After an interruption, the same call resumes from the last checkpoint.

    Args:
        scenes: as for `scenes.scene.open_scene`; the network for 60 m is trained if all of them have its bands.
        weights: a new folder; until it is complete, the checkpoint is `<name>.checkpoint` in the same folder.
        device: where to train.
        seconds: time limit of all sessions together; training ends well within it.
        deep: VDSen2 instead of DSen2.
        seed: seed of the initial weights and of the batches.
        offset: that was added to the digital numbers of all scenes; by default that of their metadata or names.

    Returns:
        The provenance of the weights.

    Raises:
        BadInput: a scene cannot be used, or the folder or checkpoint belongs to another training.
        Diverged: the loss is not finite.
        Stopped: a signal arrived; the checkpoint is saved.
    """
    begun = time.monotonic()
    settings = {"scenes": [str(path.resolve()) for path in scenes], "deep": deep, "seed": seed}
    if offset is not None:
        settings["offset"] = offset
    if weights.exists() and (not weights.is_dir() or any(weights.iterdir())):
        provenance = read_superres_config(weights)["provenance"]
        if {key: provenance.get(key) for key in settings} != settings:
            raise BadInput(weights, "holds the weights of another training, choose another folder")
        console.print(f"{weights}: already complete")
        return dict(provenance)
    checkpoint = weights.with_name(f"{weights.name}.checkpoint")
    tensors, state = _resume(checkpoint, settings)
    areas = read_training_areas(scenes, offset)
    level = common_level(area.level for area in areas)
    if {"L1C", "L2A"} <= {area.level for area in areas}:
        print_notes([f"{weights}: warning: trained on scenes of levels L1C and L2A, between which the bands differ"])
    targets = [gsd for gsd in TIME_FRACTIONS if gsd in areas[0].bands]
    seconds = max(PLANNED_FRACTION * (seconds - START_UP_SECONDS) - (time.monotonic() - begun), 0.0)
    networks = {}
    for gsd in targets:
        budget = seconds * TIME_FRACTIONS[gsd] / sum(TIME_FRACTIONS[g] for g in targets)
        trainer = NetworkTrainer(gsd, device, budget, seed, deep=deep)
        trainer.load(tensors, state.done.get(str(gsd)))

        def save(trainer: NetworkTrainer = trainer) -> None:
            tensors.update(trainer.tensors())
            state.done[str(trainer.shape.gsd)] = trainer.progress
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(checkpoint, tensors, asdict(state))

        _fit(trainer, areas, save, weights)
        networks[gsd] = trainer.average.module
    provenance = settings | {f"steps_{gsd}m": state.done[str(gsd)].steps for gsd in targets}
    provenance |= {"seconds": round(sum(done.seconds for done in state.done.values()), 1)}
    save_networks(weights, networks, provenance, level)
    checkpoint.unlink(missing_ok=True)
    return provenance


def _resume(checkpoint: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], SuperresState]:
    if not checkpoint.exists():
        return {}, SuperresState(settings)
    tensors, saved = load_checkpoint(checkpoint, torch.device("cpu"))
    if saved.get("settings") != settings:
        raise BadInput(checkpoint, f"belongs to another training ({saved.get('settings')}); delete it to start again")
    return tensors, SuperresState(settings, {gsd: NetworkProgress(**done) for gsd, done in saved["done"].items()})


class NetworkTrainer:
    """A network, its optimiser, the moving average of its weights, and its progress."""

    def __init__(self, gsd: int, device: torch.device, budget: float, seed: int, *, deep: bool) -> None:
        torch.manual_seed(seed)
        self.shape, self.device, self.budget, self.seed = network_shape(gsd, deep=deep), device, budget, seed
        self.network = DSen2(self.shape).to(device)
        self.average = ModelEmaV3(self.network, decay=EMA_DECAY, use_warmup=True)
        self.optimizer = torch.optim.NAdam(self.network.parameters(), lr=MAX_RATE)
        self.reduced = reduced_precision(device.type)
        self.progress = NetworkProgress()

    @property
    def completed(self) -> float:
        """Fraction of the training that is done, in 0…1. It is 0 before the first step, for any time limit."""
        steps = self.progress.steps / MAX_STEPS[self.shape.gsd]
        return min(1.0, max(steps, self.progress.seconds / max(self.budget, 1e-9))) if self.progress.steps else 0.0

    def train_step(self, areas: Sequence[TrainingArea]) -> float:
        """One step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = MAX_RATE * warm_up_and_cosine(self.completed)
        batch = draw_batch(areas, self.shape, self.seed, self.progress.steps)
        inputs, target = (part.to(self.device) for part in batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            guess = self.network(inputs)
        loss = F.l1_loss(guess, target)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise Diverged(f"superres train: diverged, the loss of step {self.progress.steps + 1} is {value}")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average.update(self.network, step=self.progress.steps)
        self.progress.steps += 1
        return value

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and the optimiser's state, for a checkpoint."""
        prefix = f"{self.shape.gsd}m."
        values = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        values |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        values |= pack_optimizer(self.optimizer)[0]
        return {prefix + k: v for k, v in values.items()}

    def load(self, tensors: dict[str, Tensor], progress: NetworkProgress | None) -> None:
        """Restore what the method `tensors` returned in an earlier session; with progress None there was none."""
        if progress is None:
            return
        prefix = f"{self.shape.gsd}m."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        for name, module in (("network.", self.network), ("average.", self.average.module)):
            module.load_state_dict({k.removeprefix(name): v for k, v in own.items() if k.startswith(name)})
        unpack_optimizer(self.optimizer, own, {})
        self.progress = progress


def warm_up_and_cosine(completed: float) -> float:
    """Factor of the learning rate, in 0…1: linear warm-up, then a cosine to 0."""
    if completed < WARM_UP:
        return max(completed / WARM_UP, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (completed - WARM_UP) / (1 - WARM_UP)))


def _fit(trainer: NetworkTrainer, areas: Sequence[TrainingArea], save: Callable[[], None], weights: Path) -> None:
    """Train a network until its time or its maximum of steps is used up; save a checkpoint at intervals and at the end."""
    gsd = trainer.shape.gsd
    if trainer.completed >= 1:
        return
    console.print(
        f"{gsd} m → 10 m: {sum(p.numel() for p in trainer.network.parameters()) / 1e6:.2f} M parameters,"
        f" {'bf16' if trainer.reduced else 'fp32'} on {trainer.device.type},"
        f" {trainer.budget - trainer.progress.seconds:.0f} s"
    )
    before, begun = trainer.progress.seconds, time.monotonic()
    saved = begun
    with deferred_signals(True) as caught, training_bar(MAX_STEPS[gsd], trainer.progress.steps, visible=True) as show:
        while trainer.completed < 1:
            loss = trainer.train_step(areas)
            trainer.progress.seconds = before + time.monotonic() - begun
            planned = round(trainer.progress.steps / max(trainer.completed, 1e-9))
            show(trainer.progress.steps, planned, loss, BATCH_SIZES[gsd])
            if caught():
                save()
                steps = trainer.progress.steps
                raise Stopped(f"{weights}: stopped after {steps} steps; run the same command again to resume", caught())
            if time.monotonic() - saved > min(SAVE_EVERY, trainer.budget / 20):
                save()
                saved = time.monotonic()
    save()
