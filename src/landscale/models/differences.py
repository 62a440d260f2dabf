"""Reasons why networks have more or fewer parameters than in the code of Papoutsis et al. 2022 (10 bands, 19 classes)."""

from __future__ import annotations

_BIASES = "biases of convolutions before batch norms, which cancel them, are left out"
_EXPANSION = "the first block's 1×1 expansion by 1 is left out"
_POSITIONS = "every token has a learned position; in the authors' code all positions lie on one line"
_NORMS = "layer norms are over channels; in the authors' code they are over tokens"
_GHOST = "ghost modules use their depthwise half, which the authors' code computes and drops"

PARTS: dict[
    str, dict[str, int]
] = {  # network → reason → parameters of landscale's network − parameters of the authors'
    "resnet50": {_BIASES: -26_560},
    "resnet101": {_BIASES: -52_672},
    "resnet152": {_BIASES: -75_712},
    "efficientnet60_se": {_BIASES: -21_008, _EXPANSION: -1_120},
    "efficientnet60_coord": {_BIASES: -21_008, _EXPANSION: -1_120},
    "efficientnet60_eca": {_BIASES: -21_008, _EXPANSION: -1_120},
    "vit_6": {_POSITIONS: 25_536},
    "vit_12": {_POSITIONS: 6_336},
    "vit_20": {_POSITIONS: 2_240},
    "mlp_mixer": {_NORMS: 448},
    "mlp_mixer_tiny": {_NORMS: -288},
    "wide_resnet_eca_ghost": {_GHOST: 3_696},
}


def reasons_for_differences(names: list[str]) -> list[str]:
    """One line for each reason why any of these networks differs."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        for reason, number in PARTS.get(name, {}).items():
            by_reason.setdefault(reason, []).append(f"`{name}` {format_difference(number)}")
    return [f"{reason}: {', '.join(numbers)}" for reason, numbers in by_reason.items()]


def format_difference(number: int) -> str:
    """A number with sign and separators: −26,560, +448 or 0."""
    return f"{number:+,}".replace("-", "−") if number else "0"
