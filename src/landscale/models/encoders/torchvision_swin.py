"""Swin Transformer v2 as torchvision names its tensors, in which TorchGeo publishes Satlas' weights → timm's names.

Both compute the same from the same numbers. torchvision has one bias for queries, keys and values, whose middle third, that of
the keys, it replaces by 0 whenever it runs; timm has a bias for queries and one for values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from landscale.errors import BadInput

_BLOCK = re.compile(r"features\.(\d+)\.(\d+)\.(norm1|norm2|attn|mlp)\.(.+)")
_MERGING = re.compile(r"features\.(\d+)\.(reduction|norm)\.(.+)")
_COMPUTED = ("relative_position_index", "relative_coords_table")  # buffers that follow from the size of a window
_LAYERS = {"mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2"}


def is_torchvision_swin(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of torchvision's Swin Transformer v2."""
    return "features.1.0.attn.cpb_mlp.0.weight" in tensors


def timm_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under timm's names.

    Raises:
        BadInput: a name is not one of torchvision's.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_COMPUTED):
            continue
        if name.endswith("attn.qkv.bias"):
            block = _timm_name(name, path).removesuffix("qkv.bias")
            third = len(tensor) // 3
            found |= {f"{block}q_bias": tensor[:third], f"{block}v_bias": tensor[2 * third :]}
        else:
            found[_timm_name(name, path)] = tensor
    return found


def _timm_name(name: str, path: Path) -> str:
    if match := _BLOCK.fullmatch(name):
        stage, block, part, rest = match.groups()
        inner = f"{part}.{rest}"
        for theirs, ours in _LAYERS.items():
            if inner.startswith(f"{theirs}."):
                inner = ours + inner.removeprefix(theirs)
        return f"layers.{(int(stage) - 1) // 2}.blocks.{block}.{inner}"
    if match := _MERGING.fullmatch(name):
        stage, part, rest = match.groups()
        return f"layers.{int(stage) // 2}.downsample.{part}.{rest}"
    for theirs, ours in {
        "features.0.0": "patch_embed.proj",
        "features.0.2": "patch_embed.norm",
        "head": "head.fc",
    }.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    if name.startswith("norm."):
        return name
    raise BadInput(path, f"has an unexpected tensor {name}")
