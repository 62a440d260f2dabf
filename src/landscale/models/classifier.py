"""A network with its input stage, class names and thresholds; it maps raw pixels to probabilities of classes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.loading import Native
from landscale.models.heads import create_with_head
from landscale.models.input_stage import InputStage, turn, turn_back
from landscale.models.registry import zoo
from landscale.store.layout import Name
from landscale.vocabulary.bands import band
from landscale.vocabulary.units import RANGES, Level, Unit


@dataclass(frozen=True)
class Description:
    """Everything about a classifier except its parameters; stored in the `config.json` of its weights.

    Attributes:
        model: name of the network.
        bands: names of the bands, in the order of the network's channels.
        classes: names of the classes, in the order of the network's outputs; none for an encoder, which only has features.
        nomenclature: name of the list of classes, or `custom`.
        multi_label: whether a patch may have several classes.
        statistics: mean and standard deviation of each band in its unit, and of its logarithm (`log B02`) if
            `scale` needs it.
        side: pixels a side of the network's input.
        ground: metres a side of the patches in training.
        upsample: how coarser bands are brought to `side` (`input_stage.UPSAMPLING`).
        scale: `linear`, `log` or `both` (`input_stage.SCALES`).
        options: options of the network.
        head: name of the head (`heads.HEADS`); `linear` is the network's own, `pixels` gives the class of every pixel.
        head_options: options of the head.
        thresholds: one per class in 0…1; empty in a single-label classifier.
        views: number of rotations and reflections of a patch over which probabilities are averaged: 1, 2, 4 or 8.
        units: unit of each band in training, which is that of `statistics`; a missing one is unknown.
        level: processing level of the Sentinel-2 products in training.
        limits: smallest and largest pixel value of a band in its unit, to which pixels are clipped before normalisation; bands
            that are not listed are not clipped.
        temperature: positive number by which logits are divided before they become probabilities; above 1, these are less
            extreme.
        stretches: of bands in 8-bit, the digital number that 255 stands for, where it is known.
    """

    model: Name
    bands: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]
    classes: Annotated[tuple[Name, ...], Meta(max_length=4096)]
    nomenclature: Name
    multi_label: bool
    statistics: Mapping[str, tuple[float, Annotated[float, Meta(ge=0)]]]
    side: Annotated[int, Meta(ge=1, le=4096)]
    ground: Annotated[int, Meta(ge=1, le=10**6)] | Annotated[float, Meta(gt=0, le=1e6)]  # an integer stays one
    upsample: str = "bilinear"
    scale: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)
    head: str = "linear"
    head_options: Mapping[str, Any] = field(default_factory=dict)
    thresholds: tuple[Annotated[float, Meta(ge=0, le=1)], ...] = ()
    views: int = 1
    units: Mapping[str, Unit] = field(default_factory=dict)
    level: Level = "unknown"
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    stretches: Mapping[str, Annotated[float, Meta(gt=0)]] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse what contradicts itself; the type and range of each field are annotations, which a reader of files checks.

        Raises:
            LandscaleError: a name is repeated, a threshold is missing, a statistic or the temperature is not finite, limits are
                not in order, or a stretch is not that of a band in 8-bit.
        """
        for what, names in (("band", self.bands), ("class", self.classes)):
            if repeated := [name for name in names if names.count(name) > 1]:
                raise LandscaleError(f"{what} '{repeated[0]}' is listed twice")
        if self.views not in (1, 2, 4, 8):
            raise LandscaleError(f"found {self.views} views, expected 1, 2, 4 or 8")
        expected = {0, len(self.classes)} if self.multi_label else {0}
        if len(self.thresholds) not in expected:
            raise LandscaleError(f"found {len(self.thresholds)} thresholds for {len(self.classes)} classes")
        if self.pixels and self.multi_label:
            raise LandscaleError(
                "a classifier of pixels gives each of them one class, but it is described as multi-label"
            )
        if infinite := [name for name, pair in self.statistics.items() if not all(map(math.isfinite, pair))]:
            raise LandscaleError(f"the statistics of {infinite[0]} are not finite")
        if disordered := [name for name, (low, high) in self.limits.items() if not -math.inf < low < high < math.inf]:
            raise LandscaleError(f"the limits of {disordered[0]} are not two finite numbers in ascending order")
        if not 0 < self.temperature < math.inf:
            raise LandscaleError(f"the temperature is {self.temperature}, expected a finite number above 0")
        for name, stretch in self.stretches.items():
            if self.units.get(name) != "8-bit" or not 0 < stretch < math.inf:
                raise LandscaleError(
                    f"the stretch of {name} is {stretch}, expected a finite number above 0, and 8-bit as unit"
                )

    @property
    def pixels(self) -> bool:
        """Whether it gives the class of every pixel, not of the patch."""
        return self.head == "pixels"

    @property
    def stored(self) -> bool:
        """Whether the input is `data_super`, the bands that a store holds already resampled to 10 m."""
        return self.upsample == "stored"


class Classifier(nn.Module):
    """Planes of raw pixels, in the units of the description → logits (n, C), or (n, C, side, side) if it classifies pixels.

    Args:
        description: everything but the parameters.
        network: (n, channels, side, side) → (n, C), used as it is; built with fresh weights when None.

    Raises:
        LandscaleError: the settings of network, head and input contradict each other.
    """

    def __init__(self, description: Description, network: nn.Module | None = None) -> None:
        super().__init__()
        d = description
        self.description = d
        # Digital numbers beyond the stretch of a picture become 255, as in the picture.
        pictures = dict.fromkeys(d.stretches, RANGES["8-bit"])
        self.inputs = InputStage(d.bands, d.statistics, d.side, d.upsample, d.scale, {**pictures, **d.limits})
        self.network = network if network is not None else _build_network(d, self.inputs)

    def forward(self, planes: Native) -> Tensor:
        logits: Tensor = self.network(self.inputs(planes))
        return logits

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.network.parameters()).device

    def variant(self, network: nn.Module, views: int, thresholds: tuple[float, ...]) -> Classifier:
        """This classifier with other parameters, views and thresholds, in eval mode; nothing is copied."""
        twin = Classifier(replace(self.description, views=views, thresholds=thresholds), network)
        twin.inputs = self.inputs  # on its device, and with its present side
        return twin.eval()

    def check_classes(self) -> None:
        """Refuse an encoder without classes where probabilities are needed.

        Raises:
            LandscaleError: there are no classes.
        """
        if not self.description.classes:
            raise LandscaleError(
                f"these weights of {self.description.model} are an encoder without classes, expected a classifier; embed, probe"
                " and train --init take encoders"
            )

    def check_patches(self, what: str) -> None:
        """Refuse an encoder, and a classifier of pixels, where only labels of patches make sense.

        Args:
            what: the command, for the message.

        Raises:
            LandscaleError: the network gives no probabilities of patches.
        """
        self.check_classes()
        if self.description.pixels:
            raise LandscaleError(
                f"{what}: these weights classify pixels, expected weights that were trained on labels of patches"
            )

    def activate(self, logits: Tensor) -> Tensor:
        """Logits (n, C, …) → probabilities in 0…1, float32, at the temperature of the description."""
        logits = logits.float() / self.description.temperature
        return logits.sigmoid() if self.description.multi_label else logits.softmax(1)

    def digest(self) -> str:
        """SHA-256 of the description, the parameters and the buffers, in hexadecimal."""
        digest = hashlib.sha256(json.dumps(asdict(self.description), sort_keys=True).encode())
        for name, tensor in self.state_dict().items():
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def features(self, planes: Native) -> Tensor:
        """(n, F) float32, what the last layer of the network sees, for one view. The classifier should be in eval mode.

        For a network with a query head, it is the mean over the positions of the last map. The planes are in the units of the
        description.
        """
        # Not in bfloat16, whose 8 bits would remain in everything that is computed from features.
        return last_features(self.network, self.inputs(planes).contiguous(memory_format=torch.channels_last)).float()

    @torch.inference_mode()
    def probabilities(self, planes: Native) -> Tensor:
        """(n, C) float32 in 0…1, the mean over the views of the description. The classifier should be in eval mode.

        If it classifies pixels: (n, C, side, side), with the side of its input, each view turned back.

        The planes are in the units of the description; `models.input_units` converts others.
        """
        values = self.inputs(planes)
        device = values.device.type
        step = 8 // self.description.views
        total: Tensor | None = None
        with torch.autocast(device, torch.bfloat16, enabled=reduced_precision(device)):
            for k in range(0, 8, step):
                part = self.activate(self.network(turn(values, k).contiguous(memory_format=torch.channels_last)))
                part = turn_back(part, k) if self.description.pixels else part
                total = part if total is None else total + part
        assert total is not None
        return total / self.description.views


def last_features(network: nn.Module, values: Tensor) -> Tensor:
    """(n, F), the input of the last layer of a network; values are (n, channels, side, side)."""
    maps = network.forward_features(values)  # type: ignore[operator]
    found: Tensor = network.forward_head(maps, pre_logits=True)  # type: ignore[operator]
    return found.flatten(1)


def _build_network(d: Description, inputs: InputStage) -> nn.Module:
    options = dict(d.options)
    if zoo(d.model)[0].native:
        _check_native(d)
        options.setdefault("gsd", [band(name).gsd for name in d.bands] * len(inputs.scales))
    return create_with_head(d.model, inputs.channels, len(d.classes), d.side, d.head, d.head_options, **options)


def _check_native(d: Description) -> None:
    """Raise an error if a network for native resolution would get resampled pixels."""
    if d.upsample != "nearest":
        raise LandscaleError(f"--upsample with model '{d.model}': found {d.upsample}, expected nearest")
    if 10 * d.side != d.ground:
        raise LandscaleError(
            f"--side with model '{d.model}': found {d.side}, expected the store's {d.ground / 10:g} px"
        )


def reduced_precision(device: str) -> bool:
    """Whether to compute in bfloat16: on GPUs that support it, and on CPUs with AVX-512 BF16 or AMX."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return torch.backends.mkldnn.is_available() and "avx512_bf16" in _cpu_flags()  # type: ignore[no-untyped-call]


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return ""
