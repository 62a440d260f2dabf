"""Training of the networks, one after the other, on scenes without labels, within a time.

The clock drives the schedule: what share of a network's time is gone is what share of its learning is done. So it ends when it
should on any machine, however busy. The batches are a function of (seed, step).
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
from landscale.runtime.progress import console, training_bar
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.superres.network import DSen2, shape
from landscale.superres.samples import BATCH, Ground, draw, read_grounds
from landscale.superres.weights import read_superres_config, save_networks
from landscale.training.checkpoint import load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer

SHARE = 0.9  # of the time that is planned for; the rest is for reading, saving, and a machine that slows down
ASIDE = 3.0  # seconds that the interpreter takes to start and to end
TIME = {20: 0.75, 60: 0.25}  # of it for each network
MOST_STEPS = {20: 60_000, 60: 20_000}  # where there is time for more, they bring nothing
RATE, WARM_UP = 1e-3, 0.05  # the highest rate, and the share of steps until it is reached
AVERAGE = 0.998  # decay of the mean weights
SAVE_EVERY = 60.0  # seconds, or a twentieth of a short training


@dataclass
class Progress:
    """Of one network: steps done, seconds spent on them, over all sessions."""

    steps: int = 0
    seconds: float = 0.0


@dataclass
class State:
    """What a checkpoint says beside its tensors. `settings` must be the same when the training goes on."""

    settings: dict[str, Any]
    done: dict[str, Progress] = field(default_factory=dict)


def train(
    scenes: Sequence[Path], weights: Path, device: torch.device, seconds: float, *, deep: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Train on scenes and write the weights; called again after an end by force, go on from the last checkpoint.

    Args:
        scenes: folders, .SAFE or .mat files; the network for 60 m is trained if all of them have its bands.
        weights: a new folder; until it is there, the state is beside it in `<name>.checkpoint`.
        device: where to learn.
        seconds: for all sessions together; the training ends well within.
        deep: VDSen2 instead of DSen2.
        seed: of first weights and batches.

    Returns:
        The weights' provenance.

    Raises:
        BadInput: scenes that cannot be used; a folder or checkpoint of another training. Diverged. Stopped: by a signal.
    """
    begun = time.monotonic()
    settings = {"scenes": [str(path.resolve()) for path in scenes], "deep": deep, "seed": seed}
    if weights.exists() and (not weights.is_dir() or any(weights.iterdir())):
        provenance = read_superres_config(weights)["provenance"]
        if {key: provenance.get(key) for key in settings} != settings:
            raise BadInput(weights, "holds the weights of another training, choose another folder")
        console.print(f"{weights}: complete already")
        return dict(provenance)
    checkpoint = weights.with_name(f"{weights.name}.checkpoint")
    tensors, state = _resume(checkpoint, settings)
    grounds = read_grounds(scenes)
    targets = [gsd for gsd in TIME if gsd in grounds[0].bands]
    seconds = max(SHARE * (seconds - ASIDE) - (time.monotonic() - begun), 0.0)
    networks = {}
    for gsd in targets:
        budget = seconds * TIME[gsd] / sum(TIME[g] for g in targets)
        learner = Learner(gsd, device, budget, seed, deep=deep)
        learner.load(tensors, state.done.get(str(gsd)))

        def save(learner: Learner = learner) -> None:
            tensors.update(learner.tensors())
            state.done[str(learner.shape.gsd)] = learner.progress
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(checkpoint, tensors, asdict(state))

        _fit(learner, grounds, save, weights)
        networks[gsd] = learner.average.module
    provenance = settings | {f"steps_{gsd}m": state.done[str(gsd)].steps for gsd in targets}
    provenance |= {"seconds": round(sum(done.seconds for done in state.done.values()), 1)}
    save_networks(weights, networks, provenance)
    checkpoint.unlink(missing_ok=True)
    return provenance


def _resume(checkpoint: Path, settings: dict[str, Any]) -> tuple[dict[str, Tensor], State]:
    if not checkpoint.exists():
        return {}, State(settings)
    tensors, saved = load_checkpoint(checkpoint, torch.device("cpu"))
    if saved.get("settings") != settings:
        raise BadInput(checkpoint, f"is of another training ({saved.get('settings')}); delete it to begin anew")
    return tensors, State(settings, {gsd: Progress(**done) for gsd, done in saved["done"].items()})


class Learner:
    """A network, its optimiser, its mean weights, and how far it is."""

    def __init__(self, gsd: int, device: torch.device, budget: float, seed: int, *, deep: bool) -> None:
        torch.manual_seed(seed)
        self.shape, self.device, self.budget, self.seed = shape(gsd, deep=deep), device, budget, seed
        self.network = DSen2(self.shape).to(device)
        self.average = ModelEmaV3(self.network, decay=AVERAGE, use_warmup=True)
        self.optimizer = torch.optim.NAdam(self.network.parameters(), lr=RATE)
        self.reduced = reduced_precision(device.type)
        self.progress = Progress()

    @property
    def share(self) -> float:
        """How much of the training is done, in 0…1. There is at least one step."""
        steps = self.progress.steps / MOST_STEPS[self.shape.gsd]
        return min(1.0, max(steps, self.progress.seconds / max(self.budget, 1e-9))) if self.progress.steps else 0.0

    def learn(self, grounds: Sequence[Ground]) -> float:
        """One step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * rate_factor(self.share)
        inputs, target = (part.to(self.device) for part in draw(grounds, self.shape, self.seed, self.progress.steps))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            guess = self.network(inputs)
        loss = F.l1_loss(guess, target)
        number = float(loss.detach())
        if not math.isfinite(number):
            raise Diverged(f"superres train: diverged, the loss of step {self.progress.steps + 1} is {number}")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.average.update(self.network, step=self.progress.steps)
        self.progress.steps += 1
        return number

    def tensors(self) -> dict[str, Tensor]:
        prefix = f"{self.shape.gsd}m."
        values = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        values |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        values |= pack_optimizer(self.optimizer)[0]
        return {prefix + k: v for k, v in values.items()}

    def load(self, tensors: dict[str, Tensor], progress: Progress | None) -> None:
        """Take what `tensors` gave, where a checkpoint has it."""
        if progress is None:
            return
        prefix = f"{self.shape.gsd}m."
        own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        for name, module in (("network.", self.network), ("average.", self.average.module)):
            module.load_state_dict({k.removeprefix(name): v for k, v in own.items() if k.startswith(name)})
        unpack_optimizer(self.optimizer, own, {})
        self.progress = progress


def rate_factor(share: float) -> float:
    """Share of the highest rate: linear warm-up, then a cosine to 0."""
    if share < WARM_UP:
        return max(share / WARM_UP, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


def _fit(learner: Learner, grounds: Sequence[Ground], save: Callable[[], None], weights: Path) -> None:
    """Steps until the learner's time is over, saved at intervals and at the end."""
    gsd = learner.shape.gsd
    if learner.share >= 1:
        return
    console.print(
        f"[bold]{gsd} m → 10 m[/]: {sum(p.numel() for p in learner.network.parameters()) / 1e6:.2f} M parameters,"
        f" {'bf16' if learner.reduced else 'fp32'} on {learner.device.type}, {learner.budget - learner.progress.seconds:.0f} s"
    )
    before, begun = learner.progress.seconds, time.monotonic()
    saved = begun
    with deferred_signals(True) as caught, training_bar(MOST_STEPS[gsd], learner.progress.steps, visible=True) as show:
        while learner.share < 1:
            loss = learner.learn(grounds)
            learner.progress.seconds = before + time.monotonic() - begun
            planned = round(learner.progress.steps / max(learner.share, 1e-9))
            show(learner.progress.steps, planned, loss, BATCH[gsd])
            if caught():
                save()
                raise Stopped(
                    f"{weights}: stopped after {learner.progress.steps} steps; the same command goes on", caught()
                )
            if time.monotonic() - saved > min(SAVE_EVERY, learner.budget / 20):
                save()
                saved = time.monotonic()
    save()
