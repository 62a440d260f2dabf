"""Choose the patches whose heat maps are shown: some of each class that were found rightly, found wrongly, and missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["true positive", "false positive", "false negative"]
KINDS: tuple[Kind, ...] = ("true positive", "false positive", "false negative")
Pick = Literal["confident", "random"]
PICKS: tuple[Pick, ...] = ("confident", "random")


@dataclass(frozen=True)
class Example:
    """A patch for a class. place: number of the patch among those that were classified. wanted: number of the class."""

    place: int
    wanted: int
    kind: Kind
    probability: float


def decisions(
    probabilities: NDArray[np.float32], thresholds: Sequence[float], *, multi_label: bool
) -> NDArray[np.bool_]:
    """Which classes (N, C) a classifier finds: those above their thresholds (default 0.5), or the most probable one."""
    if multi_label:
        return np.asarray(probabilities > np.asarray(thresholds or [0.5] * probabilities.shape[1]))
    return np.asarray(probabilities.argmax(1)[:, None] == np.arange(probabilities.shape[1]))


def choose_examples(
    probabilities: NDArray[np.float32],
    targets: NDArray[np.bool_],
    found: NDArray[np.bool_],
    wanted: Sequence[int],
    patches: int,
    pick: Pick,
    seed: int,
) -> list[Example]:
    """At most `patches` examples of each kind for each class, by class, then by kind.

    `confident` takes those about which the classifier is most certain: the highest probabilities of what it found, the lowest of
    what it missed. `random` draws them by the seed.

    Args:
        probabilities, targets, found: (N, C), as the classifier, the store and `decisions` give them.
        wanted: numbers of classes.
        patches: number of each kind.
        pick: how to choose.
        seed: of the random choice.
    """
    chosen = []
    for c in wanted:
        members: dict[Kind, NDArray[np.bool_]] = {
            "true positive": targets[:, c] & found[:, c],
            "false positive": ~targets[:, c] & found[:, c],
            "false negative": targets[:, c] & ~found[:, c],
        }
        for number, kind in enumerate(KINDS):
            places = np.flatnonzero(members[kind])
            if pick == "random":
                rng = np.random.default_rng([seed, c, number])
                places = np.sort(rng.permutation(places)[:patches])
            else:
                sign = 1 if kind == "false negative" else -1
                places = places[np.argsort(sign * probabilities[places, c], kind="stable")[:patches]]
            chosen += [Example(int(place), c, kind, float(probabilities[place, c])) for place in places]
    return chosen
