"""The networks by name: the zoo, its own families (registered with timm on import) and compound scaling."""

from landscale.models import classics, trio, wide_resnet  # in the order of the zoo
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
    "list_models",
    "register",
    "trio",
    "wide_resnet",
    "zoo",
]
