"""The training loop: for every epoch run its steps, evaluate, and save a checkpoint.

The order of patches, augmentation and dropout are pure functions of the seed and the step. So a checkpoint needs no random state,
and a training that was killed and resumed ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.errors import BadInput, Diverged, reason
from landscale.inference.evaluate import evaluate
from landscale.inference.metrics import Scores
from landscale.inference.pixel_scores import PixelScores
from landscale.loading import (
    PatchBatch,
    PlacedSplit,
    batches,
    epoch_order,
    labelled_patches,
    place,
    rare_class_weights,
    targets_by_name,
    train_steps,
)
from landscale.loading.reference import class_table, pixels_of_classes, with_pixel_targets
from landscale.models.classifier import Classifier
from landscale.models.input_units import compare_units, convert, store_source
from landscale.models.shared_tensors import distinct_tensors
from landscale.runtime.documents import typed
from landscale.runtime.progress import console, training_bar
from landscale.runtime.signals import Stopped, deferred_signals, ignore_scheduler_signals
from landscale.store import REFERENCE, PatchStore
from landscale.training.augmentation import augmentation_at
from landscale.training.build import check_training
from landscale.training.checkpoint import CheckpointWriter, TrainerCheckpoint, TrainingState, load_checkpoint
from landscale.training.losses import Loss, build_loss, build_pixel_loss
from landscale.training.messages import epoch_line, settings_line
from landscale.training.planner import Planner, seconds_of_evaluation
from landscale.training.recipe import Recipe
from landscale.training.results import write_results
from landscale.training.runs import Run
from landscale.training.schedule import highest_rate, rate_factor
from landscale.training.speed import fastest
from landscale.training.trainable_model import StepResult, TrainableModel
from landscale.training.vicreg import VicReg

EXPLODED = 100.0  # a loss this many times that of the first step is a divergence
MOST_HALVED = 10  # largest number of halvings of the rate after divergences, in all by a factor of 1024


class Trainer:
    """One training: its store, run folder, model and state. `fit`, then `finish`."""

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
        self.patches = labelled_patches(store, "train", self.description.classes)
        self.targets = targets_by_name(store, self.description.classes)
        self.validates = store.has_split("val") and bool(self.description.classes)
        check_training(recipe, store, self.description, ranks.world)
        self.step_size = recipe.batch * recipe.accumulate * ranks.world  # patches of a step, over all ranks
        self.state = TrainingState(total=self._steps_left(0, 0, self.step_size), ranks=ranks.world)
        self.highest_rate = highest_rate(recipe, ranks.world)
        self.weights = rare_class_weights(self.targets[self.patches], recipe.oversample) if recipe.oversample else None
        self.bands = (*self.description.bands, *((REFERENCE,) if self.description.pixels else ()))
        self.model = TrainableModel(recipe, classifier, ranks, device, self._build_loss(), fastest(recipe, device))
        source = store_source(store, self.description.bands, self.patches, stored=self.description.stored)
        self.compared = compare_units(self.description, source)
        """how pixels of the store become those that the classifier takes: an encoder may have other units"""
        self.writer = CheckpointWriter()
        self.placed: PlacedSplit | None = None

    # ---- the loop

    def fit(self) -> None:
        """Train for all remaining steps."""
        d, recipe = self.description, self.recipe
        self.placed = place(self.store, self.bands, d.stored, self.patches, self.ranks, self.device, recipe.placement)
        self.model.freeze(self.state.progress)
        self._announce()
        planner = self._planner()
        if self.ranks.first:
            self.note = self.run.events(len(self.state.history) + 1)
        if self.state.step == 0:
            self.save()  # a checkpoint to return to after a divergence
        with (
            deferred_signals(self.ranks.world == 1) as caught,
            training_bar(self.state.total, self.state.step, visible=self.ranks.first) as show,
        ):
            try:
                while self.state.epoch < recipe.epochs and (self.state.step < self.state.total or self.state.seen):
                    try:
                        self._epoch(planner, caught, show)
                    except Diverged as diverged:
                        self._back_off(diverged)
                self.writer.wait()
                if signalled := max(self.ranks.gather(caught())):  # in the last step or its evaluation
                    self._stop(signalled)
            finally:
                self.writer.close()

    def _epoch(
        self, planner: Planner | None, caught: Callable[[], int], show: Callable[[int, int, float, int], None]
    ) -> None:
        """Train for the remaining steps of an epoch, evaluate, and save a checkpoint.

        Raises:
            Diverged: on all ranks. Stopped: on all ranks, after a signal to any of them, when the state is saved.
        """
        state, stop = self.state, 0
        saved = clock = time.monotonic()
        steps = self._steps()
        incoming = self.batches([part for parts in steps for part in parts])
        for parts in steps:
            result = self.step(parts, incoming, caught())
            if self.ranks.world == 1:
                stop = caught()
            elif result is not None:  # by the sum over ranks, so that all stop after the same step
                stop = result.signals and (caught() or signal.SIGTERM)
            patches = sum(map(len, parts))
            state.step += 1
            state.seen += patches
            state.progress += (1 - state.progress) / (state.total - state.step + 1)
            if result is not None:
                state.add_loss(result.loss, result.figures)
            took, clock = time.monotonic() - clock, time.monotonic()
            state.epoch_seconds += took
            state.seconds += took
            if result is not None:
                show(state.step, state.total, result.loss, patches)
            if planner is not None and planner.is_early(state.step, state.seconds):
                self._plan(planner.total(state.step, state.seconds))
            if state.step >= state.total or parts is steps[-1]:
                break
            if stop:
                self._read_last_step()
                self._stop(stop)
            if clock - saved > 60 * self.recipe.save_minutes:
                self.save()
                saved = time.monotonic()
        self._read_last_step()
        evaluation = self.end_epoch(state.epoch + 1)
        state.epoch, state.seen = state.epoch + 1, 0
        state.epoch_loss, state.epoch_steps, state.epoch_seconds, state.epoch_figures = 0.0, 0, 0.0, {}
        took, clock = time.monotonic() - clock, time.monotonic()
        state.seconds += took
        if planner is not None and state.step < state.total:
            self._plan(planner.total_after_epoch(state.step, state.seconds, evaluation))
        self.save()
        # Saving waits for the checkpoint before, which takes most of a short epoch.
        state.seconds += time.monotonic() - clock
        if stop and state.step < state.total:
            self._stop(stop)

    def _steps(self) -> list[list[NDArray[np.int64]]]:
        """The remaining steps of this epoch. A step is a list of arrays of rows (of all ranks), one per accumulated batch."""
        order = epoch_order(self.patches, self.recipe.seed, self.state.epoch, self.weights)[self.state.seen :]
        if self.state.seen and len(order) < self.step_size:
            return []
        most = self.recipe.accumulate
        return [
            np.array_split(rows, min(most, len(rows) // self.ranks.world))
            for rows in train_steps(order, self.step_size)
        ]

    def batches(self, parts: Sequence[NDArray[np.int64]]) -> Iterator[PatchBatch]:
        d, factors = self.description, self.compared.factors
        incoming = batches(
            self.store,
            self.bands,
            self.targets,
            parts,
            self.device,
            upsampled=d.stored,
            ranks=self.ranks,
            placed=self.placed,
        )
        if d.pixels:
            table = torch.from_numpy(class_table(self.store, d.classes)).to(self.device)
            incoming = (with_pixel_targets(batch, table) for batch in incoming)
        return (replace(batch, planes=convert(batch.planes, factors)) for batch in incoming) if factors else incoming

    def _build_loss(self) -> Loss:
        recipe, d = self.recipe, self.description
        if recipe.objective == "vicreg":
            return VicReg(self.ranks.world)
        if d.pixels:
            pixels = pixels_of_classes(self.store, self.patches, d.classes)
            return build_pixel_loss(recipe, pixels, self.device)
        return build_loss(recipe, self.targets[self.patches], multi_label=d.multi_label, device=self.device)

    def step(
        self, parts: Sequence[NDArray[np.int64]], incoming: Iterator[PatchBatch], signalled: int = 0
    ) -> StepResult | None:
        """One step; returns what `TrainableModel.step` returns."""
        state = self.state
        self.ranks.report_progress(state.step)
        self.model.freeze(state.progress)
        self.model.augment = augmentation_at(self.recipe, state.progress)
        rate = self.highest_rate * rate_factor(self.recipe, state.progress) / 2**state.halved
        return self.model.step(parts, incoming, state.step, rate, self._side(), self._limit, int(signalled > 0))

    def _limit(self) -> float:
        """The largest loss that does not count as a divergence."""
        return math.inf if math.isnan(self.state.first_loss) else EXPLODED * self.state.first_loss

    def _read_last_step(self) -> None:
        """Count the loss of a step that has not been read yet. All ranks call it after the same step.

        Raises:
            Diverged: on all ranks.
        """
        result = self.model.read_last_step()
        if result is not None:
            self.state.add_loss(result.loss, result.figures)

    def _side(self) -> int:
        """The side of the network's input at this stage of the training. Evaluations during the stage use it too."""
        stages = (int(side) for until, side in self.recipe.progressive if self.state.progress < until)
        return next(stages, self.description.side)

    def end_epoch(self, epoch: int) -> float:
        """Evaluate, record the metrics, and save the best weights. Returns the seconds spent on the evaluation."""
        state, recipe, model = self.state, self.recipe, self.model
        if not model.finite:
            raise Diverged(f"diverged, weights are no longer finite after step {state.step}")
        model.share_norm_statistics()
        last = state.step >= state.total or epoch == recipe.epochs
        row: dict[str, Any] = {
            "epoch": epoch,
            "step": state.step,
            "seconds": round(state.seconds, 1),
            "train_seconds": round(state.epoch_seconds, 3),
            "rate": max(group["lr"] for group in model.optimizer.param_groups),
            "loss": state.epoch_loss / max(state.epoch_steps, 1),
        }
        row |= {name: total / state.epoch_steps for name, total in state.epoch_figures.items()}
        evaluation_seconds = 0.0
        if self.validates and ((epoch - 1) % recipe.evaluate_every == 0 or last):
            begun = time.monotonic()
            quick = self.classifier.variant(model.averaged, views=1, thresholds=())
            scores = evaluate(quick, self.store, "val", self.ranks, show=False, notes=False)
            evaluation_seconds = time.monotonic() - begun
            figures = scores.headline()
            row |= {f"val_{key}": value for key, value in figures.items()}
            if recipe.select != "last" and figures[recipe.select] > state.best:
                state.best = figures[recipe.select]
                if self.ranks.first:
                    self.writer.write(self.run.best, distinct_tensors(model.averaged), {"epoch": epoch})
        state.history.append(row)
        if self.ranks.first:
            self.run.write_history(state.history)
            self.note(row)
            if not console.is_terminal:
                console.print(epoch_line(row, state, recipe.epochs, state.seen), soft_wrap=True)
        return evaluation_seconds

    def finish(self) -> Scores | PixelScores | None:
        """Choose thresholds on the val split, score it with all views, write weights and scores."""
        self.classifier.inputs.side = self.description.side
        self.writer.wait()
        self.ranks.broadcast(None)  # the first rank has written the best weights
        trained = self.classifier.variant(self.model.averaged, self.recipe.views, ())
        steps = self.state.cut_short(self._steps_left(0, 0, self.step_size))
        return write_results(trained, self.recipe, self.store, self.run, self.ranks, self.device, steps, self.compared)

    # ---- interruptions

    def _stop(self, signalled: int) -> None:
        self.save()
        self.writer.wait()
        if self.ranks.world > 1:
            self.ranks.broadcast(None)
            ignore_scheduler_signals()
        done = f"stopped after step {self.state.step} of {self.state.total}; run the same command again to resume"
        raise Stopped(done if self.ranks.first else "", signalled)

    def _back_off(self, diverged: Diverged) -> None:
        """Go back to the last checkpoint and halve the rate.

        Raises:
            Diverged: the recipe stops on divergence, or the rate was halved MOST_HALVED times already.
        """
        self.writer.wait()
        self.ranks.broadcast(None)
        at, halved = f"{self.run.folder}: {diverged}", self.state.halved + 1
        if self.recipe.on_divergence == "stop" or halved > MOST_HALVED:
            raise Diverged(
                f"{at}; its checkpoint is finite. Lower --rate, lengthen --warmup-epochs or set --clip-grad in another"
                " --run, or resume from it at half the rate with --on-divergence backoff"
            )
        self.load()
        self.state.halved = halved
        self.save()
        self.writer.wait()
        if self.ranks.first:
            console.print(f"{at}: back to step {self.state.step}, at half the rate", markup=False, soft_wrap=True)

    # ---- the state

    def save(self) -> None:
        """Begin to write a checkpoint, unless the training has diverged, which all ranks find in the next step.

        If the numbers of the last step have not been read yet, only the first rank looks at them now, without raising or
        counting, because the other ranks do not do so at this point either.
        """
        if not self.ranks.first or not self.model.finite:
            return
        state = self.state
        if self.model.unread is not None:
            result, diverged = self.model.unread.read()
            if diverged is not None:
                return
            state = replace(state)
            state.add_loss(result.loss, result.figures)
        tensors, numbers = self.model.pack()
        self.writer.write(self.run.last, tensors, {"state": asdict(state), "optimizer": numbers}, self.recipe.keep)

    def load(self) -> None:
        """Load the last checkpoint. It may come from another number of ranks; no patch of its epoch is used twice."""
        tensors, saved = load_checkpoint(self.run.last, torch.device("cpu"))
        content = typed(self.run.last, saved, TrainerCheckpoint, "a checkpoint of this version")
        state = content.state
        try:
            self.model.unpack(tensors, dict(content.optimizer))
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(self.run.last, f"does not fit this training ({reason(error)})") from None
        if state.ranks != self.ranks.world:
            before = self.step_size // self.ranks.world * state.ranks
            steps, steps_before = (self._steps_left(state.epoch, state.seen, size) for size in (self.step_size, before))
            # --max-time may have planned fewer steps.
            planned = math.ceil((state.total - state.step) * steps / max(steps_before, 1))
            state.total = state.step + min(steps, planned)
            state.ranks = self.ranks.world
        self.state = state

    def _steps_left(self, epoch: int, seen: int, size: int) -> int:
        """Steps of `size` patches to the end of the recipe, when `seen` patches of `epoch` have been used."""
        n = len(self.patches)
        rest = (n - seen) // size if seen else max(n // size, 1)
        return max(0, rest + (self.recipe.epochs - epoch - 1) * max(n // size, 1))

    # ---- the plan

    def _plan(self, total: int) -> None:
        """Take the first rank's plan for the time limit, so that all ranks end after the same step."""
        self.state.total, self.state.limited = self.ranks.broadcast(total), True

    def _planner(self) -> Planner | None:
        if self.max_time is None:
            return None
        recipe, d, state = self.recipe, self.description, self.state
        begun = time.monotonic()
        started = begun - self.begun  # seconds before the first step
        evaluation = 0.0
        if self.validates:
            quick = self.classifier.variant(self.model.averaged, views=1, thresholds=())
            evaluation = seconds_of_evaluation(quick, self.store, self.ranks.world)
        state.seconds += time.monotonic() - begun
        return Planner(
            limit=self.max_time - started,
            longest=state.step + self._steps_left(state.epoch, state.seen, self.step_size),
            steps_an_epoch=max(len(self.patches) // self.step_size, 1),
            evaluations=1 / recipe.evaluate_every,
            scorings=recipe.views * (2 if d.multi_label else 1),
            evaluation=evaluation,
            begun=(state.step, state.seconds),
        )

    def _announce(self) -> None:
        if not self.ranks.first:
            return
        how = f"{self.model.speed.label} on {self.device.type}"
        how += f", {self.placed.description}" if self.placed is not None else ""
        network, patches = self.classifier.network, len(self.patches)
        line = settings_line(self.recipe, self.description, network, patches, self.ranks, how, self.state.step)
        console.print(line)
