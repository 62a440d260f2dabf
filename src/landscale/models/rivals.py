"""Modern networks of timm for comparison: rows of the zoo only.

A 1.2 km patch has 120 px at 10 m. If a network needs an input side that is a multiple of its strides, windows or tokens,
the zoo has the nearest such side: 128 px for a total stride of 32 or tokens of 16 px, 126 px for tokens of 14 px.
"""

from __future__ import annotations

from landscale.models.registry import PATCH_SIDE, ZooEntry, register

_REBEN = "Clasen et al. 2024 (reBEN), BigEarthNet v2"
_ROWS = (  # name, family, side, source
    ("convnextv2_atto", "convnext", PATCH_SIDE, "Woo et al. 2023, ConvNeXt V2"),
    ("convnextv2_nano", "convnext", PATCH_SIDE, "Woo et al. 2023, ConvNeXt V2"),
    ("convnextv2_base", "convnext", PATCH_SIDE, "Woo et al. 2023, ConvNeXt V2"),
    ("tf_efficientnetv2_b0", "efficientnetv2", PATCH_SIDE, "Tan & Le 2021, EfficientNetV2"),
    ("efficientnetv2_s", "efficientnetv2", PATCH_SIDE, "Tan & Le 2021, EfficientNetV2"),
    ("swinv2_tiny_window8_256", "swinv2", 128, "Liu et al. 2022, Swin Transformer V2"),
    ("swinv2_small_window8_256", "swinv2", 128, "Liu et al. 2022, Swin Transformer V2"),
    ("maxvit_tiny_tf_224", "maxvit", 128, "Tu et al. 2022, MaxViT"),
    ("mobilevit_s", "mobilevit", 128, "Mehta & Rastegari 2022, MobileViT"),
    (
        "mobilevitv2_100",
        "mobilevit",
        128,
        "Mehta & Rastegari 2022, Separable self-attention for mobile vision transformers",
    ),
    ("mobilenetv4_conv_small", "mobilenetv4", PATCH_SIDE, "Qin et al. 2024, MobileNetV4"),
    ("mobilenetv4_conv_medium", "mobilenetv4", PATCH_SIDE, "Qin et al. 2024, MobileNetV4"),
    ("rdnet_tiny", "rdnet", PATCH_SIDE, "Kim et al. 2024, DenseNets reloaded"),
    ("rdnet_base", "rdnet", PATCH_SIDE, "Kim et al. 2024, DenseNets reloaded"),
    ("vit_small_patch8_224", "vision_transformer", PATCH_SIDE, "Dosovitskiy et al. 2021; Caron et al. 2021, DINO"),
    ("vit_base_patch8_224", "vision_transformer", PATCH_SIDE, "Dosovitskiy et al. 2021, An image is worth 16×16 words"),
    (
        "vit_small_patch14_reg4_dinov2",
        "vision_transformer",
        126,
        "Darcet et al. 2024, Vision transformers need registers",
    ),
    (
        "vit_base_patch16_reg4_gap_256",
        "vision_transformer",
        128,
        "Darcet et al. 2024, Vision transformers need registers",
    ),
    ("mixer_b16_224", "mlp_mixer", 128, "Tolstikhin et al. 2021, MLP-Mixer"),
)
_FIGURES = {  # name: bands where known, macro and micro average precision, macro and micro F1
    "mobilevit_s": ("", 0.703, 0.864, 0.638, 0.763),
    "convnextv2_base": ("", 0.692, 0.857, 0.627, 0.760),
    "vit_base_patch8_224": ("", 0.668, 0.842, 0.603, 0.746),
    "mixer_b16_224": (", S2", 0.678, 0.844, 0.616, 0.744),
    "rdnet_base": (", S2", 0.689, 0.854, 0.623, 0.755),
}


def _published(name: str) -> dict[str, dict[str, float]]:
    if name not in _FIGURES:
        return {}
    bands, macro_ap, micro_ap, macro_f1, micro_f1 = _FIGURES[name]
    figures = {"micro_f1": micro_f1, "macro_f1": macro_f1, "micro_ap": micro_ap, "macro_ap": macro_ap}
    return {f"{_REBEN}{bands}, test": figures}


_DENSE = ("convnext", "rdnet")
for _name, _family, _side, _source in _ROWS:
    register(ZooEntry(_name, _family, _source, _side, _published(_name), dense=_family in _DENSE))
