"""A training's state as one file: tensors in safetensors, everything else as JSON in its header. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscale.errors import BadInput
from landscale.files import whole


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
        raise BadInput(path, f"is no whole checkpoint ({str(error).splitlines()[0]})") from None


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by `optimizer.<parameter>.<key>`; numbers become tensors."""
    content = optimizer.state_dict()["state"]
    return {
        f"optimizer.{k}.{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for k, values in content.items()
        for key, value in values.items()
        if value is not None
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give back what `pack_optimizer` took. Groups and rates are the recipe's and stay."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, k, key = name.split(".", 2)
            state.setdefault(int(k), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
