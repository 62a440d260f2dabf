"""Precision and compilation: what this device does fastest, unless the recipe says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from landscale.models.classifier import reduced_precision
from landscale.runtime.portability import keep_freed_memory
from landscale.training.recipe import Recipe


@dataclass(frozen=True)
class Speed:
    """reduced: whether to compute in bf16. compile: whether networks are compiled."""

    reduced: bool
    compile: bool

    def compiled(self, module: nn.Module) -> Callable[..., Any]:
        """What to call instead of a module."""
        return torch.compile(module) if self.compile else module

    @property
    def told(self) -> str:
        return ("bf16" if self.reduced else "fp32") + (", compiled" if self.compile else "")


def fastest(recipe: Recipe, device: torch.device) -> Speed:
    """Set this process up for the device.

    Compilation pays on GPUs; on CPUs, and where the side of the input changes during the training, the minutes that it
    takes rarely come back.
    """
    reduced = recipe.precision == "bf16" or (recipe.precision == "auto" and reduced_precision(device.type))
    compiles = recipe.compile == "on" or (recipe.compile == "auto" and device.type == "cuda" and not recipe.progressive)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if reduced:
            torch.set_float32_matmul_precision("high")
    else:
        keep_freed_memory()  # as every command does; here for those who train from Python
    return Speed(reduced, compiles)
