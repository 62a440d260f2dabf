"""The networks by name: the zoo, its own families (registered with timm on import) and compound scaling."""

from landscale.models.registry import ZOO, ZooEntry, create, describe, list_models, register, zoo
from landscale.models.scaling import Scaling, candidates

__all__ = ["ZOO", "Scaling", "ZooEntry", "candidates", "create", "describe", "list_models", "register", "zoo"]
