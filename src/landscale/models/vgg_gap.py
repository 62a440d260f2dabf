"""VGG without its dense layers: global average pooling, then one dense layer.

Simonyan & Zisserman 2015 (Very deep convolutional networks), configurations D and E, as Papoutsis et al. 2022 train them
on BigEarthNet: a tenth of the parameters, and equal to those of the authors' code. timm's `vgg16` keeps the two dense
layers of 4,096, which hold the other nine tenths.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import ClassifierHead
from torch import Tensor, nn

from landscale.models import family
from landscale.models.family import BANDS, CLASSES
from landscale.models.registry import ZooEntry

WIDTHS = (64, 128, 256, 512, 512)


class VggGap(nn.Module):
    """Stages of 3×3 convolutions and ReLU, each followed by 2×2 max pooling; without batch norm, as published.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        convolutions: how many in each of the five stages.
        drop_rate: dropout before the classifier.
        global_pool: pooling before the classifier, as timm names it.

    Shapes: (N, in_chans, H, W) → (N, num_classes), H and W at least 32.
    """

    def __init__(
        self,
        num_classes: int = CLASSES,
        in_chans: int = BANDS,
        *,
        convolutions: Sequence[int] = (2, 2, 3, 3, 3),
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.feature_info: list[dict[str, Any]] = []
        self.stages = nn.Sequential()
        channels = in_chans
        for i, (repeats, width) in enumerate(zip(convolutions, WIDTHS, strict=True)):
            stage = nn.Sequential()
            for _ in range(repeats):
                stage.append(nn.Conv2d(channels, width, 3, padding=1)).append(nn.ReLU(inplace=True))
                channels = width
            self.stages.append(stage.append(nn.MaxPool2d(2)))
            self.feature_info.append({"num_chs": width, "reduction": 2 ** (i + 1), "module": f"stages.{i}"})
        self.num_features = self.head_hidden_size = channels
        self.head = ClassifierHead(channels, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        for module in self.stages.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) → (N, 512, ⌊H / 32⌋, ⌊W / 32⌋)."""
        features: Tensor = self.stages(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, 512, h, w) → (N, num_classes), or the pooled input of the classifier (N, 512)."""
        out: Tensor = self.head(x, pre_logits=pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of timm's `group_parameters`: the stages, or with `coarse=False` their convolutions."""
        return {"blocks": r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` (0: none); the pooling stays unless `global_pool` names another."""
        self.num_classes = num_classes
        with next(self.parameters()).device:
            self.head.reset(num_classes, global_pool)
        self.head_hidden_size = self.head.in_features * self.head.global_pool.feat_mult()


_SOURCE = "Simonyan & Zisserman 2015, Very deep convolutional networks; Papoutsis et al. 2022"
for _name, _convolutions in (("vgg16_gap", (2, 2, 3, 3, 3)), ("vgg19_gap", (2, 2, 4, 4, 4))):
    family.add_network(
        VggGap,
        ZooEntry(_name, "vgg", _SOURCE, dense=True),
        {"convolutions": _convolutions},
        first_conv="stages.0.0",
        classifier="head.fc",
        features={"flatten_sequential": True, "out_indices": range(5)},
        counts={"vgg16_gap": 14_728_467, "vgg19_gap": 20_038_163},
    )

__all__ = ["VggGap"]  # set last, because timm appends every entry point to it
