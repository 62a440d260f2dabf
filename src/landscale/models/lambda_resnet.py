"""Lambda residual networks: wide residual networks some of whose convolutions are lambda layers.

Bello 2021 (LambdaNetworks: modeling long-range interactions without attention), in the form that Papoutsis et al. 2022
sketch: WRN-16-2 where the second convolution of every pre-activated block is a lambda layer; the projecting first block
of a stage keeps both its convolutions. Where this differs from the authors' code, which cannot be built (its blocks have
half the channels of the sum they join):

- Positions act through a local context, as a convolution, so any input side works. Theirs learns an embedding for every
  pair of pixels: 120^4 of them for a patch at 10 m.
- Keys are normalised over the pixels, as in Bello's eq. 1. Theirs are over the key's depth.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models import family
from landscale.models.family import BANDS, CLASSES
from landscale.models.registry import ZooEntry
from landscale.models.wide_resnet import WideBlock, WideResNet

KEY_DEPTH, HEADS = 16, 4  # as in the authors' code
# px, odd; as timm's lambda ResNets. Bello's 23 would cost 6.5 times as much and is wider than the last map of 15×15
CONTEXT = 9


class LambdaLayer(nn.Module):
    """Every pixel's query is multiplied by a matrix, its lambda, that summarises its surroundings.

    With queries q, keys k and values v, each a 1×1 convolution of the input, the output at pixel n is (λᶜ + λᵖ_n)ᵀ q_n, where
    λᶜ = Σ_m softmax_m(k_m) v_mᵀ over all pixels and λᵖ_n = Σ_m e_(m−n) v_mᵀ over the context around n; all heads share
    the lambdas (Bello 2021, eq. 1 and 2, and lambda convolutions). timm's `LambdaLayer` is the same with one bias more, but
    its weight of five dimensions refuses channels_last.

    Shapes: (N, channels, H, W) → (N, channels, H, W), channels a multiple of 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        values = channels // HEADS
        self.widths = [HEADS * KEY_DEPTH, KEY_DEPTH, values]
        self.qkv = nn.Conv2d(channels, sum(self.widths), 1, bias=False)
        self.norm_q = nn.BatchNorm2d(HEADS * KEY_DEPTH)
        self.norm_v = nn.BatchNorm2d(values)
        # the position embeddings e, shared by all values
        self.position = nn.Conv2d(1, KEY_DEPTH, CONTEXT, padding=CONTEXT // 2, bias=False)
        nn.init.normal_(self.qkv.weight, std=channels**-0.5)
        # unit variance of the sum over context and key: a residual branch has no batch norm behind it
        nn.init.normal_(self.position.weight, std=1 / (CONTEXT * KEY_DEPTH**0.5))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.qkv(x), self.widths, dim=1)
        v = self.norm_v(v)
        q = self.norm_q(q).flatten(2).unflatten(1, (HEADS, KEY_DEPTH))  # (N, heads, keys, H·W)
        content = v.flatten(2) @ k.flatten(2).softmax(2).mT  # (N, values, keys)
        position = self.position(v.flatten(0, 1).unsqueeze(1)).flatten(2).unflatten(0, v.shape[:2])
        y = content.unsqueeze(1) @ q + torch.einsum("nvkp,nhkp->nhvp", position, q)
        out: Tensor = y.flatten(1, 2).unflatten(2, x.shape[2:])
        return out


class LambdaResNet(WideResNet):
    """A wide residual network with lambda layers; any input side and number of bands.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        depth: as `WideResNet` counts it, with two blocks a stage or more.
        options: other options of `WideResNet`.

    Shapes: (N, in_chans, H, W) → (N, num_classes).

    Raises:
        LandscaleError: a depth with one block per stage, which has no lambda layer, or with no whole number of blocks.
        UnknownName: no such attention or convolution.
    """

    def __init__(self, num_classes: int = CLASSES, in_chans: int = BANDS, *, depth: int = 16, **options: Any) -> None:
        super().__init__(num_classes, in_chans, depth=depth, **options)
        blocks = [block for block in self.modules() if isinstance(block, WideBlock) and not block.first]
        if not blocks:
            raise LandscaleError(
                f"lambda ResNet: depth {depth} has one block a stage, and lambda layers are in the others"
            )
        for block in blocks:
            block.conv2 = LambdaLayer(block.outputs)


family.add_network(
    LambdaResNet,
    ZooEntry("lambda_resnet", "lambda_resnet", "Bello 2021, LambdaNetworks; Papoutsis et al. 2022, their code", 60),
    {},
    first_conv="stem.0",
    classifier="head.fc",
    features={"flatten_sequential": True, "out_indices": range(3)},
)

# set last, because timm appends every entry point to it, and those are not attributes of this module
__all__ = ["LambdaLayer", "LambdaResNet"]
