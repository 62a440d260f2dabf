"""The `config.json` of weights, which holds a digest of itself and of the tensors beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.runtime.documents import read_json_object, write_json
from landscale.runtime.files import check_regular

FORMAT = 2  # 1: without `config_digest`
MAX_BYTES = 1 << 36  # of model.safetensors
BYTES_OF_PARAMETER = 16  # at most: 8 for float64, and as many again for buffers
MAX_HEADER = 1 << 26  # of model.safetensors


def write_sealed(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `config.json` into a folder that has its `model.safetensors` already; format and digests are added."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    config = {"landscale_format": FORMAT, "digest": digest, **content}
    write_json(folder / "config.json", config | {"config_digest": _digest(config)})


def read_sealed_config(file: Path, expected: str) -> dict[str, Any]:
    """The content of a `config.json`, once it matches its own digest. Arguments and errors are those of `read_sealed`."""
    config = read_json_object(file, expected, ("landscale_format", "digest"))
    check_seal(file, config)
    return config


def read_sealed(folder: Path, expected: str) -> tuple[dict[str, Any], bytes]:
    """The content of `config.json` and the bytes of `model.safetensors`, once both match their digests.

    Args:
        folder: the folder of weights.
        expected: what config.json should be, for the error message, such as "a description of landscale weights".

    Raises:
        BadInput: a file is missing, damaged, or of a newer format.
    """
    tensors = folder / "model.safetensors"
    config = read_sealed_config(folder / "config.json", expected)
    check_regular(tensors, _most_bytes(config))
    try:
        content = tensors.read_bytes()
    except OSError as error:
        raise BadInput(tensors, f"cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != config["digest"]:
        raise BadInput(tensors, "is damaged: its digest is not the one in config.json")
    return config, content


def _most_bytes(config: Mapping[str, Any]) -> int:
    """Bytes that `model.safetensors` can have, so that a larger file is refused before it is read into memory."""
    parameters = config.get("parameters")
    if type(parameters) is not int or parameters < 0:
        return MAX_HEADER
    return min(MAX_BYTES, MAX_HEADER + BYTES_OF_PARAMETER * parameters)


def check_seal(file: Path, config: Mapping[str, Any]) -> None:
    """Compare the content of a `config.json` with its digest.

    Raises:
        BadInput: it is damaged, or of a newer format.
    """
    found = config.get("landscale_format")
    if type(found) is not int or found < 1:
        raise BadInput(file, f"is not a description of landscale weights: landscale_format is {found!r}")
    if found > FORMAT:
        raise BadInput(file, f"has format {found}, this program reads up to {FORMAT}; update landscale")
    if found > 1 and config.get("config_digest") != _digest(config):
        raise BadInput(file, "is damaged or was edited: its content does not match its config_digest")


def _digest(config: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of everything in a `config.json` but the entry `config_digest` itself."""
    described = {key: value for key, value in config.items() if key != "config_digest"}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
