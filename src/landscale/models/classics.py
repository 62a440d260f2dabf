"""Networks of Papoutsis et al. 2022 that timm has, as rows of the zoo, and the ResNet-50 of Sedona et al. 2019.

Parameters compared with the authors' (10 bands, 19 classes): DenseNets and EfficientNets are equal. Their ResNets are Keras's,
whose convolutions have biases, which the batch norms after them cancel: one for each output channel of each convolution,
26,560 in ResNet-50, 52,672 in ResNet-101 and 75,712 in ResNet-152. timm's have none.
"""

from __future__ import annotations

from typing import Any

from timm.models.resnet import Bottleneck, ResNet

from landscale.models import family
from landscale.models.registry import AUTHORS, ZooEntry, register

_HE = "He et al. 2016, Deep residual learning for image recognition"
_HUANG = "Huang et al. 2017, Densely connected convolutional networks"
_TAN = "Tan & Le 2019, EfficientNet: rethinking model scaling for convolutional neural networks"
_SEDONA = "Sedona et al. 2019, Remote sensing big data classification with high performance distributed deep learning"
_REBEN = "Clasen et al. 2024 (reBEN), BigEarthNet v2, S1+S2, test"
_AITLAS = "AiTLAS, BigEarthNet v1, 19 classes, RGB, from scratch"

_COUNTS = {
    "resnet50": 23_595_475,
    "resnet101": 42_613_715,
    "resnet152": 58_280_403,
    "densenet121": 6_995_283,
    "densenet169": 12_538_067,
    "densenet201": 18_151_379,
    "efficientnet_b0": 4_033_903,
    "efficientnet_b1": 6_539_539,
    "efficientnet_b7": 63_839_651,
}
_FIGURES = {
    "resnet50": {
        _REBEN: {"micro_f1": 0.767, "macro_f1": 0.644, "micro_ap": 0.861, "macro_ap": 0.703},
        _AITLAS: {"micro_f1": 0.775, "macro_f1": 0.701},
    },
}

for _family, _source, _names in (
    ("resnet", _HE, ("resnet18", "resnet50", "resnet101", "resnet152")),
    ("densenet", _HUANG, ("densenet121", "densenet169", "densenet201")),
    ("efficientnet", _TAN, tuple(f"efficientnet_b{i}" for i in range(8))),
):
    for _name in _names:
        _published: dict[str, dict[str, float]] = {AUTHORS: {"parameters": _COUNTS[_name]}} if _name in _COUNTS else {}
        _published |= _FIGURES.get(_name, {})
        register(ZooEntry(_name, _family, _source, published=_published, dense=_family != "efficientnet"))


class SedonaResNet50(ResNet):
    """ResNet-50 as Sedona et al. 2019 train it: dropout of 0.5 before the last dense layer; 12 bands and 43 classes.

    Their L2 on the convolutions is the optimiser's weight decay (recipe `sedona2019`), not part of the network.

    Shapes: (N, in_chans, H, W) → (N, num_classes).
    """

    def __init__(self, num_classes: int = 43, in_chans: int = 12, *, drop_rate: float = 0.5, **options: Any) -> None:
        block: Any = Bottleneck  # timm's annotation is that of an instance, but the class is expected
        super().__init__(block, (3, 4, 6, 3), num_classes, in_chans, drop_rate=drop_rate, **options)


family.add_network(
    SedonaResNet50,
    ZooEntry("resnet50_sedona2019", "resnet", _SEDONA, dense=True),
    {"in_chans": 12, "num_classes": 43},
    first_conv="conv1",
    classifier="fc",
)

__all__ = ["SedonaResNet50"]  # set last, because timm appends every entry point to it
