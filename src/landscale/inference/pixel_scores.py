"""Figures of a map that is compared with a reference map pixel by pixel, from its confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from landscale.vocabulary.headline import headline


@dataclass(frozen=True)
class ClassPixels:
    """One class of a map. iou, f1, precision, recall: 0…1.

    support: pixels of the class in the reference. mapped: pixels of the class in the map. `precision` is NaN without `mapped`,
    `recall` without `support`, `iou` and `f1` without both.
    """

    name: str
    iou: float
    f1: float
    precision: float
    recall: float
    support: int
    mapped: int


@dataclass(frozen=True)
class PixelScores:
    """Agreement of a map with its reference; fractions in 0…1, NaN where no pixel counts.

    pixels: how many were compared. accuracy: fraction of them with the class of the reference. mean_iou, macro_f1: means over
    the classes that have a pixel in the reference or in the map; a class that is only mapped counts as 0. confusion: pixels by
    class of the reference (rows) and of the map (columns). split, patches: of a store, with its number of patches. steps: as in
    `Scores`.
    """

    pixels: int
    accuracy: float
    mean_iou: float
    macro_f1: float
    classes: tuple[ClassPixels, ...]
    confusion: tuple[tuple[int, ...], ...]
    split: str = ""
    patches: int = 0
    steps: dict[str, int] | None = None

    def headline(self) -> dict[str, float]:
        """The main figures, for tables and reports: those of `HEADLINE` that exist."""
        return headline(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The same as plain lists and numbers; None in place of NaN, which JSON does not have."""
        content: dict[str, Any] = _without_nan(asdict(self))
        return {key: value for key, value in content.items() if key not in ("split", "patches", "steps") or value}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PixelScores:
        """The inverse of `to_json`.

        Raises:
            ValueError: a figure is missing, unknown or of another type.
        """
        filled = dict(content)
        try:
            filled["classes"] = [
                {k: math.nan if v is None else v for k, v in one.items()} for one in content["classes"]
            ]
            filled |= {key: math.nan for key in ("accuracy", "mean_iou", "macro_f1") if content[key] is None}
            return msgspec.convert(filled, cls)
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as error:
            raise ValueError(f"no scores of pixels: {str(error).replace('`', '')}") from None


def confusion_matrix(reference: NDArray[np.integer], mapped: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Count pixels by class of the reference (rows) and of the map (columns): (classes, classes).

    Args:
        reference, mapped: numbers of classes, of the same shape. Pixels whose reference is no class, such as 255, do not count.
        classes: number of classes.

    Raises:
        ValueError: the shapes differ, or the map has no class where the reference has one.
    """
    if reference.shape != mapped.shape:
        raise ValueError(f"the reference has the shape {reference.shape}, the map {mapped.shape}")
    known = (reference >= 0) & (reference < classes)
    rows, columns = reference[known].astype(np.int64), mapped[known].astype(np.int64)
    if len(columns) and not 0 <= columns.min() <= columns.max() < classes:
        raise ValueError(f"the map has classes from {columns.min()} to {columns.max()}, expected 0 to {classes - 1}")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def pixel_scores(confusion: NDArray[np.integer], classes: Sequence[str]) -> PixelScores:
    """Figures from a confusion matrix.

    Args:
        confusion: (C, C) pixels by class of the reference (rows) and of the map (columns).
        classes: the C names.

    Raises:
        ValueError: the matrix is not C × C, or has negative entries.
    """
    counts = np.asarray(confusion, np.int64)
    if counts.shape != (len(classes), len(classes)) or counts.min(initial=0) < 0:
        raise ValueError(f"expected {len(classes)} × {len(classes)} counts of pixels, found {counts.shape}")
    right, support, mapped = np.diag(counts), counts.sum(1), counts.sum(0)
    of_each = tuple(
        ClassPixels(
            name, _ratio(r, s + m - r), _ratio(2 * r, s + m), _ratio(r, m), _ratio(r, s), support=int(s), mapped=int(m)
        )
        for name, r, s, m in zip(classes, right.tolist(), support.tolist(), mapped.tolist(), strict=True)
    )
    present = [one for one in of_each if one.support or one.mapped]
    return PixelScores(
        pixels=int(counts.sum()),
        accuracy=_ratio(int(right.sum()), int(counts.sum())),
        mean_iou=_ratio(math.fsum(one.iou for one in present), len(present)),
        macro_f1=_ratio(math.fsum(one.f1 for one in present), len(present)),
        classes=of_each,
        confusion=tuple(tuple(row) for row in counts.tolist()),
    )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
