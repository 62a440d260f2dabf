"""How much the scores of a classifier depend on each band: by occlusion and by permutation.

    occlusion    the band is replaced by its mean
    permutation  the band is exchanged among the patches (Breiman 2001, Random forests), several times

The importance is the score with all bands minus the score without the band. Bands that resemble each other can replace each
other, so each may be unimportant alone; groups of bands are therefore removed together as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.inference.metrics import compute_scores
from landscale.models.classifier import Classifier
from landscale.runtime.progress import progress_bar

GROUPS = {
    "visible": ("B02", "B03", "B04"),
    "red edge": ("B05", "B06", "B07"),
    "near infrared": ("B08", "B8A"),
    "short-wave infrared": ("B11", "B12"),
    "60 m": ("B01", "B09", "B10"),
}
ALL = "all classes"
COLUMNS = ("bands", "class", "method", "score", "importance", "low", "high", "repeats")
# 97.5th percentiles of Student's t distribution with 1, 2, … degrees of freedom, for the intervals of 2, 3, … repeats
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Figures = dict[str, float]


def band_importance(
    classifier: Classifier,
    values: Tensor,
    targets: NDArray[np.bool_],
    *,
    repeats: int,
    seed: int,
    batch: int,
    show: bool = True,
) -> list[dict[str, Any]]:
    """The importance of every band, and of every group of which the classifier has two bands or more.

    Scores are average precision in a multi-label classifier, the mean over the classes with support for `ALL`; in a
    single-label one, F1 of each class, and accuracy for `ALL`. They are computed from one view of each patch.

    Args:
        classifier: in eval mode.
        values: input of the network (N, channels, side, side), as the input stage computes it; 0 is the mean of a band.
        targets: (N, C).
        repeats: of the permutation, 1 to 10.
        seed: of the permutation.
        batch: patches per batch.
        show: whether to show a progress bar.

    Returns:
        Rows with the keys `COLUMNS`. low and high are the ends of the 95 % interval of the mean over repeats (Student's t); None
        for occlusion, which is not random, and for one repeat.
    """
    d = classifier.description
    sets: dict[str, tuple[str, ...]] = {band: (band,) for band in d.bands}
    sets |= {name: own for name, group in GROUPS.items() if len(own := tuple(b for b in group if b in d.bands)) > 1}
    rng = np.random.default_rng(seed)
    n = len(values)
    with progress_bar("bands", (1 + len(sets) * (1 + repeats)) * n, visible=show) as advance:

        def score(change: Callable[[Tensor, slice], Tensor]) -> Figures:
            found = []
            for start in range(0, n, batch):
                chosen = slice(start, min(start + batch, n))
                found.append(_probabilities(classifier, change(values[chosen], chosen)))
                advance(chosen.stop - start)
            return _figures(classifier, np.concatenate(found), targets)

        whole = score(lambda part, _: part)
        rows = []
        for name, own in sets.items():
            channels = [d.bands.index(b) + k * len(d.bands) for k in range(len(classifier.inputs.scales)) for b in own]
            occluded = score(lambda part, _, c=channels: _with(part, c, 0.0))  # type: ignore[misc]
            permuted = []
            for _ in range(repeats):
                others = torch.from_numpy(rng.permutation(n))
                permuted.append(
                    score(lambda part, chosen, c=channels, o=others: _with(part, c, values[o[chosen]][:, c]))  # type: ignore[misc]
                )
            for label, full in whole.items():
                rows.append(_row(name, label, "occlusion", full, [occluded[label]]))
                rows.append(_row(name, label, "permutation", full, [figures[label] for figures in permuted]))
    return rows


def _row(bands: str, label: str, method: str, full: float, scores: Sequence[float]) -> dict[str, Any]:
    low = high = None
    drops = [full - value for value in scores]
    if len(drops) > 1:
        half = _STUDENT[len(drops) - 2] * stdev(drops) / math.sqrt(len(drops))
        low, high = mean(drops) - half, mean(drops) + half
    return dict(zip(COLUMNS, (bands, label, method, mean(scores), mean(drops), low, high, len(drops)), strict=True))


def _with(part: Tensor, channels: list[int], content: Tensor | float) -> Tensor:
    changed = part.clone()
    changed[:, channels] = content
    return changed


@torch.inference_mode()
def _probabilities(classifier: Classifier, values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = classifier.activate(classifier.network(values.to(classifier.device))).cpu().numpy()
    return found


def _figures(classifier: Classifier, probabilities: NDArray[np.float32], targets: NDArray[np.bool_]) -> Figures:
    """The score of each class with support, and of `ALL`."""
    d = classifier.description
    thresholds = np.asarray(d.thresholds or [0.5] * len(d.classes))
    scores = compute_scores(probabilities, targets, d.classes, thresholds, multi_label=d.multi_label, split="")
    if d.multi_label:
        return {ALL: scores.macro_ap, **{c["name"]: c["ap"] for c in scores.counts if c["ap"] is not None}}
    assert scores.accuracy is not None
    return {ALL: scores.accuracy, **{c["name"]: c["f1"] for c in scores.counts if c["support"]}}
