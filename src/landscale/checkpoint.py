"""A training's state as one file: tensors in safetensors, everything else as JSON in its header. No pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscale.errors import BadInput, reason
from landscale.files import whole


@dataclass
class State:
    """Where a training stands. All of it, with the tensors, is in every checkpoint."""

    total: int
    """steps that are planned in all"""
    step: int = 0
    """steps that are done"""
    progress: float = 0.0
    """share of the plan that is done, as the schedule sees it"""
    loss: float = 0.0
    """sum over the steps of this epoch"""
    seconds: float = 0.0
    """time spent, over all sessions"""
    ranks: int = 1
    """processes: what a step and an epoch are depends on their number"""
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write whole or not at all: a reader finds the old checkpoint or the new one."""
    packed = {name: t.detach().contiguous() for name, t in tensors.items()}
    with whole(path) as temporary:
        save_file(packed, temporary, metadata={"state": json.dumps(state)})


def load_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state.

    Raises:
        BadInput: no checkpoint of ours.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
            return tensors, json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BadInput(path, f"is no whole checkpoint ({reason(error)})") from None


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's tensors by `optimizer.<parameter>.<key>`, and its numbers, which as tensors would lose digits.

    Groups are `group0`, `group1` …: timm's LAMB and Lookahead count their steps there.
    """
    content = optimizer.state_dict()
    parts = {str(k): values for k, values in content["state"].items()}
    parts |= {f"group{k}": group for k, group in enumerate(content["param_groups"])}
    named = {f"optimizer.{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in named.items() if isinstance(value, int | float)}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Give back what `pack_optimizer` took."""
    groups = optimizer.state_dict()["param_groups"]
    parts: dict[str, dict[str, Any]] = {f"group{k}": group for k, group in enumerate(groups)}
    for name, value in (tensors | numbers).items():
        if name.startswith("optimizer."):
            _, part, key = name.split(".", 2)
            parts.setdefault(part, {})[key] = value
    state = {int(part): values for part, values in parts.items() if not part.startswith("group")}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            if (
                isinstance(value, Tensor) and value.shape == parameter.shape
            ):  # in its memory order, as sums depend on it
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
