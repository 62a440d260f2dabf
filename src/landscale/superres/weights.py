"""Save and load super-resolution weights: a folder with `model.safetensors` and `config.json`, loaded without pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save_file

from landscale.errors import BadInput, reason
from landscale.runtime.documents import read_json_object, write_json
from landscale.runtime.files import atomic_folder
from landscale.superres.network import DIVISOR, DSen2, NetworkShape
from landscale.superres.planes import GROUPS

FORMAT = 1
KIND = "superres"


def save_networks(folder: Path, networks: Mapping[int, DSen2], provenance: dict[str, Any]) -> None:
    """Write the folder, complete or not at all. `provenance` records the scenes and settings of the training."""
    tensors = {
        f"{gsd}m.{name}": tensor.detach().cpu().contiguous()
        for gsd, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    with atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        content = {
            "landscale_format": FORMAT,
            "kind": KIND,
            "model": "dsen2",
            "digest": hashlib.sha256((temporary / "model.safetensors").read_bytes()).hexdigest(),
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "divisor": DIVISOR,
            "upsample": "bilinear",
            "networks": {f"{gsd}m": _shape_to_json(network.shape) for gsd, network in networks.items()},
            "provenance": provenance,
        }
        write_json(temporary / "config.json", content)


def _shape_to_json(shape: NetworkShape) -> dict[str, Any]:
    return {
        "inputs": list(shape.inputs),
        "outputs": list(shape.outputs),
        "scale": shape.scale,
        "features": shape.features,
        "blocks": shape.blocks,
    }


def read_superres_config(folder: Path) -> dict[str, Any]:
    """The content of `config.json`.

    Raises:
        BadInput: the folder holds no super-resolution weights, or their format is too new.
    """
    if not (folder / "config.json").is_file():
        raise BadInput(folder, "holds no weights: expected config.json and model.safetensors of superres train")
    content = read_json_object(folder / "config.json", "a description of super-resolution weights")
    if content.get("kind") != KIND:
        raise BadInput(folder, "holds weights of another kind, expected those of superres train")
    if content.get("landscale_format", 0) > FORMAT:
        raise BadInput(folder, f"has format {content['landscale_format']}, expected at most {FORMAT}; update landscale")
    return content


def load_networks(folder: Path) -> tuple[dict[int, DSen2], dict[str, Any]]:
    """The networks by the GSD in metres that they sharpen, and the config.

    Raises:
        BadInput: weights are missing or damaged (the digest does not match), or have other bands or another order of bands.
    """
    config = read_superres_config(folder)
    file = folder / "model.safetensors"
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != config["digest"]:
            raise BadInput(file, "is damaged: its digest differs from the one in config.json")
        tensors = load(content)
        networks = {}
        for gsd in GROUPS:
            if (saved := config["networks"].get(f"{gsd}m")) is None:
                continue
            network = DSen2(NetworkShape(gsd, saved["features"], saved["blocks"]))
            if _shape_to_json(network.shape) != saved:
                raise BadInput(
                    folder / "config.json", f"describes a {gsd} m network that this version of landscale cannot build"
                )
            prefix = f"{gsd}m."
            network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            networks[gsd] = network
    except (OSError, KeyError, TypeError, AttributeError, SafetensorError, RuntimeError) as error:
        raise BadInput(file, f"cannot be loaded ({reason(error)})") from None
    if not networks:
        raise BadInput(folder, "describes no network")
    return networks, config
