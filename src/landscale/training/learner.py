"""One step: raw numbers in, updated weights out; and what of a step is carried on to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from landscale.distributed import Ranks
from landscale.errors import Diverged, UnknownName
from landscale.loading import Batch
from landscale.models.classifier import Classifier
from landscale.training.augmentation import Augmentation
from landscale.training.checkpoint import pack_optimizer, unpack_optimizer
from landscale.training.gradients import over_ranks
from landscale.training.losses import Loss
from landscale.training.recipe import Recipe
from landscale.training.speed import Speed

FUSED = ("sgd", "momentum", "adam", "adamw")  # torch's own, which update all weights in one kernel


class Learnt(NamedTuple):
    """loss: the mean over the patches of all ranks. signals: how many ranks want to stop."""

    loss: float
    signals: int


class Learner:
    """A classifier's network, its mean weights and its optimiser.

    Raises:
        UnknownName: no such optimiser.
    """

    def __init__(
        self, recipe: Recipe, classifier: Classifier, ranks: Ranks, device: torch.device, loss: Loss, speed: Speed
    ) -> None:
        if recipe.optimizer.lower().removeprefix("lookahead_") not in list_optimizers():
            raise UnknownName("optimizer", recipe.optimizer, map(str, list_optimizers()))
        self.recipe, self.ranks, self.device, self.loss, self.speed = recipe, ranks, device, loss, speed
        self.network = classifier.network
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = ModelEmaV3(self.network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        self.inputs = classifier.inputs
        self.parallel = over_ranks(self.network, ranks, device, recipe.compress, sync_norms=recipe.sync_norms)
        self.see, self.guess = speed.compiled(self.inputs), speed.compiled(self.parallel)
        fused: dict[str, Any] = {"fused": True} if recipe.optimizer.lower() in FUSED else {}
        self.optimizer = create_optimizer_v2(
            self.network,
            opt=recipe.optimizer,
            lr=recipe.rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
            **fused,
        )
        self.augment = Augmentation(recipe.turns, recipe.shift, recipe.zoom, recipe.jitter, recipe.mixup, recipe.cutmix)

    def learn(
        self,
        parts: Sequence[NDArray[np.int64]],
        batches: Iterator[Batch],
        step: int,
        rate: float,
        side: int,
        limit: float,
        signals: int = 0,
    ) -> Learnt:
        """Learn from some patches, part by part.

        Nothing random is carried from step to step: dropout and augmentation are functions of (seed, step, rank).

        Args:
            parts: the rows of all ranks. batches: gives this rank's batch of each part.
            side: pixels a side that the network sees at this stage.
            limit: a loss above it has exploded.
            signals: 1 if this rank wants to stop, which all are told.

        Raises:
            Diverged: on all ranks alike, before the update, when the loss has exploded or its gradient is not finite.
        """
        recipe, ranks = self.recipe, self.ranks
        torch.manual_seed(_seed(recipe.seed, step, ranks.rank))  # dropout
        generator = torch.Generator().manual_seed(_seed(recipe.seed + 1, step, ranks.rank))
        self.parallel.train()
        self.inputs.side = side
        total = torch.zeros((), device=self.device)
        sums = None
        patches = sum(map(len, parts))
        for k, batch in enumerate(islice(batches, len(parts)), 1):
            last = k == len(parts)
            with nullcontext() if last else self._alone():
                # DDP takes the mean over ranks: a rank with more patches than another weighs more
                loss = self._loss(batch, generator) * (len(batch.rows) * ranks.world / patches)
                total += loss.detach()
                if last:  # the backward pass hides that the ranks talk
                    ranks.report_progress(-1)
                    sums = ranks.begin_sum(torch.stack([total / ranks.world, total.new_tensor(float(signals))]))
                loss.backward()  # type: ignore[no-untyped-call]
        assert sums is not None
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = get_total_norm(gradients)
        number, signalled = sums()
        if not (number <= limit and bool(norm.isfinite())):  # the same on all ranks; NaN is not ≤
            self.optimizer.zero_grad()
            what = f"the loss of step {step + 1} is {number:.3g}, the norm of its gradient {norm.item():.3g}"
            raise Diverged(f"diverged, {what} at rate {rate:.2g}")
        if recipe.clip_grad:
            clip_grads_with_norm_(self.network.parameters(), recipe.clip_grad, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.network, step=step)
        return Learnt(number, round(signalled))

    def _loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        with torch.no_grad():
            values = self.see(batch.planes)
            values, wanted = self.augment(values, batch.targets, generator)
            values = values.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.speed.reduced):
            logits = self.guess(values)
        if logits.ndim > wanted.ndim:  # members that learn side by side (n, members, C)
            wanted = wanted[:, None].expand_as(logits)
        return self.loss(logits, wanted)

    def _alone(self) -> Any:
        """Gradients are added up here before they meet the other ranks'."""
        return self.parallel.no_sync() if isinstance(self.parallel, DistributedDataParallel) else nullcontext()

    @property
    def averaged(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.network if self.average is None else self.average.module

    @property
    def finite(self) -> bool:
        """Whether all weights are: an update may be too large even where its gradient was finite."""
        return bool(torch.stack([p.detach().isfinite().all() for p in self.network.parameters()]).all())

    def agree(self) -> None:
        """Norms saw another part of the batches on each rank; the first one's statistics are kept, so all use them."""
        for network in dict.fromkeys((self.network, self.averaged)):  # in the same order on all ranks
            self.ranks.broadcast_tensors(network.buffers())

    def pack(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors and numbers of a checkpoint."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        more, numbers = pack_optimizer(self.optimizer)
        return tensors | more, numbers

    def unpack(self, tensors: dict[str, Tensor], numbers: dict[str, float]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.network.load_state_dict(part("network."))
        if self.average is not None:
            self.average.module.load_state_dict(part("average."))
        unpack_optimizer(self.optimizer, tensors, numbers)


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
