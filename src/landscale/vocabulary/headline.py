"""The headline figures: the few scores that are shown where there is no space for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Attribute of `Scores` → its displayed name. History, tables, report, model card and studies show them in this order.
HEADLINE_NAMES = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "micro_ap": "micro AP",
    "macro_ap": "macro AP",
    "accuracy": "accuracy",
    "mean_iou": "mean IoU",  # of the pixels of maps
}
HEADLINE = tuple(HEADLINE_NAMES)


def headline(scores: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures in scores read from JSON, then those of added metrics (`extra`).

    Figures that are absent or null are left out: a multi-label classifier has no accuracy.
    """
    return {key: scores[key] for key in HEADLINE if scores.get(key) is not None} | dict(scores.get("extra", {}))


def support_note(scores: Mapping[str, Any]) -> str:
    """Over which classes the macro averages in scores read from JSON are; empty for scores that do not record it."""
    if "classes_with_support" not in scores or "counts" not in scores:
        return ""
    return f"macro averages: over the {scores['classes_with_support']} of {len(scores['counts'])} classes that occur in the split"


def shortened(steps: Mapping[str, int]) -> str:
    """A line about a training of `trained` steps of `planned` ones, for a training that a time limit has cut short."""
    return (
        f"trained for {steps['trained']:,} of the recipe's {steps['planned']:,} steps (--max-time): a shorter training"
    )
