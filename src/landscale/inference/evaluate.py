"""Evaluate a classifier on a split of a store: the probabilities of every patch, and the scores computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks, local_device
from landscale.errors import LandscaleError
from landscale.inference.evaluate_pixels import score_pixels
from landscale.inference.exported import ExportedModel, is_exported, open_exported
from landscale.inference.metrics import Scores, compute_scores
from landscale.inference.pixel_scores import PixelScores
from landscale.loading import batches, evaluation_steps, labelled_patches, targets_by_name
from landscale.models.classifier import Classifier
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, convert, store_source
from landscale.runtime.progress import console, print_notes, progress_bar
from landscale.store import REFERENCE, PatchStore, open_store


def load_predictor(model: str | Path, ranks: Ranks | None = None) -> Classifier | ExportedModel:
    """Load weights by their name, on the device of this process, or a network that was exported for another runtime.

    Raises:
        LandscaleError: there are no such weights or the runtime is not installed. BadInput: they are damaged.
    """
    return open_exported(model) if is_exported(model) else load_encoder(model).to(local_device(ranks))


def evaluate(
    model: Classifier | ExportedModel | str | Path,
    store: PatchStore | str | Path,
    split: str = "test",
    ranks: Ranks | None = None,
    batch: int = 64,
    *,
    show: bool = True,
    notes: bool = True,
    pixels: bool = False,
) -> Scores | PixelScores:
    """The scores of a split at the classifier's thresholds and at 0.5. Labels are matched by class name.

    Patches whose labels all lie outside the classifier's classes are left out.

    Args:
        model: a classifier, which is used on the device it is on; the name of weights (`models.encoders.find_encoder`); or a
            network that was exported for another runtime, or its folder.
        store: a store, or its path.
        split: name of the split.
        ranks: the processes that share the work; each of them calls this function and gets all scores.
        batch: patches per batch.
        show: whether to show a progress bar.
        notes: whether to print lines about units that are converted, and about another processing level.
        pixels: compare the class of every pixel with the reference maps of the store. A classifier of pixels always is; one of
            patches gives all pixels of a patch its likeliest class.

    Raises:
        LandscaleError: the weights have no classes.
        BadInput: there are no such weights, or they are damaged; or the store's unit cannot be converted into that of the weights
            (`models.input_units`).
        BadStore: the store cannot be read, or has no patch of the split, lacks a band or a class.
        UnknownName: no split has this name.
    """
    classifier = load_predictor(model, ranks) if isinstance(model, str | Path) else model
    if isinstance(classifier, Classifier):
        classifier.check_classes()
    opened = open_store(store) if isinstance(store, str | Path) else store
    d = classifier.description
    patches = labelled_patches(opened, split, d.classes)
    opened.planes_for(d.bands, d.stored)
    left_out = len(opened.patches(split)) - len(patches)
    if left_out and show and (ranks is None or ranks.first):
        console.print(f"{split}: {left_out:,} patches have none of the {len(d.classes)} classes and are left out")
    ranks = ranks or Ranks()
    compared = compare_units(d, store_source(opened, d.bands, patches, stored=d.stored))
    if ranks.first and notes:
        print_notes(compared.notes)
    if pixels or d.pixels:
        if not isinstance(classifier, Classifier):
            raise LandscaleError(
                "an exported network cannot be compared with reference maps; give the run or its weights"
            )
        opened.planes_for((REFERENCE,))
        return score_pixels(classifier, opened, patches, split, ranks, batch, show=show, factors=compared.factors)
    targets = targets_by_name(opened, d.classes)[patches]
    probabilities = infer(classifier, opened, patches, ranks, batch, show=show, factors=compared.factors)
    thresholds = np.asarray(d.thresholds or [0.5] * len(d.classes))
    return compute_scores(probabilities, targets, d.classes, thresholds, multi_label=d.multi_label, split=split)


def infer(
    classifier: Classifier | ExportedModel,
    store: PatchStore,
    patches: NDArray[np.int64],
    ranks: Ranks,
    batch: int = 64,
    *,
    show: bool,
    factors: Mapping[str, float] | None = None,
) -> NDArray[np.float32]:
    """Probabilities (len(patches), C) float32 in 0…1, in the order of `patches`, the same on every rank.

    Each batch is computed by one rank. Puts the classifier into eval mode. `factors` as for `input_units.convert`.
    """
    no_targets = np.empty((len(store.states), 0), np.uint8)
    places = [evaluation_steps(np.arange(len(patches)), batch, rank, ranks.world) for rank in range(ranks.world)]
    steps = places[ranks.rank]
    found = np.empty((sum(map(len, steps)), len(classifier.description.classes)), np.float32)
    if isinstance(classifier, Classifier):
        classifier.eval()
    stored = classifier.description.stored
    with progress_bar("evaluate", len(found), visible=show and ranks.first) as advance:
        done = 0
        rows = [patches[step] for step in steps]
        for part in batches(store, classifier.description.bands, no_targets, rows, classifier.device, upsampled=stored):
            found[done : done + len(part.rows)] = (
                classifier.probabilities(convert(part.planes, factors or {})).cpu().numpy()
            )
            done += len(part.rows)
            ranks.report_progress(-1)
            advance(len(part.rows))
    probabilities = np.empty((len(patches), found.shape[1]), np.float32)
    for rank_places, values in zip(places, ranks.gather(found), strict=True):
        if rank_places:
            probabilities[np.concatenate(rank_places)] = values
    return probabilities
