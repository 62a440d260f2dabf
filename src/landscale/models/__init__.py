"""The networks by name: the zoo, its own families (registered with timm on import) and compound scaling."""

from landscale.models import (  # each adds its rows to the zoo
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
from landscale.models.registry import ZOO, ZooEntry, create, describe, list_models, register, zoo
from landscale.models.scaling import Scaling, candidates

__all__ = [
    "ZOO",
    "Scaling",
    "ZooEntry",
    "candidates",
    "classics",
    "create",
    "describe",
    "efficientnet60",
    "k_branch",
    "lambda_resnet",
    "list_models",
    "mixer",
    "register",
    "rivals",
    "trio",
    "vgg_gap",
    "vit",
    "wide_resnet",
    "zoo",
]
