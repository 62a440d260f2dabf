"""Read pickled tensors with torch's restricted unpickler, which creates tensors and plain containers and calls nothing else.

They become a safetensors file at once. This module is only given files that the user has named, or whose digest is published.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from landscale.errors import BadInput, reason
from landscale.models.encoders.cache import cache_folder
from landscale.runtime.files import atomic_file, check_regular, sha256_of

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_NESTED = ("state_dict", "model", "model_state", "teacher", "module")  # keys under which training programs put tensors
_MAX_BYTES = 1 << 36


def check_digest(path: Path, published: str) -> str:
    """Compare a file with its published digest ("sha256:" and all or the first digits of it); returns the whole SHA-256.

    Raises:
        BadInput: they differ, or the file cannot be read.
    """
    found = sha256_of(path, _MAX_BYTES)
    if not f"sha256:{found}".startswith(published):
        raise BadInput(
            path, f"has the SHA-256 {found}, its publisher gives {published.removeprefix('sha256:')}; not read"
        )
    return found


def read_pickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file by name, also from the checkpoint of a training, whose other content is left out.

    Raises:
        BadInput: it is damaged, needs more than the restricted unpickler does, or holds no tensors by name.
    """
    check_regular(path, _MAX_BYTES)
    try:
        with warnings.catch_warnings(action="ignore"):  # about how the file was written, which the user cannot change
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files lead to errors of many kinds
        if type(error).__name__ == "UnpicklingError":
            raise BadInput(path, "needs more than tensors to be unpickled, which can run any code; not read") from None
        raise BadInput(path, f"is not a file of tensors by torch.save ({reason(error)})") from None
    for key in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    items = content.items() if isinstance(content, Mapping) else ()
    found = {key: value for key, value in items if isinstance(key, str) and isinstance(value, Tensor)}
    if not found:
        raise BadInput(path, "holds no tensors by name, expected the state_dict of a network")
    for key, tensor in found.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
            raise BadInput(path, f"holds a sparse, quantised or empty tensor, {key}, expected dense numbers")
    return found


def as_safetensors(path: Path) -> Path:
    """The safetensors file, in the cache, of a pickled file that the user has named.

    Raises:
        BadInput: it cannot be read, or the cache cannot be written.
    """
    out = cache_folder() / "files" / f"{sha256_of(path, _MAX_BYTES)}.safetensors"
    if out.is_file():
        return out
    tensors = read_pickled(path)
    try:
        with atomic_file(out) as temporary:
            save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary)
    except OSError as error:
        raise BadInput(out, f"cannot be written ({reason(error)}); LANDSCALE_CACHE names another place") from None
    return out
