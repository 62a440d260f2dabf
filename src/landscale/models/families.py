"""Importing this module registers every network of the zoo, with timm and in `registry.ZOO`."""

from landscale.models import (
    classics,
    efficientnet60,
    k_branch,
    lambda_resnet,
    mixer,
    rivals,
    trio,
    vgg_gap,
    vit,
    wide_resnet,
)

__all__ = [
    "classics",
    "efficientnet60",
    "k_branch",
    "lambda_resnet",
    "mixer",
    "rivals",
    "trio",
    "vgg_gap",
    "vit",
    "wide_resnet",
]
