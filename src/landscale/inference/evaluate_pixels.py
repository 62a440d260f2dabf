"""Compare the class of every pixel with the reference maps of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from landscale.distributed import Ranks
from landscale.inference.pixel_scores import PixelScores, confusion_matrix, pixel_scores
from landscale.loading import batches, evaluation_steps
from landscale.loading.reference import class_table, with_pixel_targets
from landscale.models.classifier import Classifier
from landscale.models.input_units import convert
from landscale.runtime.progress import progress_bar
from landscale.store import REFERENCE, PatchStore


def score_pixels(
    classifier: Classifier,
    store: PatchStore,
    patches: NDArray[np.int64],
    split: str,
    ranks: Ranks,
    batch: int,
    *,
    show: bool,
    factors: Mapping[str, float],
) -> PixelScores:
    """Scores over the pixels of some patches that have a class in the reference maps; the same on every rank.

    A classifier of patches gives all pixels of a patch its likeliest class.

    Args:
        classifier: is put into eval mode.
        store: with reference maps of the classifier's classes, which are matched by name.
        patches: rows.
        split: their split, for the result.
        ranks: share the batches.
        batch: patches per batch.
        show: whether to show a progress bar.
        factors: as for `input_units.convert`.

    Raises:
        UnknownName: the store lacks a class. BadStore: it has no reference maps.
    """
    d = classifier.description
    classifier.eval()
    table = torch.from_numpy(class_table(store, d.classes)).to(classifier.device)
    steps = [patches[step] for step in evaluation_steps(np.arange(len(patches)), batch, ranks.rank, ranks.world)]
    no_targets = np.empty((len(store.states), 0), np.uint8)
    confusion = np.zeros((len(d.classes), len(d.classes)), np.int64)
    with progress_bar("evaluate", sum(map(len, steps)), visible=show and ranks.first) as advance:
        bands = (*d.bands, REFERENCE)
        for read in batches(store, bands, no_targets, steps, classifier.device, upsampled=d.stored):
            part = with_pixel_targets(read, table)
            classes = likeliest_classes(
                classifier, classifier.probabilities(convert(part.planes, factors)), part.targets
            )
            confusion += confusion_matrix(part.targets.cpu().numpy(), classes.cpu().numpy(), len(d.classes))
            ranks.report_progress(-1)
            advance(len(part.rows))
    total = np.sum(ranks.gather(confusion), axis=0)
    return replace(pixel_scores(total, d.classes), split=split, patches=len(patches))


def likeliest_classes(classifier: Classifier, probabilities: Tensor, maps: Tensor) -> Tensor:
    """The likeliest class of each pixel, in the shape of the maps (n, side, side); the network's input may be coarser."""
    if not classifier.description.pixels:
        return probabilities.argmax(1)[:, None, None].expand(maps.shape)
    side = maps.shape[-1]
    if probabilities.shape[-1] != side:
        probabilities = F.interpolate(probabilities, (side, side), mode="bilinear", align_corners=False)
    return probabilities.argmax(1)
