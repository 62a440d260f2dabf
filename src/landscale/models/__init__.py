"""Networks by name (the zoo), compound scaling, the input stage, the classifier and its weights.

Names are imported when they are first used, so that the zoo can be listed without importing torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landscale.models.compound import Scaling, candidates
    from landscale.models.registry import ZOO, ZooEntry, create_model, describe_model, list_models, register, zoo

__all__ = [
    "ZOO",
    "Scaling",
    "ZooEntry",
    "candidates",
    "create_model",
    "describe_model",
    "list_models",
    "register",
    "zoo",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'landscale.models' has no attribute '{name}'")
    importlib.import_module("landscale.models.families")
    source = "compound" if name in ("Scaling", "candidates") else "registry"
    return getattr(importlib.import_module(f"landscale.models.{source}"), name)
