"""Wide residual networks, with attention and with Ghost convolutions, unscaled and compound-scaled.

Zagoruyko & Komodakis 2016 (Wide Residual Networks), in the form that Papoutsis et al. 2022 train on BigEarthNet:
WRN-10-2 on 60 px, with one of four attentions on every block's output before the sum, or with Ghost convolutions (Han
et al. 2020) for all but the stem's, or both; the one with efficient channel attention (Wang et al. 2020) is scaled after
Tan & Le 2019 (EfficientNet). Trainable parameters equal those of the authors' code except for Ghost convolutions and B5
to B7. Where this differs from it:

- Depth is scaled by α once: ⌊(10α − 4) / 6⌋ blocks a stage. They multiply by α again, which changes nothing up to B4
  but gives B5, B6 and B7 3, 3 and 4 blocks instead of 2: `create_model("wide_resnet_eca_b5", depth=22)`, 22 and 28.
- No 8×8 average pool before the global one. It drops rows and columns that do not fill a window: of a 60 px input, whose
  last map is 15×15, only the top left 8×8 reach their classifier. It also refuses inputs under 29 px.
- Batch norm's momentum is 0.1 in torch's definition. Theirs is 0.1 in Keras's definition: the last batch has weight 0.9.
- Dropout between the convolutions (`conv_drop_rate`) acts in every block, as in Zagoruyko & Komodakis; theirs leaves
  out the first block of a stage, which up to B4 is the only one. It is 0 by default.
- Ghost convolutions keep their depthwise half. Theirs computes it and drops it: the second half of the outputs is the
  first again, normalised. So `wide_resnet_eca_ghost` has 156,033 parameters there and 159,729 here. To each of the three
  in a block (3×3, 3×3 and the 1×1 shortcut) with m = outputs / 2 the half gives 9·m depthwise weights and 2·m of a batch
  norm: 3 · 11 · (16 + 32 + 64) = 3,696. They also have no ReLU inside, which theirs has in the second half.
- A convolution of stride 2 pads both sides alike; TensorFlow pads an even side at its end only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import ClassifierHead, DropPath
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models import family
from landscale.models.compound import WIDE_RESNET, Scaling
from landscale.models.family import BANDS, CLASSES
from landscale.models.layers import attention_layer, convolution_layer
from landscale.models.registry import ZooEntry

STEM_CHANNELS = 16


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _channels(value: float) -> int:
    """The multiple of 4 nearest to `value`, but never more than 10% below it, as MobileNet rounds."""
    rounded = max(4, int(value + 2) // 4 * 4)
    return rounded if rounded >= 0.9 * value else rounded + 4


class WideBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, pre-activated: BN–ReLU–conv–dropout–BN–ReLU–conv–attention, plus the input.

    The `first` block of a stage changes width and stride, so its shortcut is a 1×1 convolution; it starts with its
    convolution, because its input (from the stem, or the BN–ReLU at the end of a stage) is activated already.

    Shapes: (N, inputs, H, W) → (N, outputs, ⌈H / stride⌉, ⌈W / stride⌉).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        first: bool,
        conv: str,
        attention: str,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.first, self.outputs = first, outputs
        self.shortcut = convolution_layer(conv, inputs, outputs, 1, stride) if first else nn.Identity()
        self.norm1 = nn.Identity() if first else _norm_relu(inputs)
        self.conv1 = convolution_layer(conv, inputs, outputs, 3, stride)
        self.drop = nn.Dropout(drop_rate)
        self.norm2 = _norm_relu(outputs)
        self.conv2 = convolution_layer(conv, outputs, outputs, 3)
        self.attention = attention_layer(attention, outputs)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop(self.conv1(self.norm1(x)))
        y = self.attention(self.conv2(self.norm2(y)))
        out: Tensor = self.shortcut(x) + self.drop_path(y)
        return out


class WideResNet(nn.Module):
    """A wide residual network with the interface of timm's models, for any input side and number of bands.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        depth: as Zagoruyko & Komodakis count it, 2·n·stages + 4 with n blocks a stage (three stages: 10, 16, 22 …).
        width: widening factor k; stage i has 16·2^i·k channels, rounded to a multiple of 4.
        strides: one for each stage, so their number is the number of stages.
        conv: `plain` or `ghost`, for every convolution but the stem's.
        attention: `none`, `se`, `cbam`, `coord` or `eca`, on every block's output before the sum.
        conv_drop_rate: dropout between the two convolutions of a block.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth, growing from 0 at the first block to this at the last.
        global_pool: pooling before the classifier, as timm names it.

    Shapes: (N, in_chans, H, W) → (N, num_classes).

    Raises:
        LandscaleError: a depth that gives no whole number of blocks.
        UnknownName: no such attention or convolution.
    """

    def __init__(
        self,
        num_classes: int = CLASSES,
        in_chans: int = BANDS,
        *,
        depth: int = 10,
        width: float = 2.0,
        strides: Sequence[int] = (1, 2, 2),
        conv: str = "plain",
        attention: str = "none",
        conv_drop_rate: float = 0.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        if not strides:
            raise LandscaleError("wide ResNet: found no strides, expected one for each stage")
        step = 2 * len(strides)
        per_stage, rest = divmod(depth - 4, step)
        if rest or per_stage < 1:
            raise LandscaleError(f"wide ResNet: depth {depth} is not {step}·n + 4 with n ≥ 1 blocks a stage")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate

        self.stem = nn.Sequential(convolution_layer("plain", in_chans, STEM_CHANNELS, 3), _norm_relu(STEM_CHANNELS))
        self.feature_info: list[dict[str, Any]] = []
        self.stages = nn.Sequential()
        last_block = max(1, per_stage * len(strides) - 1)
        channels, reduction = STEM_CHANNELS, 1
        for i, stride in enumerate(strides):
            stage = nn.Sequential()
            for n in range(per_stage):
                inputs, channels = channels, _channels(STEM_CHANNELS * 2**i * width)
                stage.append(
                    WideBlock(
                        inputs,
                        channels,
                        stride if n == 0 else 1,
                        first=n == 0,
                        conv=conv,
                        attention=attention,
                        drop_rate=conv_drop_rate,
                        drop_path_rate=drop_path_rate * (i * per_stage + n) / last_block,
                    )
                )
            self.stages.append(stage.append(_norm_relu(channels)))
            reduction *= stride
            self.feature_info.append({"num_chs": channels, "reduction": reduction, "module": f"stages.{i}"})

        self.num_features = self.head_hidden_size = channels
        # pooled over the whole map; the authors' 8×8 pool before it would ignore incomplete windows (see above)
        self.head = ClassifierHead(channels, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        for name, module in self.named_modules():
            # fan_out, as in Zagoruyko & Komodakis. The rest keeps torch's defaults: fan_out ignores groups, and would
            # saturate the sigmoids of an attention, which has few channels inside and many outside
            if isinstance(module, nn.Conv2d) and module.groups == 1 and ".attention." not in name:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) → (N, num_features, ⌈H / r⌉, ⌈W / r⌉), where r is the product of the strides."""
        features: Tensor = self.stages(self.stem(x))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, h, w) → (N, num_classes), or the pooled input of the classifier (N, num_features)."""
        out: Tensor = self.head(x, pre_logits=pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of timm's `group_parameters`: the stem, then the stages, or with `coarse=False` their blocks."""
        norm = len(self.stages[0]) - 1  # type: ignore[arg-type]  # the last module of a stage belongs to its last block
        blocks = [(rf"^stages\.(\d+)\.{norm}\.", (99999,)), (r"^stages\.(\d+)\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` (0: none); the pooling stays unless `global_pool` names another."""
        self.num_classes = num_classes
        with next(self.parameters()).device:
            self.head.reset(num_classes, global_pool)


def blocks_per_stage(depth: float) -> int:
    """Blocks a stage of a three-stage network at the depth scaling α: ⌊(10α − 4) / 6⌋, so that α = 1 is WRN-10."""
    return int(round(10 * depth - 4, 9) // 6)


def scale_wide_resnet(scaling: Scaling) -> tuple[dict[str, Any], int]:
    """Options and input side of a three-stage network, WRN-10-2 on 60 px, at a scaling."""
    return {"depth": 6 * blocks_per_stage(scaling.depth) + 4, "width": 2 * scaling.width}, scaling.side()


_PAPER = "Papoutsis et al. 2022, Benchmarking and scaling of deep learning models for land cover image classification"
_WRN = "Zagoruyko & Komodakis 2016, Wide residual networks; Papoutsis et al. 2022"
_SE = "Hu et al. 2018, Squeeze-and-excitation networks; Papoutsis et al. 2022"
_CBAM = "Woo et al. 2018, Convolutional block attention module; Papoutsis et al. 2022"
_COORD = "Hou et al. 2021, Coordinate attention for efficient mobile network design; Papoutsis et al. 2022"
_GHOST = "Han et al. 2020, GhostNet: more features from cheap operations; Papoutsis et al. 2022"
_COUNTS = {
    "wide_resnet": 305_875,
    "wide_resnet_se": 308_801,
    "wide_resnet_eca": 305_889,
    "wide_resnet_eca_b4": 984_313,
    "wide_resnet_eca_ghost": 156_033,  # 3,696 fewer than ours (above)
}
for _name, _source, _options, _sizes in (
    ("wide_resnet", _WRN, {}, {}),
    ("wide_resnet_se", _SE, {"attention": "se"}, {}),
    ("wide_resnet_cbam", _CBAM, {"attention": "cbam"}, {}),
    ("wide_resnet_coord", _COORD, {"attention": "coord"}, {}),
    ("wide_resnet_eca", _PAPER, {"attention": "eca"}, WIDE_RESNET),
    ("wide_resnet_ghost", _GHOST, {"conv": "ghost"}, {}),
    ("wide_resnet_se_ghost", _GHOST, {"attention": "se", "conv": "ghost"}, {}),
    ("wide_resnet_cbam_ghost", _GHOST, {"attention": "cbam", "conv": "ghost"}, {}),
    ("wide_resnet_coord_ghost", _GHOST, {"attention": "coord", "conv": "ghost"}, {}),
    ("wide_resnet_eca_ghost", _GHOST, {"attention": "eca", "conv": "ghost"}, {}),
):
    family.add_network(
        WideResNet,
        ZooEntry(_name, "wide_resnet", _source, 60, scaled=scale_wide_resnet, dense=True),
        _options,
        first_conv="stem.0",
        classifier="head.fc",
        features={"flatten_sequential": True, "out_indices": range(3)},
        sizes=_sizes,
        counts=_COUNTS,
    )

# set last, because timm appends every entry point to it, and those are not attributes of this module
__all__ = ["WideBlock", "WideResNet", "blocks_per_stage", "scale_wide_resnet"]
