"""Precision and compilation: the fastest on this device, unless the recipe sets them."""

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
    """reduced: whether networks compute in bfloat16. compile: whether they are compiled by torch.compile."""

    reduced: bool
    compile: bool

    def compiled(self, module: nn.Module) -> Callable[..., Any]:
        """The module, compiled if networks are compiled."""
        return torch.compile(module) if self.compile else module

    @property
    def label(self) -> str:
        """Text for the terminal."""
        return ("bf16" if self.reduced else "fp32") + (", compiled" if self.compile else "")


def fastest(recipe: Recipe, device: torch.device) -> Speed:
    """Choose precision and compilation for a device, and set torch up for it.

    Compilation pays off on GPUs. On CPUs, and where the side of the input changes during the training, it takes minutes that are
    rarely gained back.
    """
    reduced = recipe.precision == "bf16" or (recipe.precision == "auto" and reduced_precision(device.type))
    compiles = recipe.compile == "on" or (recipe.compile == "auto" and device.type == "cuda" and not recipe.progressive)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if reduced:
            torch.set_float32_matmul_precision("high")
    else:
        keep_freed_memory()  # every command has done so already; this is for training from Python
    return Speed(reduced, compiles)
