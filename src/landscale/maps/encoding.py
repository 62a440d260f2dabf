"""The numbers in the files of a map: class, probability and entropy as bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NODATA = 255  # of all bytes
STEPS = 250  # the byte of the number 1; bytes are in 0…250
MOST_CLASSES = NODATA


def likeliest(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The class of the largest of the probabilities (C, rows, width), the first if several are equal; `NODATA` for NaN."""
    best: NDArray[np.uint8] = probabilities.argmax(axis=0).astype(np.uint8)
    best[np.isnan(probabilities[0])] = NODATA
    return best


def to_bytes(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Numbers in 0…1 as bytes in 0…`STEPS`, rounded; `NODATA` for NaN."""
    return np.where(np.isnan(numbers), NODATA, np.rint(np.nan_to_num(numbers) * STEPS)).astype(np.uint8)


def entropy(probabilities: NDArray[np.float32], *, multi_label: bool) -> NDArray[np.float32]:
    """How undecided the classifier is (rows, width), 0…1, by its probabilities (C, rows, width); NaN for NaN.

    For one label it is the entropy of the classes, divided by that of equal probabilities; for several labels the mean over the
    classes of the entropy of present and absent, in bits.
    """
    classes = len(probabilities)
    total = np.zeros(probabilities.shape[1:], np.float32)
    for p in probabilities:  # one class at a time, to need little memory
        total -= _times_log(p)
        if multi_label:
            total -= _times_log(1 - p)
    whole = classes * np.log(2) if multi_label else np.log(max(classes, 2))
    part: NDArray[np.float32] = np.clip(total / np.float32(whole), 0, 1)
    return part


def _times_log(p: NDArray[np.float32]) -> NDArray[np.float32]:
    return p * np.log(np.maximum(p, np.float32(1e-12)))
