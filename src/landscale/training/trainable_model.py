"""A network while it is trained: its optimiser, its averaged weights, and one update over all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2, list_optimizers
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from landscale.distributed import Ranks
from landscale.errors import Diverged, LandscaleError, UnknownName
from landscale.loading import PatchBatch
from landscale.models.classifier import Classifier
from landscale.models.shared_tensors import distinct_tensors, with_shared
from landscale.models.stages import check_layers
from landscale.training.augmentation import augment_with_maps, augmentation_at
from landscale.training.checkpoint import check_optimizer, pack_optimizer, unpack_optimizer
from landscale.training.frozen import Frozen
from landscale.training.gradients import over_ranks
from landscale.training.losses import Loss
from landscale.training.recipe import Recipe
from landscale.training.speed import Speed
from landscale.training.step import Augment, Readings, batch_loss, use_channels_last
from landscale.training.vicreg import Expanded, VicReg, expanded, two_views

# Optimisers of torch with `fused=True`, which update all weights in one kernel.
FUSED = ("sgd", "momentum", "adam", "adamw")
# Optimisers of timm that are refused, and why. Kron has a random generator that its `state_dict` does not hold.
UNSUITABLE = {
    **dict.fromkeys(("kron", "kronc", "kronw"), "a training with it could not be resumed"),
    "adahessian": "it needs second derivatives of the loss",
}


def reads_later(device: torch.device) -> bool:
    """Whether a step's loss is read one step later.

    The host queues work for a GPU ahead of time. If it read a number in every step, it would wait until the queue is empty.
    """
    return device.type == "cuda"


class StepResult(NamedTuple):
    """The numbers of a step.

    loss: the mean over the patches of all ranks. signals: how many ranks have received a signal to stop. figures: what the
    objective measures besides the loss, by name.
    """

    loss: float
    signals: int
    figures: Mapping[str, float] = {}


@dataclass
class Check:
    """The numbers of a step that decide whether it diverged: equal on all ranks, so that all raise or none.

    values: loss, `figures`, signals, norm of the gradient. limit: returns the largest loss that is no divergence; it is called
    when the numbers are read, because it depends on the loss of the first step.
    """

    step: int
    rate: float
    values: Readings
    limit: Callable[[], float]
    figures: tuple[str, ...] = ()

    def read(self) -> tuple[StepResult, Diverged | None]:
        """The step's result, and the error to raise if the loss exploded or the gradient is not finite."""
        loss, *measured, signals, norm = self.values.read()
        error = None
        if not (loss <= self.limit() and math.isfinite(norm)):  # NaN is not ≤
            what = f"the loss of step {self.step + 1} is {loss:.3g}, the norm of its gradient {norm:.3g}"
            error = Diverged(f"diverged, {what} at rate {self.rate:.2g}")
        return StepResult(loss, round(signals), dict(zip(self.figures, measured, strict=True))), error


class TrainableModel:
    """A classifier's network with its optimiser and its averaged weights.

    Raises:
        UnknownName: no such optimiser. LandscaleError: one of the `UNSUITABLE` optimisers, or the network does not
            list the stages or layers that the recipe needs.
    """

    def __init__(
        self, recipe: Recipe, classifier: Classifier, ranks: Ranks, device: torch.device, loss: Loss, speed: Speed
    ) -> None:
        optimizer = recipe.optimizer.lower().removeprefix("lookahead_")
        if optimizer not in list_optimizers():
            raise UnknownName("optimizer", recipe.optimizer, map(str, list_optimizers()))
        if optimizer in UNSUITABLE:
            raise LandscaleError(f"--optimizer {recipe.optimizer}: {UNSUITABLE[optimizer]}; choose another")
        self.recipe, self.ranks, self.device, self.loss, self.speed = recipe, ranks, device, loss, speed
        self.network = use_channels_last(_trained(classifier, recipe))
        self.average = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.inputs = classifier.inputs
        self.compiled_inputs = speed.compiled(self.inputs)
        self.frozen, self.frozen_stages = Frozen(recipe, self.network), -1
        self.optimizer = self._optimizer_of(self.network)
        self.freeze(0.0)
        self.augment = augmentation_at(recipe, 0.0)
        self.figures: tuple[str, ...] = loss.figures if isinstance(loss, VicReg) else ()
        self.unread: Check | None = None
        """numbers of the last step, if they are read one step later"""

    def freeze(self, progress: float) -> None:
        """Freeze what the recipe freezes when the fraction `progress` of the training is done. All ranks call it alike."""
        count, before = self.frozen.stages_at(progress), self.frozen_stages
        if count == before:
            return
        self.frozen_stages = count
        self.frozen.set_gradients(self.network, count)
        # DDP reduces the gradients of the parameters that had one when it was made.
        self.parallel: nn.Module = self.network  # the hooks of the one before end with it
        self.compiled_network: Callable[..., Any] = self.network
        synchronise = self.recipe.sync_norms and before < 0
        self.parallel = over_ranks(self.network, self.ranks, self.device, self.recipe.compress, sync_norms=synchronise)
        self.compiled_network = self.speed.compiled(self.parallel)

    def step(
        self,
        parts: Sequence[NDArray[np.int64]],
        batches: Iterator[PatchBatch],
        step: int,
        rate: float,
        side: int,
        limit: Callable[[], float],
        signals: int = 0,
    ) -> StepResult | None:
        """Update the weights once, with the gradients of some batches added up.

        Nothing random is carried from step to step: dropout and augmentation are functions of (seed, step, rank).

        Args:
            parts: one array of rows (of all ranks) per batch. batches: yields this rank's part of each.
            side: side of the network's input in pixels at this stage of the training.
            limit: returns the largest loss that is no divergence.
            signals: 1 if this rank has received a signal to stop; all ranks receive the sum.

        Returns:
            The result of this step. If numbers are read one step later (`reads_later`), that of the step before, or
            None in the first step and after `read_last_step`.

        Raises:
            Diverged: on all ranks alike, when the loss exploded or its gradient is not finite. It is raised before the
                update, or, if numbers are read later, in the next step, when the weights are already wrong.
        """
        recipe, ranks = self.recipe, self.ranks
        torch.manual_seed(_seed(recipe.seed, step, ranks.rank))  # dropout
        generator = torch.Generator().manual_seed(_seed(recipe.seed + 1, step, ranks.rank))
        self.parallel.train()
        self.frozen.fix_norms(self.network, self.frozen_stages)
        self.inputs.side = side
        total = torch.zeros(1 + len(self.figures), device=self.device)  # the loss, then the figures
        wait_for_sums: Callable[[], Tensor] | None = None
        patches = sum(map(len, parts))
        for k, (part, batch) in enumerate(zip(parts, islice(batches, len(parts)), strict=True), 1):
            last = k == len(parts)
            with nullcontext() if last else self._without_reduction():
                # DDP averages over ranks, so a rank with more patches than another needs a larger weight, unless the loss is
                # that of all ranks.
                weighed = len(part) if isinstance(self.loss, VicReg) else len(batch.rows) * ranks.world
                losses = self._loss(batch, generator).reshape(-1) * (weighed / patches)
                total += losses.detach()
                if last:  # the ranks exchange these numbers during the backward pass
                    ranks.report_progress(-1)
                    stopping = total.new_full((1,), float(signals))
                    wait_for_sums = ranks.begin_sum(torch.cat([total / ranks.world, stopping]))
                losses[0].backward()  # type: ignore[no-untyped-call]
        assert wait_for_sums is not None
        norm = get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        readings = Readings(torch.cat([wait_for_sums(), norm[None]]))
        result = self._check(Check(step, rate, readings, limit, self.figures))
        if recipe.clip_grad:
            clip_grads_with_norm_(self.network.parameters(), recipe.clip_grad, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network, step=step)
        return result

    def _check(self, check: Check) -> StepResult | None:
        if reads_later(self.device):
            result, self.unread = self.read_last_step(), check
            return result
        result, error = check.read()
        if error is not None:
            self.optimizer.zero_grad()
            raise error
        return result

    def read_last_step(self) -> StepResult | None:
        """The result of a step that has not been read yet, if there is one.

        All ranks call it after the same step, so that all raise or none.

        Raises:
            Diverged: that step diverged.
        """
        check, self.unread = self.unread, None
        if check is None:
            return None
        result, error = check.read()
        if error is not None:
            self.optimizer.zero_grad()
            raise error
        return result

    def _loss(self, batch: PatchBatch, generator: torch.Generator) -> Tensor:
        """The loss, a scalar, or (1 + figures,) with what is measured besides it."""
        of_maps = partial(augment_with_maps, self.augment) if self.recipe.task == "pixels" else self.augment
        augment: Augment = partial(of_maps, generator=generator)
        if isinstance(self.loss, VicReg):
            augment = partial(two_views, augment)
        return batch_loss(
            self.compiled_inputs,
            self.compiled_network,
            self.loss,
            batch.planes,
            batch.targets,
            reduced=self.speed.reduced,
            augment=augment,
        )

    def _without_reduction(self) -> Any:
        """A context in which gradients are added up on this rank and not yet averaged over ranks."""
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) else nullcontext()

    def _optimizer_of(self, network: nn.Module) -> torch.optim.Optimizer:
        recipe = self.recipe
        if recipe.layer_decay < 1:
            check_layers(network, "--layer-decay", recipe.model)
        self.frozen.set_gradients(network, self.frozen.stages_for_good)  # what is never trained is left out
        # Where training begins later for some weights, fused SGD fails, because only the others have a momentum.
        fuses = recipe.optimizer.lower() in FUSED and not recipe.unfreeze_every
        fused: dict[str, Any] = {"fused": True} if fuses else {}
        return create_optimizer_v2(
            network,
            opt=recipe.optimizer,
            lr=recipe.rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            layer_decay=recipe.layer_decay if recipe.layer_decay < 1 else None,
            **fused,
        )

    @property
    def averaged(self) -> nn.Module:
        """The network that is evaluated and saved: with averaged weights if the recipe has `ema`."""
        found = self.network if self.average is None else self.average.module
        return found.encoder if isinstance(found, Expanded) else found

    @property
    def finite(self) -> bool:
        """Whether all weights are finite. An update may overflow even if its gradient was finite."""
        return bool(torch.stack([p.detach().isfinite().all() for p in self.network.parameters()]).all())

    def share_norm_statistics(self) -> None:
        """Copy the batch-norm statistics of the first rank to all; each rank has computed its own from other patches."""
        for network in dict.fromkeys((self.network, self.averaged)):  # in the same order on all ranks
            self.ranks.broadcast_tensors(network.buffers())

    def pack(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors and numbers of a checkpoint."""
        tensors = {f"network.{k}": v for k, v in distinct_tensors(self.network).items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in distinct_tensors(self.average.module).items()}
        more, numbers = pack_optimizer(self.optimizer)
        return tensors | more, numbers

    def unpack(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        """Restore what `pack` returned.

        Raises:
            ValueError, RuntimeError: the tensors do not fit the network or the optimiser.
        """

        def load(module: nn.Module, prefix: str) -> None:
            part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            module.load_state_dict(with_shared(module, part))

        self.unread = None
        twin = deepcopy(self.network)
        fresh = self._optimizer_of(twin)
        later = {id(p) for name, p in twin.named_parameters() if self.frozen.begins_frozen(name)}
        check_optimizer(fresh, tensors, numbers, later)
        load(self.network, "network.")
        if self.average is not None:
            load(self.average.module, "average.")
        unpack_optimizer(self.optimizer, tensors, numbers)


def _trained(classifier: Classifier, recipe: Recipe) -> nn.Module:
    """The module that is trained: the classifier's network, without labels with an expander behind it."""
    if recipe.objective == "labels":
        return classifier.network
    side = classifier.description.side
    return expanded(classifier.network, (classifier.inputs.channels, side, side), recipe.expander, recipe.seed)


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
