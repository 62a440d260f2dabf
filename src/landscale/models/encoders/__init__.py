"""Trained networks by name: those of other people, those that come with landscale, and folders of weights.

    runs/eca, weights                                         a path: the folder of a run or of weights
    bundled:NAME                                              weights that come with landscale
    torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO              TorchGeo's weights for Sentinel-1 and Sentinel-2
    torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO=FILE.pth     the same, from a file that was downloaded before
    hf-hub:BIFOLD-BigEarthNetv2-0/resnet50-s2-v0.2.0          the classifiers published with BigEarthNet v2
    hf-hub:OWNER/NAME@REVISION                                weights of landscale on the Hugging Face hub
    timm:NAME                                                 weights of timm, most of them trained on ImageNet

Whatever the name, the result is a folder of weights (`models.weights`), so everything that takes weights takes all of them.
Those of other people are converted once, into a cache (`cache`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from landscale.errors import UnknownName

if TYPE_CHECKING:  # the tables are read without torch
    from landscale.models.classifier import Classifier

KINDS = ("bundled", "torchgeo", "hf-hub", "timm")


def is_name(name: str | Path) -> bool:
    """Whether weights are named, and not given by a path."""
    return str(name).partition(":")[0] in KINDS and ":" in str(name)


def find_encoder(name: str | Path) -> Path:
    """The folder of weights of a name.

    Args:
        name: the folder of a run or of weights, or one of the names above.

    Raises:
        LandscaleError: there are no such weights, or they cannot be fetched or converted.
    """
    text = str(name)
    if not is_name(text):
        return _folder(Path(name))
    from landscale.models.encoders import named

    return named.find(text)


def load_encoder(name: str | Path) -> Classifier:
    """Load a trained network by its name, in eval mode, on the CPU: network, input stage, class names and thresholds.

    `model.probabilities(planes)` gives (n, C) float32 in 0…1, and `model.features(planes)` (n, F); `planes` maps tuples of band
    names to raw pixels (n, bands, h, w) at native resolution, in the units of `model.description.units`.

    Args:
        name: the folder of a run or of weights, or a name such as `hf-hub:owner/name@revision`; `find_encoder` takes all of them.

    Raises:
        LandscaleError: there are no such weights, or they are damaged.
    """
    from landscale.models.weights import load_model

    return load_model(find_encoder(name))


def _folder(path: Path) -> Path:
    from landscale.models.weights import find_weights

    kind, separator, _ = str(path).partition(":")
    if separator and "/" not in kind and not path.exists():
        raise UnknownName("kind of weights", f"{kind}:", [f"{kind}:" for kind in KINDS])
    return find_weights(path)
