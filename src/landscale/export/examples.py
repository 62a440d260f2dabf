"""The picture in a model card: patches of a store in true colour, with their labels and the model's predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks
from landscale.errors import BadStore
from landscale.inference.evaluate import infer
from landscale.models.classifier import Classifier
from landscale.models.input_units import compare_units, store_source
from landscale.report.charts import Picture, picture_sheet
from landscale.runtime.progress import print_notes
from landscale.store import PatchStore

PATCHES = 8
MOST_NAMES = 4  # classes listed below a patch
RGB = ("B04", "B03", "B02")
_BRIGHTENING = 0.7  # exponent of values from 0 to 1; below 1, dark forests stay visible next to bright clouds


def picture_of_examples(classifier: Classifier, store: PatchStore) -> bytes:
    """A PNG file of patches, spread evenly over the test split, or else over val or train.

    Raises:
        BadStore: the store lacks a band of the classifier or of true colour, or has no patches.
        BadInput: its unit cannot be converted into that of the weights.
    """
    split = next((name for name in ("test", "val", "train") if store.has_split(name)), "test")
    whole = store.patches(split)
    patches = whole[np.unique(np.linspace(0, len(whole) - 1, PATCHES).astype(np.int64))]
    if not set(RGB) <= set(store.layout.bands):
        raise BadStore(
            store.path, f"lacks {', '.join(RGB)}, the bands of a picture in true colour; export without --store"
        )
    labels = _names(store.classes[patches] > 0, store.layout.classes)
    predicted = _predictions(classifier, store, patches)
    return picture_sheet(
        [
            Picture(pixels, [f"label: {label}", *([f"predicted: {guess}"] if guess else [])])
            for pixels, label, guess in zip(_true_colour(store, patches), labels, predicted, strict=True)
        ]
    )


def _predictions(classifier: Classifier, store: PatchStore, patches: NDArray[np.int64]) -> list[str]:
    """The predicted classes of each patch; empty for an encoder without classes."""
    d = classifier.description
    if not d.classes:
        return [""] * len(patches)
    compared = compare_units(d, store_source(store, d.bands, patches, stored=d.stored))
    print_notes(compared.notes)
    probabilities = infer(classifier, store, patches, Ranks(), show=False, factors=compared.factors)
    if d.multi_label:
        return _names(probabilities >= np.asarray(d.thresholds or [0.5] * len(d.classes)), d.classes)
    return [d.classes[k] for k in probabilities.argmax(1)]


def _names(chosen: NDArray[np.bool_], classes: tuple[str, ...]) -> list[str]:
    lists = [[classes[k] for k in np.flatnonzero(row)] for row in chosen]
    return [", ".join(names[:MOST_NAMES]) + (" …" if len(names) > MOST_NAMES else "") or "none" for names in lists]


def _true_colour(store: PatchStore, patches: NDArray[np.int64]) -> NDArray[np.uint8]:
    """(n, side, side, 3) uint8. All patches together are stretched from their 2nd to their 98th percentile."""
    planes = {band: plane for plane in reversed(store.planes_for(RGB)) for band in plane.bands}
    pixels = {key: store.pixels(key, patches) for key in {planes[band].key for band in RGB}}
    channels = [pixels[planes[band].key][:, planes[band].bands.index(band)].astype(np.float32) for band in RGB]
    side = max(channel.shape[-1] for channel in channels)
    nearest = [np.arange(side) * channel.shape[-1] // side for channel in channels]
    same_side = [channel[:, rows][:, :, rows] for channel, rows in zip(channels, nearest, strict=True)]
    values = np.nan_to_num(np.stack(same_side, axis=-1))
    low, high = np.percentile(values, (2, 98), axis=(0, 1, 2))
    stretched: NDArray[np.float32] = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return (255 * stretched**_BRIGHTENING).astype(np.uint8)
