"""Training, top to bottom: prepare the parts, then for every step a batch, the input stage, the network, the update.

Order, augmentation and dropout are pure functions of the seed and the step, so a checkpoint needs no random state, and a
training that was killed ends with the weights of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim._optim_factory import create_optimizer_v2, list_optimizers
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from landscale.augment import Augmentation
from landscale.batches import Batch, batches, epoch_order, targets_by_name, train_steps
from landscale.checkpoint import State, load_checkpoint, pack_optimizer, save_checkpoint, unpack_optimizer
from landscale.distributed import Ranks
from landscale.errors import BadInput, BadStore, Diverged, LandscaleError, UnknownName
from landscale.evaluate import evaluate, infer
from landscale.files import read_json, write_json
from landscale.interrupt import Stopped, signals_wait
from landscale.metrics import choose_thresholds
from landscale.models.classifier import Classifier, reduced_precision
from landscale.models.pretrained import begin_from
from landscale.progress import console, training_bar
from landscale.recipe import Recipe
from landscale.runs import Run
from landscale.store import PatchStore
from landscale.train.build import build_classifier
from landscale.train.losses import build_loss
from landscale.train.planner import Planner
from landscale.train.schedule import highest_rate, rate_factor
from landscale.weights import save_weights


def train(
    recipe: Recipe, store: PatchStore, run: Run, ranks: Ranks, device: torch.device, max_time: float | None = None
) -> dict[str, Any]:
    """Train by a recipe on a store's train split, into a run folder; called again, go on where it was left.

    Args:
        max_time: seconds for all of it; the number of steps is planned to end well within.

    Returns:
        Scores on the val split, or without one an empty dict.

    Raises:
        BadStore: the store lacks the train split, a band or a class. Diverged: the loss is no longer finite.
        Stopped: by a signal, with the state saved.
    """
    begun = time.monotonic()
    classifier = build_classifier(recipe, store)
    resumes = run.ended or run.last.exists()  # then the weights are the checkpoint's, whatever they began from
    origin = begin_from(classifier, recipe.init) if recipe.init and not resumes else None
    trainer = Trainer(recipe, store, run, ranks, classifier.to(device), device, max_time, begun)
    if ranks.first:
        run.begin(recipe, store)  # what cannot be has been refused by now, and leaves no folder behind
        if origin is not None:
            write_json(run.folder / "init.json", origin)
            for line in origin["done"]:
                console.print(line, markup=False, highlight=False, soft_wrap=True)
    ranks.share(None)
    if run.ended:
        return run.scores()
    if run.last.exists():
        trainer.load()
    trainer.fit()
    return trainer.finish()


class Trainer:
    def __init__(
        self,
        recipe: Recipe,
        store: PatchStore,
        run: Run,
        ranks: Ranks,
        classifier: Classifier,
        device: torch.device,
        max_time: float | None = None,
        begun: float | None = None,
    ) -> None:
        self.begun = begun if begun is not None else time.monotonic()
        self.recipe, self.store, self.run, self.ranks = recipe, store, run, ranks
        self.classifier, self.device, self.max_time = classifier, device, max_time
        self.description = classifier.description
        self.patches = store.patches("train")
        self.targets = targets_by_name(store, self.description.classes)
        self.steps_an_epoch = len(train_steps(self.patches, recipe.batch, 0, ranks.world))
        self.validates = store.has_split("val")
        if not self.steps_an_epoch:
            raise BadStore(
                store.path, f"holds {len(self.patches)} patches to train on, fewer than {ranks.world} processes"
            )
        least = min([self.description.side, *(int(side) for _, side in recipe.progressive)])
        if recipe.shift >= least:
            raise LandscaleError(f"--shift: found {recipe.shift}, expected less than the input's {least} pixels")
        if recipe.select != "last" and not self.validates:
            raise BadStore(store.path, f"has no val split, which select={recipe.select} needs; use --select last")
        if recipe.select == "accuracy" and self.description.multi_label:
            raise UnknownName(
                "figure of a multi-label store", "accuracy", ("micro_f1", "macro_f1", "micro_ap", "macro_ap")
            )

        network = classifier.network
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module = DistributedDataParallel(network) if ranks.world > 1 else network
        self.average = ModelEmaV3(network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        if recipe.optimizer.lower().removeprefix("lookahead_") not in list_optimizers():
            raise UnknownName("optimizer", recipe.optimizer, map(str, list_optimizers()))
        self.optimizer = create_optimizer_v2(
            network, opt=recipe.optimizer, lr=recipe.rate, weight_decay=recipe.weight_decay, momentum=recipe.momentum
        )
        self.highest_rate = highest_rate(recipe, ranks.world)
        multi_label = self.description.multi_label
        self.loss = build_loss(recipe, self.targets[self.patches], multi_label=multi_label, device=device)
        self.augment = Augmentation(recipe.turns, recipe.shift, recipe.zoom, recipe.jitter, recipe.mixup, recipe.cutmix)
        self.reduced = recipe.precision == "bf16" or (recipe.precision == "auto" and reduced_precision(device.type))
        self.state = State(total=recipe.epochs * self.steps_an_epoch, ranks=ranks.world)

    # ---- the loop

    def fit(self) -> None:
        recipe, state = self.recipe, self.state
        self._announce()
        planner = self._planner()
        if self.ranks.first:
            self.note = self.run.events(len(state.history) + 1)
        saved = clock = time.monotonic()
        with (
            signals_wait(self.ranks.world == 1) as caught,
            training_bar(state.total, state.step, visible=self.ranks.first) as show,
        ):
            while state.step < state.total:
                epoch, position = divmod(state.step, self.steps_an_epoch)
                order = epoch_order(self.patches, recipe.seed, epoch)
                steps = train_steps(order, recipe.batch, self.ranks.rank, self.ranks.world)[position:]
                for batch in self.batches(steps):
                    loss = self.learn(batch)
                    state.step += 1
                    state.progress += (1 - state.progress) / (state.total - state.step + 1)
                    state.loss += loss
                    state.seconds, clock = state.seconds + time.monotonic() - clock, time.monotonic()
                    show(state.step, state.total, loss, len(batch.rows) * self.ranks.world)
                    if planner is not None and planner.is_early(state.step, state.seconds):
                        state.total = self.ranks.share(planner.total(state.step, state.seconds))
                    if state.step >= state.total or state.step % self.steps_an_epoch == 0:
                        break
                    if caught():
                        self.save()
                        raise Stopped(f"stopped after step {state.step} of {state.total}; the same command goes on")
                    if clock - saved > 60 * recipe.save_minutes:
                        self.save()
                        saved = time.monotonic()
                evaluation = self.end_epoch(epoch + 1)
                state.seconds, clock = state.seconds + time.monotonic() - clock, time.monotonic()
                if planner is not None and state.step < state.total:
                    state.total = self.ranks.share(planner.total_after_epoch(state.step, state.seconds, evaluation))
                self.save()
                saved = time.monotonic()
                if caught() and state.step < state.total:
                    raise Stopped(f"stopped after epoch {epoch + 1}; the same command goes on")

    def batches(self, steps: list[NDArray[np.int64]]) -> Iterator[Batch]:
        d = self.description
        return batches(self.store, d.bands, self.targets, steps, self.device, upsampled=d.stored)

    def learn(self, batch: Batch) -> float:
        """One step: raw numbers in, updated weights out. Returns the loss."""
        recipe, state = self.recipe, self.state
        torch.manual_seed(_seed(recipe.seed, state.step, self.ranks.rank))  # dropout
        generator = torch.Generator().manual_seed(_seed(recipe.seed + 1, state.step, self.ranks.rank))
        rate = self.highest_rate * rate_factor(recipe, state.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

        self.network.train()
        with torch.no_grad():
            self.classifier.inputs.side = self._side()
            values = self.classifier.inputs(batch.planes)
            values, wanted = self.augment(values, batch.targets, generator)
            values = values.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.reduced):
            logits = self.network(values)
        if logits.ndim > wanted.ndim:  # members that learn side by side (n, members, C)
            wanted = wanted[:, None].expand_as(logits)
        loss: Tensor = self.loss(logits, wanted)
        number = self.ranks.mean(loss)  # of all ranks, which then diverge together
        if not math.isfinite(number):
            raise Diverged(
                f"{self.run.folder}: diverged, the loss of step {state.step + 1} is {number} at rate {rate:.2g};"
                " lower --rate or lengthen --warmup-epochs"
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip_grad)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.classifier.network, step=state.step)
        return number

    def _side(self) -> int:
        """The side of patches at this stage of the training; the evaluations during it are at the same."""
        stages = (int(side) for until, side in self.recipe.progressive if self.state.progress < until)
        return next(stages, self.description.side)

    def end_epoch(self, epoch: int) -> float:
        """Evaluate, note the epoch, keep the best weights. Returns the seconds that the evaluation took."""
        state, recipe = self.state, self.recipe
        if not all(p.isfinite().all() for p in self.classifier.network.parameters()):
            raise Diverged(
                f"{self.run.folder}: diverged, weights are no longer finite after step {state.step}; lower --rate"
            )
        # Norms saw another part of the batches on each rank; the first one's statistics are kept, so all use them.
        for network in (self.classifier.network, self.averaged()):
            self.ranks.adopt(network.buffers())
        last = state.step >= state.total
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": state.step,
            "seconds": round(state.seconds, 1),
            "rate": self.optimizer.param_groups[0]["lr"],
            "loss": state.loss / max((state.step - 1) % self.steps_an_epoch + 1, 1),
        }
        state.loss = 0.0
        evaluation_seconds = 0.0
        if self.validates and (epoch % recipe.evaluate_every == 0 or last):
            begun = time.monotonic()
            quick = self.classifier_with(self.averaged(), views=1, thresholds=())
            figures = evaluate(quick, self.store, "val", self.ranks, show=False)
            evaluation_seconds = time.monotonic() - begun
            keys = ("micro_f1", "macro_f1", "micro_ap", "macro_ap", "accuracy")
            row |= {f"val_{key}": figures[key] for key in keys if key in figures}
            if recipe.select != "last" and figures[recipe.select] > state.best:
                state.best = figures[recipe.select]
                if self.ranks.first:
                    save_checkpoint(self.run.best, self.averaged().state_dict(), {"epoch": epoch})
        state.history.append(row)
        if self.ranks.first:
            self.run.write_history(state.history)
            self.note(row)
        return evaluation_seconds

    def finish(self) -> dict[str, Any]:
        """Choose thresholds on val, score it with all views, write weights and scores."""
        recipe = self.recipe
        self.classifier.inputs.side = self.description.side
        self.ranks.share(None)  # the first rank has written the best weights
        network = self.averaged()
        if recipe.select != "last" and self.run.best.exists():
            network.load_state_dict(load_checkpoint(self.run.best, self.device)[0])
        classifier = self.classifier_with(network, recipe.views, ())
        figures: dict[str, Any] = {}
        if self.validates:
            patches = self.store.patches("val")
            if self.description.multi_label:
                probabilities = infer(classifier, self.store, patches, self.ranks, show=False)
                thresholds = choose_thresholds(probabilities, self.targets[patches], recipe.thresholds)
                classifier = self.classifier_with(network, recipe.views, tuple(float(t) for t in thresholds))
            figures = evaluate(classifier, self.store, "val", self.ranks)
        if self.ranks.first:
            provenance = self.store.attributes["provenance"]
            about = {"recipe": recipe.name, "seed": recipe.seed, "store": provenance, "scores": figures}
            if (self.run.folder / "init.json").exists():
                about["init"] = read_json(self.run.folder / "init.json")
            save_weights(self.run.weights, classifier, about | {"synthetic": bool(provenance.get("synthetic"))})
            write_json(self.run.folder / "scores.json", figures)
        return figures

    # ---- the state

    def averaged(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.classifier.network if self.average is None else self.average.module

    def classifier_with(self, network: nn.Module, views: int, thresholds: tuple[float, ...]) -> Classifier:
        """This classifier with other parameters, views and thresholds, in eval mode; nothing is copied."""
        twin = Classifier.__new__(Classifier)
        nn.Module.__init__(twin)
        twin.description = replace(self.description, views=views, thresholds=thresholds)
        twin.inputs, twin.network = self.classifier.inputs, network
        return twin.eval()

    def save(self) -> None:
        if not self.ranks.first:
            return
        tensors = {f"network.{k}": v for k, v in self.classifier.network.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{k}": v for k, v in self.average.module.state_dict().items()}
        more, numbers = pack_optimizer(self.optimizer)
        save_checkpoint(self.run.last, tensors | more, {"state": asdict(self.state), "optimizer": numbers})

    def load(self) -> None:
        tensors, saved = load_checkpoint(self.run.last, torch.device("cpu"))
        if saved["state"]["ranks"] != self.ranks.world:
            begun = f"{saved['state']['ranks']} process{'es' if saved['state']['ranks'] > 1 else ''}"
            raise BadInput(
                self.run.last, f"was begun by {begun}, not {self.ranks.world}; start as many, or choose another --run"
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.classifier.network.load_state_dict(part("network."))
        if self.average is not None:
            self.average.module.load_state_dict(part("average."))
        unpack_optimizer(self.optimizer, tensors, saved["optimizer"])
        self.state = State(**saved["state"])

    def _planner(self) -> Planner | None:
        if self.max_time is None:
            return None
        recipe, d = self.recipe, self.description
        begun = time.monotonic()
        started = begun - self.begun  # what it took to come here
        evaluation = self._measure_evaluation()
        self.state.seconds += time.monotonic() - begun
        return Planner(
            limit=self.max_time - started,
            longest=recipe.epochs * self.steps_an_epoch,
            steps_an_epoch=self.steps_an_epoch,
            evaluations=1 / recipe.evaluate_every,
            scorings=recipe.views * (2 if d.multi_label else 1),
            evaluation=evaluation,
            begun=(self.state.step, self.state.seconds),
        )

    def _measure_evaluation(self) -> float:
        """Seconds that an evaluation of the val split takes, from two batches of it after a first one."""
        if not self.validates:
            return 0.0
        patches = self.store.patches("val")
        quick = self.classifier_with(self.averaged(), views=1, thresholds=())
        infer(quick, self.store, patches[:64], Ranks(), show=False)
        begun = time.monotonic()
        infer(quick, self.store, patches[:128], Ranks(), show=False)
        return (time.monotonic() - begun) * len(patches) / len(patches[:128]) / self.ranks.world

    def _announce(self) -> None:
        if not self.ranks.first:
            return
        d, recipe, state = self.description, self.recipe, self.state
        millions = sum(p.numel() for p in self.classifier.network.parameters()) / 1e6
        begun = f", goes on at step {state.step}" if state.step else ""
        console.print(
            f"[bold]{recipe.name}[/]: {d.model} ({millions:.2f} M parameters), {len(d.bands)} bands at {d.side} px,"
            f" {len(d.classes)} classes; {len(self.patches):,} patches, {self.ranks.world}×{recipe.batch} a step,"
            f" rate {self.highest_rate:.3g}, {'bf16' if self.reduced else 'fp32'} on {self.device.type}{begun}"
        )


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
