"""A network that gives the class of every pixel: one light head on the feature maps of a convolutional network.

Maps of up to four resolutions are brought to one width by 1×1 convolutions, enlarged to the finest of them and summed, as in the
semantic branch of a feature pyramid (Kirillov et al. 2019, Panoptic Feature Pyramid Networks). A 3×3 convolution
and a 1×1 convolution turn the sum into logits, which are enlarged to the side of the input.

The maps are found by one pass of zeros: of every resolution, the last map (N, D, side, side) that a module of the network, or a
module in one of these, gives. So the head needs nothing from the network but that its features are a map. Networks of tokens are
refused.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models.headed_network import HeadedNetwork

MOST_LEVELS = 4
DEPTH = 2  # deeper modules are parts of a block, such as its first convolution
Level = tuple[str, int, int]  # name of the module, features and side of its map


class PixelHead(nn.Module):
    """Maps (N, D, side, side) of several resolutions, the finest first → logits (N, classes, side, side) of the finest.

    Args:
        levels: of the maps.
        classes: at least 1.
        width: of the maps that are summed.
    """

    def __init__(self, levels: list[Level], classes: int, width: int = 96) -> None:
        super().__init__()
        self.num_classes = classes
        self.lateral = nn.ModuleList(nn.Conv2d(features, width, 1) for _, features, _ in levels)
        self.fuse = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        total = self.lateral[0](maps[0])
        for lateral, features in zip(self.lateral[1:], maps[1:], strict=True):
            total = total + F.interpolate(lateral(features), total.shape[-2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.classify(self.fuse(total))
        return logits


class PixelNetwork(HeadedNetwork):
    """A network with a `PixelHead` and the interface of timm's models: (N, bands, side, side) → logits (N, classes, side, side).

    With 0 classes, or with `pre_logits`, the result is the mean over the last map (N, D), the features of the patch.

    Args:
        trunk: the network, which is modified; its own head is not used.
        classes: number of classes.
        shape: number of bands and side in pixels of its input.
        width: of the head.

    Raises:
        LandscaleError: the features of the trunk are no map.
    """

    def __init__(self, trunk: nn.Module, classes: int, shape: tuple[int, int], width: int = 96) -> None:
        if width < 1:
            raise LandscaleError(f"width: found {width}, expected at least 1")
        self.levels = _find_levels(trunk, *shape)
        self.width = width
        super().__init__(trunk, classes, shape)

    def forward(self, x: Tensor) -> Tensor:
        if not self.num_classes:
            return super().forward(x)
        with _maps_of(self.trunk, [name for name, _, _ in self.levels]) as maps:
            self.trunk.forward_features(x)  # type: ignore[operator]
        logits = self.head([maps[name] for name, _, _ in self.levels])
        return F.interpolate(logits, x.shape[-2:], mode="bilinear", align_corners=False)

    def make_head(self, classes: int) -> nn.Module:
        return PixelHead(self.levels, classes, self.width)


@contextmanager
def _maps_of(trunk: nn.Module, names: list[str]) -> Iterator[dict[str, Tensor]]:
    """A dictionary of what some modules give while the trunk computes in this context."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: found.__setitem__(name, output)

    with ExitStack() as stack:
        for name in names:
            handle = trunk.get_submodule(name).register_forward_hook(keep(name))
            stack.callback(handle.remove)
        yield found


def _find_levels(trunk: nn.Module, bands: int, side: int) -> list[Level]:
    """The last map of each resolution in a trunk, at most `MOST_LEVELS` and the coarsest ones, the finest first.

    A map as large as the input counts only if it is the last one, because to compute with it takes long.
    """
    with torch.inference_mode():
        twin = copy.deepcopy(trunk).to("meta").eval()
        last: dict[int, Level] = {}

        def keep(name: str) -> Any:
            def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] == output.shape[3] <= side:
                    last[output.shape[2]] = (name, output.shape[1], output.shape[2])

            return look

        for name, module in twin.named_modules():
            if name and name.count(".") < DEPTH:
                module.register_forward_hook(keep(name))
        features = twin.forward_features(torch.empty(1, bands, side, side, device="meta"))  # type: ignore[operator]
    if not isinstance(features, Tensor) or features.ndim != 4 or features.shape[2] != features.shape[3]:
        given = f"features of shape {tuple(features.shape)}" if isinstance(features, Tensor) else "several features"
        raise LandscaleError(
            f"the class of every pixel needs a map of features (N, D, h, w), the network gives {given}"
        )
    finest, coarsest = max(last), features.shape[2]
    sides = [s for s in sorted(last, reverse=True) if coarsest <= s and (s < side or s == coarsest)]
    chosen = [last[s] for s in sides[-MOST_LEVELS:]]
    if not chosen or chosen[-1][1:] != (features.shape[1], coarsest):
        raise LandscaleError(f"the network gives no maps of features of at most {finest} px that a head could use")
    return chosen
