"""Whether every network of the zoo learns: some steps on the same few patches, and the loss has to fall."""

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

TASKS = (("s2-10", "ben19"), ("s2-12", "clc43"))  # bands and classes of paper 2, and of paper 1
RATES = {"vgg": 1e-4}  # of AdamW: without norms, the recipes' rate throws it about
FALL = 0.9  # of the first loss; dropout alone moves it by some per cent
LEAST_STEPS = 4  # which have a first and a last quarter


@dataclass(frozen=True)
class Lesson:
    """What a network is given to learn: `rows` of the store, again and again, for `steps` steps."""

    store: PatchStore
    rows: NDArray[np.int64]
    steps: int


def measure_learning(names: Sequence[str], out: Path, path: Path | None, steps: int, batch: int) -> Results:
    """Let every network learn what is not in `out` yet, at both `TASKS`. Returns all that `out` holds then.

    Args:
        path: a store with the classes of clc43; None: one of a synthetic landscape is made.
        steps: at least `LEAST_STEPS`.
        batch: patches, the same in every step.

    Returns:
        `models`: rows of `name`, `family`, `bands`, `classes` and what `learn` says, or why it `failed`.

    Raises:
        BadInput: `out` holds figures of other settings or of another machine. UnknownName: no such network.
        BadStore: too few patches to train on, or a band or class is missing.
        Stopped: by a signal, after the network that was learning.
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
        lesson = Lesson(store, _few(store, batch), steps)
        for entry, (bands, labels) in product(entries, TASKS):
            sizes = {"bands": len(band_set(bands).names), "classes": len(nomenclature(labels).names)}
            key = {"name": entry.name, "family": entry.family} | sizes
            if needs_row(rows, key):
                put_row(rows, key, _outcome(entry, bands, labels, lesson, place))
                write_json(out, content)
            advance(1)
            if caught():
                raise Stopped(f"stopped after {len(rows)} trainings; run the same command again to resume", caught())
    return content


@contextmanager
def _store(path: Path | None, batch: int) -> Iterator[PatchStore]:
    """The store at `path`, or a synthetic one that is gone afterwards."""
    if path is not None:
        yield open_store(path)
        return
    with TemporaryDirectory() as folder:
        archive, made = Path(folder) / "archive", Path(folder) / "store.h5"
        prepare_survey(synthetic.survey([(None, archive)], max(16, 4 * batch), labels="clc43"), made)
        yield open_store(made)


def _few(store: PatchStore, batch: int) -> NDArray[np.int64]:
    """Patches of the train split from anywhere in it.

    Raises:
        BadStore: too few of them, or a band or class of `TASKS` is missing.
    """
    for bands, labels in TASKS:
        store.planes_for(band_set(bands).names)
        targets_by_name(store, nomenclature(labels).names)
    patches = store.patches("train")
    if len(patches) < batch:
        raise BadStore(store.path, f"holds {len(patches)} patches to train on, expected at least a batch of {batch}")
    return epoch_order(patches, 0, 0)[:batch]


def _outcome(entry: ZooEntry, bands: str, labels: str, lesson: Lesson, place: torch.device) -> Results:
    try:
        return learn(entry, bands, labels, lesson, place)
    except Exception as error:  # whatever a network does wrong, the others are measured
        return {"failed": reason(error)}


def learn(entry: ZooEntry, bands: str, labels: str, lesson: Lesson, place: torch.device) -> dict[str, Any]:
    """Train one network at its own side, as training does: raw numbers, input stage, bfloat16 where it is faster, AdamW.

    Returns:
        `side`, `parameters` (trainable), `rate`, `losses` of the steps (binary cross-entropy), `first` and `last` (means
        of their first and last quarter), `constant` (the least loss of an answer that is the same for every patch),
        `learns` (whether `last` is below `FALL` of `first`), `looks` (whether `last` is below `constant`), `seconds` (of
        processor time, which other programs do not lengthen).

    Raises:
        Diverged: a loss that is not finite.
    """
    begun = time.process_time()
    rate = RATES.get(entry.family, Recipe.rate)
    classifier = build_classifier(Recipe(model=entry.name, bands=bands, labels=labels), lesson.store).to(place)
    network = use_channels_last(classifier.network.train())
    optimizer = create_optimizer_v2(network, opt="adamw", lr=rate, weight_decay=Recipe.weight_decay)
    d, store = classifier.description, lesson.store
    targets = targets_by_name(store, d.classes)
    reduced = reduced_precision(place.type)
    losses: list[float] = []
    for batch in batches(store, d.bands, targets, [lesson.rows] * lesson.steps, place):
        value = plain_step(classifier, optimizer, mean_binary_loss, batch.planes, batch.targets, reduced=reduced)
        losses.append(value.item())
        if not math.isfinite(losses[-1]):
            raise Diverged(f"the loss of step {len(losses)} is {losses[-1]} at rate {rate:g}")
    quarter = len(losses) // 4
    first, last, constant = fmean(losses[:quarter]), fmean(losses[-quarter:]), _entropy(targets[lesson.rows])
    return {
        "side": d.side,
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "rate": rate,
        "losses": losses,
        "first": first,
        "last": last,
        "constant": constant,
        "learns": last < FALL * first,
        "looks": last < constant,
        "seconds": time.process_time() - begun,
    }


def _entropy(targets: NDArray[np.uint8]) -> float:
    """Of each class's share of the patches, in nats, the mean over classes. Shape: (n, C)."""
    share = torch.from_numpy(targets.mean(0))
    return float(-(torch.special.xlogy(share, share) + torch.special.xlogy(1 - share, 1 - share)).mean())
