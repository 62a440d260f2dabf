"""EfficientNet for 60 px, on timm's: with one of four attentions, with Ghost convolutions, or both, and compound-scaled.

Tan & Le 2019 (EfficientNet), whose blocks are MobileNetV2's (Sandler et al. 2018), in the form that Papoutsis et al. 2022
train on BigEarthNet: EfficientNet-B0 with fewer strides and another attention, which acts on the expanded channels.
Differences from the authors' code:

- No biases in convolutions that a batch norm follows, which cancels them: 21,008 parameters fewer.
- The first block, whose expansion is 1, has no 1×1 convolution from 32 to 32 channels with bias and batch norm: 1,120
  fewer. That is the whole difference of 22,128, whatever the attention.
- Ghost convolutions (Han et al. 2020) replace the 1×1 expansions and projections, as in GhostNet, and keep their
  depthwise half, which the authors' code drops. Both halves contain a batch norm, so the block's own batch norm after
  them is left out and only its activation is kept.
- A convolution of stride 2 pads both sides alike; TensorFlow pads an even side at its end only.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from timm.models._efficientnet_blocks import DepthwiseSeparableConv, InvertedResidual
from timm.models.efficientnet import EfficientNet, decode_arch_def, round_channels
from torch import nn

from landscale.models import family
from landscale.models.compound import EFFICIENTNET, EFFICIENTNET_DROPOUT, Scaling
from landscale.models.family import BANDS, CLASSES
from landscale.models.layers import attention_layer, convolution_layer
from landscale.models.registry import ZooEntry

# channels, expansion, blocks, kernel and stride of the first block of each stage
STAGES = (
    (16, 1, 1, 3, 1),
    (24, 6, 2, 3, 2),
    (40, 6, 2, 5, 2),
    (80, 6, 3, 3, 2),
    (112, 6, 3, 5, 1),
    (192, 6, 4, 5, 2),
    (320, 6, 1, 3, 1),
)
LAST_CHANNELS = 1280


def _blocks(depth: float) -> Any:
    # `ds` is timm's block without expansion, `ir` the inverted residual; repeats are scaled and rounded up
    words = [[f"{'ds' if e == 1 else 'ir'}_r{r}_k{k}_s{s}_e{e}_c{c}"] for c, e, r, k, s in STAGES]
    return decode_arch_def(words, depth_multiplier=depth)  # type: ignore[no-untyped-call]


POINTWISE = {  # block of timm → names of its 1×1 convolutions and of the batch norms after them
    DepthwiseSeparableConv: (("conv_pw", "bn2"),),
    InvertedResidual: (("conv_pw", "bn1"), ("conv_pwl", "bn3")),
}


def _refit(block: Any, attention: str, conv: str) -> None:
    """Add the attention to one of timm's blocks, and replace its 1×1 convolutions if `conv` is not `plain`.

    The new convolutions contain batch norms, so only the activations of the block's own batch norms are kept.
    """
    block.se = attention_layer(attention, block.conv_dw.out_channels)
    if conv != "plain":
        for name, norm in POINTWISE[type(block)]:
            plain = getattr(block, name)
            setattr(block, name, convolution_layer(conv, plain.in_channels, plain.out_channels, 1))
            setattr(block, norm, getattr(block, norm).act)


class EfficientNet60(EfficientNet):
    """timm's EfficientNet with these stages; any input side and number of bands.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        attention: `none`, `se`, `cbam`, `coord` or `eca`, on the expanded channels of every block.
        conv: `plain` or `ghost`, for the 1×1 expansions and projections.
        width: multiple of all channels, rounded to multiples of 8.
        depth: multiple of the blocks of each stage, rounded up.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth, growing from 0 at the first block.
        global_pool: pooling before the classifier, as timm names it.

    Shapes: (N, in_chans, H, W) → (N, num_classes).

    Raises:
        UnknownName: no such attention or convolution.
    """

    def __init__(
        self,
        num_classes: int = CLASSES,
        in_chans: int = BANDS,
        *,
        attention: str = "none",
        conv: str = "plain",
        width: float = 1.0,
        depth: float = 1.0,
        drop_rate: float = 0.2,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        rounded = partial(round_channels, multiplier=width)
        super().__init__(
            _blocks(depth),
            num_classes,
            rounded(LAST_CHANNELS),
            in_chans,
            act_layer=nn.SiLU,
            round_chs_fn=rounded,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
        )
        # after timm's initialisation by fan-out, which would saturate the sigmoids of an attention
        for block in [module for module in self.modules() if type(module) in POINTWISE]:
            _refit(block, attention, conv)


def scale_efficientnet60(scaling: Scaling) -> tuple[dict[str, Any], int]:
    """Options and input side for a scaling of the network for 60 px, with the dropout of the published size nearest in cost."""
    size = min(EFFICIENTNET, key=lambda size: abs(EFFICIENTNET[size].cost - scaling.cost))
    options = {"depth": scaling.depth, "width": scaling.width, "drop_rate": EFFICIENTNET_DROPOUT[size]}
    return options, scaling.side()


_PAPERS = {
    "none": "Tan & Le 2019, EfficientNet",
    "se": "Hu et al. 2018, Squeeze-and-excitation networks",
    "cbam": "Woo et al. 2018, CBAM",
    "coord": "Hou et al. 2021, Coordinate attention",
    "eca": "Wang et al. 2020, ECA-Net",
}
for _attention, _paper in _PAPERS.items():
    for _conv in ("plain", "ghost"):
        _name = "efficientnet60" + (f"_{_attention}" if _attention != "none" else "")
        _source = f"{_paper}; Papoutsis et al. 2022"
        if _conv == "ghost":
            _name, _source = f"{_name}_ghost", f"{_paper}; Han et al. 2020, GhostNet; Papoutsis et al. 2022"
        family.add_network(
            EfficientNet60,
            ZooEntry(_name, "efficientnet60", _source, 60, scaled=scale_efficientnet60),
            {"attention": _attention, "conv": _conv},
            first_conv="conv_stem",
            classifier="classifier",
            features={"flatten_sequential": True, "out_indices": range(5)},
            sizes=EFFICIENTNET if _name == "efficientnet60_eca" else None,
            counts={
                "efficientnet60_se": 4_369_171,
                "efficientnet60_coord": 4_149_287,
                "efficientnet60_eca": 3_419_583,
            },
        )

__all__ = ["EfficientNet60", "scale_efficientnet60"]  # set last, because timm appends every entry point to it
