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
from landscale.report.true_colour import RGB, true_colour
from landscale.runtime.progress import print_notes
from landscale.store import PatchStore

PATCHES = 8
MOST_NAMES = 4  # classes listed below a patch


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
            for pixels, label, guess in zip(true_colour(store, patches), labels, predicted, strict=True)
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
