"""A classifier on a split of a store: probabilities of every patch, once, and the Scores they give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.inference.metrics import Scores, compute_scores
from landscale.loading import batches, evaluation_steps, targets_by_name
from landscale.models.classifier import Classifier
from landscale.runtime.progress import progress_bar
from landscale.store import PatchStore


def infer(
    classifier: Classifier, store: PatchStore, patches: NDArray[np.int64], ranks: Ranks, batch: int = 64, *, show: bool
) -> NDArray[np.float32]:
    """Probabilities (len(patches), C) float32, in the order of `patches`, on every rank. Each patch is seen by one rank."""
    device = next(classifier.network.parameters()).device
    targets = np.empty((len(store.states), 0), np.uint8)
    places = [evaluation_steps(np.arange(len(patches)), batch, rank, ranks.world) for rank in range(ranks.world)]
    steps = places[ranks.rank]
    mine = np.empty((sum(map(len, steps)), len(classifier.description.classes)), np.float32)
    classifier.eval()
    stored = classifier.description.stored
    with progress_bar("evaluate", len(mine), visible=show and ranks.first) as advance:
        done = 0
        rows = [patches[step] for step in steps]
        for part in batches(store, classifier.description.bands, targets, rows, device, upsampled=stored):
            mine[done : done + len(part.rows)] = classifier.probabilities(part.planes).cpu().numpy()
            done += len(part.rows)
            ranks.report_progress(-1)
            advance(len(part.rows))
    together = np.empty((len(patches), mine.shape[1]), np.float32)
    for theirs, values in zip(places, ranks.gather(mine), strict=True):
        if theirs:
            together[np.concatenate(theirs)] = values
    return together


def evaluate(
    classifier: Classifier,
    store: PatchStore,
    split: str,
    ranks: Ranks | None = None,
    batch: int = 64,
    *,
    show: bool = True,
) -> Scores:
    """Scores of a split, at the classifier's thresholds and at 0.5; labels are matched by class name.

    Raises:
        BadStore: the store has no such split, lacks a band or a class. UnknownName: no such split.
    """
    d = classifier.description
    patches = store.patches(split)
    store.planes_for(d.bands, d.stored)
    targets = targets_by_name(store, d.classes)[patches]
    probabilities = infer(classifier, store, patches, ranks or Ranks(), batch, show=show)
    thresholds = np.asarray(d.thresholds or [0.5] * len(d.classes))
    return compute_scores(probabilities, targets, d.classes, thresholds, multi_label=d.multi_label, split=split)
