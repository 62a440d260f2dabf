"""The K-branch CNN: a small network for each resolution of Sentinel-2, whose input is the bands at native resolution.

Sumbul & Demir 2019 (A novel multi-attention driven system for multi-label remote sensing image classification), the
branches without attention, as in the code of Papoutsis et al. 2022. Every convolution and dense layer is
followed by batch norm and ReLU and has no bias, which the batch norm would cancel.

The input is one tensor at 10 m as for all networks: coarser bands arrive in blocks of equal pixels (nearest upsampling),
and a branch takes one pixel of each block, which undoes the upsampling exactly. Rotations and reflections of the input keep
the blocks; random shifts and zooms do not, so with them a branch is trained on slightly displaced pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models import family
from landscale.models.family import BANDS, CLASSES
from landscale.models.registry import PATCH_SIDE, ZooEntry
from landscale.vocabulary.bands import BAND_SETS

PIXEL = 10  # metres a pixel of the input
WIDTH = 128  # of every dense layer

# (kernel, channels, pooling after it) of each convolution, by ground sampling distance in metres
BRANCHES: dict[int, tuple[tuple[int, int, bool], ...]] = {
    10: ((5, 32, True), (5, 32, True), (3, 64, False)),
    20: ((3, 32, True), (3, 32, False), (3, 64, False)),
    60: ((2, 32, False), (2, 32, False), (2, 32, False)),
}


def _dense(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU(inplace=True))


class Branch(nn.Module):
    """The channels of one ground sampling distance: (N, in_chans, side, side) at 10 m → (N, 128)."""

    channels: Tensor

    def __init__(self, gsd: int, channels: Sequence[int], side: int, drop_rate: float) -> None:
        super().__init__()
        self.ratio = gsd // PIXEL
        self.register_buffer("channels", torch.tensor(channels), persistent=False)
        self.convolutions = nn.Sequential()
        inputs, side = len(channels), side // self.ratio
        for kernel, outputs, pools in BRANCHES[gsd]:
            after = (kernel - 1) // 2  # an even kernel is padded at its end, as in TensorFlow
            self.convolutions.extend(
                [
                    nn.ZeroPad2d((after, kernel - 1 - after) * 2),
                    nn.Conv2d(inputs, outputs, kernel, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                    *([nn.MaxPool2d(2)] if pools else []),
                    nn.Dropout(drop_rate / 2),
                ]
            )
            inputs, side = outputs, side // 2 if pools else side
        self.dense = nn.Sequential(nn.Flatten(), *_dense(inputs * side**2), nn.Dropout(drop_rate))

    def native(self, x: Tensor) -> Tensor:
        """The branch's channels, one pixel of every block: (N, channels, side / ratio, side / ratio)."""
        return x[:, :, :: self.ratio, :: self.ratio].index_select(1, self.channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.convolutions(self.native(x)))
        return out


class KBranch(nn.Module):
    """One branch per resolution, joined by a dense layer. It has the interface of timm's models, but returns no feature maps.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        img_size: input side in pixels; a multiple of 12 with bands at 60 m, else of 4.
        gsd: ground sampling distance of each channel, 10, 20 or 60 m. By default 10 and 12 channels are the bands of
            `s2-10` and `s2-12` in their order, any other number is at 10 m.
        drop_rate: dropout of dense layers; that of convolutions is half of it.

    Shapes: (N, in_chans, img_size, img_size) → (N, num_classes).

    Raises:
        LandscaleError: `gsd` has another number of channels or unknown distances, or the side is not such a multiple.
    """

    def __init__(
        self,
        num_classes: int = CLASSES,
        in_chans: int = BANDS,
        *,
        img_size: int | tuple[int, int] = PATCH_SIDE,
        gsd: Sequence[int] | None = None,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        gsd = default_gsd(in_chans) if gsd is None else tuple(gsd)
        if len(gsd) != in_chans or not set(gsd) <= BRANCHES.keys():
            raise LandscaleError(f"k_branch: found gsd {gsd}, expected 10, 20 or 60 m for each of {in_chans} channels")
        divisor = math.lcm(4, *(g // PIXEL for g in gsd))
        side, other = to_2tuple(img_size)
        if side != other or side < divisor or side % divisor:
            raise LandscaleError(f"k_branch: found an input side of {img_size} px, expected a multiple of {divisor}")
        self.drop_rate = drop_rate
        self.branches = nn.ModuleDict()
        for distance in sorted(set(gsd)):
            channels = [i for i, g in enumerate(gsd) if g == distance]
            self.branches[f"{distance}m"] = Branch(distance, channels, side, drop_rate)
        self.num_features, self.head_hidden_size = WIDTH * len(self.branches), WIDTH
        self.joined = nn.Sequential(*_dense(self.num_features), nn.Dropout(drop_rate / 2))
        self.drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, img_size, img_size) → (N, num_features): the features of the branches, concatenated."""
        return torch.cat([branch(x) for branch in self.branches.values()], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features) → (N, num_classes), or the input of the classifier (N, 128)."""
        x = self.drop(self.joined(x))
        out: Tensor = x if pre_logits else self.fc(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, ...]]:
        """The order of a parameter for timm's `group_parameters`: convolutions, one by one unless `coarse`, then dense layers."""

        def order(name: str) -> tuple[int, ...]:
            parts = name.split(".")
            if parts[0] != "branches":
                return (2,) if parts[0] == "joined" else (3,)
            if parts[2] == "dense":
                return (1,)
            return (0,) if coarse else (0, int(parts[3]) // 5)  # five or six modules for each convolution

        return order

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` (0: none).

        Raises:
            LandscaleError: a pooling is given; the branches flatten their maps.
        """
        if global_pool:
            raise LandscaleError(f"k_branch flattens its maps and has no pooling '{global_pool}'")
        self.num_classes = num_classes
        with next(self.parameters()).device:
            self.fc = nn.Linear(WIDTH, num_classes) if num_classes else nn.Identity()


def default_gsd(in_chans: int) -> tuple[int, ...]:
    """Default ground sampling distances of channels in metres: those of `s2-10` or `s2-12`, or 10 m for all."""
    named = next((s for s in (BAND_SETS["s2-10"], BAND_SETS["s2-12"]) if len(s.bands) == in_chans), None)
    return tuple(band.gsd for band in named.bands) if named else (PIXEL,) * in_chans


family.add_network(
    KBranch,
    ZooEntry(
        "k_branch",
        "k_branch",
        "Sumbul & Demir 2019, A novel multi-attention driven system, without attention; Papoutsis et al. 2022",
        native=True,
    ),
    {},
    first_conv=(),
    classifier="fc",
    fixed_side=True,
)
