"""Metrics beyond those of `Scores`: a function in a file of its own, and one call of `register_metric`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.inference.scores import Scores

# Probabilities (N, C) in 0…1 and targets (N, C) → one finite number.
Metric = Callable[[NDArray[np.floating[Any]], NDArray[np.bool_]], float]

_METRICS: dict[str, Metric] = {}


def register_metric(name: str, metric: Metric) -> None:
    """Compute `metric` in every evaluation from now on.

    Its value appears in `Scores.extra` and next to the headline figures: in history, tables, model card and report.

    Args:
        name: key of the figure.
        metric: probabilities (N, C) in 0…1 and targets (N, C) bool → one finite number.

    Raises:
        ValueError: the name is taken.
    """
    if name in _METRICS or name in {f.name for f in fields(Scores)}:
        raise ValueError(f"metric '{name}' exists already; choose another name")
    _METRICS[name] = metric


def added_figures(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.bool_]) -> dict[str, float]:
    """The figures of all registered metrics, by name."""
    return {name: float(metric(probabilities, targets)) for name, metric in _METRICS.items()}
