"""Importing this module registers every network of the zoo with timm and in `registry.ZOO`.

To add a family, add a file and one line here. The order of these lines is the order of the zoo.
"""

# ruff: noqa: F401
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
