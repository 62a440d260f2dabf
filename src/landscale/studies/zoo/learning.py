"""Check that every network learns: train it for some steps on the same few patches, on which the loss must fall."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.optim import create_optimizer_v2

from landscale.datasets.synthetic import bigearthnet_archive as synthetic
from landscale.distributed import local_device
from landscale.errors import BadStore, Diverged, reason
from landscale.loading import batches, epoch_order, targets_by_name
from landscale.models.classifier import reduced_precision
from landscale.models.registry import ZooEntry, zoo
from landscale.preparation import prepare_survey
from landscale.runtime.documents import write_json
from landscale.runtime.progress import progress_bar
from landscale.runtime.signals import Stopped, deferred_signals
from landscale.store import PatchStore, open_store
from landscale.studies.results import Results, needs_row, open_results, put_row
from landscale.training.build import build_classifier
from landscale.training.losses import mean_binary_loss
from landscale.training.recipe import Recipe
from landscale.training.step import plain_step, use_channels_last
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.nomenclatures import nomenclature

TASKS = (
    ("s2-10", "ben19"),
    ("s2-12", "clc43"),
)  # bands and classes of Papoutsis et al. 2022, and of Sedona et al. 2019
RATES = {"vgg": 1e-4}  # AdamW's rate by family; without normalisation layers, the rate of the recipes is too high
# Largest last loss of a network that learns, over the lowest loss of a prediction that is the same for all patches. Only a
# network that distinguishes the patches gets below 1; the margin is for dropout, which alone changes the loss by some per cent.
LEARNT_RATIO = 0.9
LEAST_STEPS = 4  # so that there is a first and a last quarter


@dataclass(frozen=True)
class RepeatedBatch:
    """The patches `rows` of a store, used in each of `steps` training steps."""

    store: PatchStore
    rows: NDArray[np.int64]
    steps: int


def measure_learning(names: Sequence[str], out: Path, path: Path | None, steps: int, batch: int) -> Results:
    """Train the networks that are not in `out` yet, on both `TASKS`.

    Args:
        path: a store with the classes of clc43; None: a store of a synthetic landscape is made and deleted afterwards.
        steps: at least `LEAST_STEPS`.
        batch: number of patches, the same ones in every step.

    Returns:
        The content of `out`. `models`: rows of `name`, `family`, `bands`, `classes` and the values of
        `train_on_repeated_batch`, or the reason why the network `failed`.

    Raises:
        BadInput: `out` contains results of other settings or of another machine.
        UnknownName: there is no such network.
        BadStore: the store has too few patches to train on, or lacks a band or class.
        Stopped: a signal came; the network that was being trained is in `out`.
    """
    entries = [zoo(name)[0] for name in dict.fromkeys(names)]
    place = local_device()
    settings = {"device": place.type, "steps": steps, "batch": batch, "store": str(path) if path else "synthetic"}
    content = open_results(out, "learning", settings, ("models",))
    rows: list[Results] = content["models"]
    with (
        _store(path, batch) as store,
        deferred_signals(alone=True) as caught,
        progress_bar("learning", len(entries) * len(TASKS), "trainings") as advance,
    ):
        repeated = RepeatedBatch(store, _draw_batch(store, batch), steps)
        for entry, (bands, labels) in product(entries, TASKS):
            sizes = {"bands": len(band_set(bands).names), "classes": len(nomenclature(labels).names)}
            key = {"name": entry.name, "family": entry.family} | sizes
            if needs_row(rows, key):
                put_row(rows, key, _train_or_report(entry, bands, labels, repeated, place))
                write_json(out, content)
            advance(1)
            if caught():
                raise Stopped(f"stopped after {len(rows)} trainings; run the same command again to resume", caught())
    return content


@contextmanager
def _store(path: Path | None, batch: int) -> Iterator[PatchStore]:
    """The store at `path`, or a synthetic one that is deleted afterwards."""
    if path is not None:
        yield open_store(path)
        return
    with TemporaryDirectory() as folder:
        archive, made = Path(folder) / "archive", Path(folder) / "store.h5"
        prepare_survey(synthetic.survey([(None, archive)], max(16, 4 * batch), labels="clc43"), made)
        yield open_store(made)


def _draw_batch(store: PatchStore, batch: int) -> NDArray[np.int64]:
    """Rows of patches that are drawn from the train split.

    Raises:
        BadStore: the split has too few patches, or the store lacks a band or class of `TASKS`.
    """
    for bands, labels in TASKS:
        store.planes_for(band_set(bands).names)
        targets_by_name(store, nomenclature(labels).names)
    patches = store.patches("train")
    if len(patches) < batch:
        raise BadStore(store.path, f"holds {len(patches)} patches to train on, expected at least a batch of {batch}")
    return epoch_order(patches, 0, 0)[:batch]


def _train_or_report(entry: ZooEntry, bands: str, labels: str, repeated: RepeatedBatch, place: torch.device) -> Results:
    try:
        return train_on_repeated_batch(entry, bands, labels, repeated, place)
    except Exception as error:  # the other networks are trained nevertheless
        return {"failed": reason(error)}


def train_on_repeated_batch(
    entry: ZooEntry, bands: str, labels: str, repeated: RepeatedBatch, place: torch.device
) -> dict[str, Any]:
    """Train one network at its own side with the training step of `landscale train`: input stage, bfloat16 if faster, AdamW.

    Returns:
        `side`; `parameters` (trainable); `rate`; `losses` of the steps (binary cross-entropy); `first` and `last` (means
        of their first and last quarter); `constant` (the lowest loss of a prediction that is the same for all patches, which is
        that of the labels' frequencies); `learns` (see `learnt`); `seconds` (processor time, which does not depend on other
        programs).

    Raises:
        Diverged: the loss is not finite.
    """
    begun = time.process_time()
    rate = RATES.get(entry.family, Recipe.rate)
    classifier = build_classifier(Recipe(model=entry.name, bands=bands, labels=labels), repeated.store).to(place)
    network = use_channels_last(classifier.network.train())
    optimizer = create_optimizer_v2(network, opt="adamw", lr=rate, weight_decay=Recipe.weight_decay)
    d, store = classifier.description, repeated.store
    targets = targets_by_name(store, d.classes)
    reduced = reduced_precision(place.type)
    losses: list[float] = []
    for batch in batches(store, d.bands, targets, [repeated.rows] * repeated.steps, place):
        value = plain_step(classifier, optimizer, mean_binary_loss, batch.planes, batch.targets, reduced=reduced)
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise Diverged(f"the loss of step {len(losses)} is {losses[-1]} at rate {rate:g}")
    quarter = len(losses) // 4
    first, last, constant = fmean(losses[:quarter]), fmean(losses[-quarter:]), _entropy(targets[repeated.rows])
    return {
        "side": d.side,
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "rate": rate,
        "losses": losses,
        "first": first,
        "last": last,
        "constant": constant,
        "learns": learnt(last, constant),
        "seconds": time.process_time() - begun,
    }


def learnt(last: float, constant: float) -> bool:
    """Whether a network with the loss `last` predicts better than any constant prediction does, by a margin."""
    return last < LEARNT_RATIO * constant


def _entropy(targets: NDArray[np.uint8]) -> float:
    """The entropy in nats of each class's frequency among the patches, averaged over classes. Shape of targets: (n, C)."""
    frequency = torch.from_numpy(targets.mean(0))
    return float(
        -(torch.special.xlogy(frequency, frequency) + torch.special.xlogy(1 - frequency, 1 - frequency)).mean()
    )
