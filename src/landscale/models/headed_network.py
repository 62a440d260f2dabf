"""A network of which only the features are used, with another head."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from landscale.errors import LandscaleError


class HeadedNetwork(nn.Module, ABC):
    """A network whose pooling and classifier are replaced by a head on its maps, with the interface of timm's models.

    The network may return maps (N, D, h, w) or (N, h, w, D), or tokens (N, T, D), including prefix tokens. Modules that only
    its own classifier used are removed, so that every parameter has a gradient. With 0 classes, or with `pre_logits`,
    the result is the mean over tokens (N, D).

    Args:
        trunk: the network, which is modified; its own head is not used.
        classes: width of the output.
        shape: number of bands and side in pixels of its input.

    Raises:
        LandscaleError: the trunk returns neither a map nor tokens.
    """

    def __init__(self, trunk: nn.Module, classes: int, shape: tuple[int, int]) -> None:
        super().__init__()
        features, unused = _probe(trunk, *shape)
        _remove_unused(trunk, unused)
        declared = getattr(trunk, "num_features", None)
        self.channels_last = len(features) == 4 and features[1] != declared and features[3] == declared
        self.num_features = self.head_hidden_size = features[1 if len(features) == 4 and not self.channels_last else -1]
        self.trunk = trunk
        self.reset_classifier(classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """The features of the trunk: a map or tokens."""
        features: Tensor = self.trunk.forward_features(x)  # type: ignore[operator]
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:  # noqa: ARG002  it is timm's signature
        """Features → their mean over tokens (N, num_features): for the logits, `forward` may need more than the last map."""
        return self.tokens(x).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """The head, which takes tokens (N, T, num_features)."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh head for `num_classes` (0: none).

        Raises:
            LandscaleError: `global_pool` is given; this head does not pool.
        """
        if global_pool:
            raise LandscaleError(f"this head does not pool, so not '{global_pool}' either")
        self.num_classes = num_classes
        self.head: nn.Module = self.make_head(num_classes) if num_classes else nn.Identity()

    @abstractmethod
    def make_head(self, classes: int) -> nn.Module:
        """A fresh head for at least 1 class."""

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay in timm's optimisers, besides norms and biases."""
        spared = getattr(self.trunk, "no_weight_decay", set)
        return {f"trunk.{name}" for name in spared()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The order of a parameter for timm's `group_parameters`: the layers of the trunk, then the head.

        Raises:
            AttributeError: the trunk does not list its layers.
        """
        matcher = self.trunk.group_matcher(coarse=coarse)  # type: ignore[operator]
        groups: dict[str, int] = group_parameters(self.trunk, matcher, reverse=True)
        return lambda name: groups[name.removeprefix("trunk.")] if name.startswith("trunk.") else math.inf

    def tokens(self, x: Tensor) -> Tensor:
        """Features of the trunk as tokens (N, T, num_features)."""
        if x.ndim == 3:
            return x
        return x.flatten(1, 2) if self.channels_last else x.flatten(2).transpose(1, 2)


def _probe(trunk: nn.Module, bands: int, side: int) -> tuple[tuple[int, ...], set[str]]:
    """Shape of a trunk's features, and names of the parameters they do not depend on; computed on the meta device."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        twin = copy.deepcopy(trunk).to("meta").eval()
        features = twin.forward_features(torch.empty(1, bands, side, side, device="meta"))  # type: ignore[operator]
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            given = f"features of shape {tuple(features.shape)}" if isinstance(features, Tensor) else "several features"
            raise LandscaleError(f"it needs a map or tokens to look at, the network gives {given}")
        named = {name: p for name, p in twin.named_parameters() if p.requires_grad}
        gradients = torch.autograd.grad(features.sum(), list(named.values()), allow_unused=True)
    return tuple(features.shape), {name for name, g in zip(named, gradients, strict=True) if g is None}


def _remove_unused(trunk: nn.Module, unused: set[str]) -> None:
    """Replace the outermost modules whose parameters are all unused by identities."""
    left = set(unused)
    for name, module in list(trunk.named_modules()):
        held = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if name and held and held <= left:
            trunk.set_submodule(name, nn.Identity())
            left -= held
