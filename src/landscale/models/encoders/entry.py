"""What is known of other people's trained networks: everything that their files of weights do not say themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from landscale.vocabulary.units import Level, Unit

NOT_STATED = "not stated"


@dataclass(frozen=True)
class Inputs:
    """The pixels that a network takes. The fields are those of `classifier.Description` with the same names."""

    bands: tuple[str, ...]
    statistics: Mapping[str, tuple[float, float]]
    units: Mapping[str, Unit]
    level: Level
    side: int
    ground: int
    upsample: str = "bilinear"
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    stretches: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """A published network.

    Attributes:
        name: by which commands take it, such as `torchgeo:ResNet50_Weights.SENTINEL2_ALL_MOCO`.
        model: the network, in timm's words.
        inputs: the pixels that it takes.
        licence: of the weights, or of the project if it states none for them, as the Hugging Face hub names it; or `NOT_STATED`.
        citation: address of the paper.
        source: address of the project.
        url: address of the file of weights.
        digest: "sha256:" and the digest of the file, or its first digits, as its publisher gives it; empty if there is none.
        classes: names of the outputs, in their order; none for an encoder without a head.
        nomenclature: name of the list of classes.
    """

    name: str
    model: str
    inputs: Inputs
    licence: str
    citation: str
    source: str
    url: str
    digest: str = ""
    classes: tuple[str, ...] = ()
    nomenclature: str = "none"
