"""Trained networks by name: those of other people, those that come with landscale, and folders of weights.

Whatever the name, the result is a folder of weights (`models.weights`), so everything that takes weights takes all of them.
"""

from __future__ import annotations

from pathlib import Path

from landscale.models.classifier import Classifier
from landscale.models.weights import find_weights, load_model


def find_encoder(name: str | Path) -> Path:
    """The folder of weights of a name.

    Args:
        name: the folder of a run or of weights.

    Raises:
        LandscaleError: there are no such weights.
    """
    return find_weights(Path(name))


def load_encoder(name: str | Path) -> Classifier:
    """Load a trained network by its name, as `find_encoder` takes it, in eval mode, on the CPU.

    Raises:
        LandscaleError: there are no such weights, or they are damaged.
    """
    return load_model(find_encoder(name))
