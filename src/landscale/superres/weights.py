"""Save and load super-resolution weights: a folder with `model.safetensors` and `config.json`, loaded without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from landscale.errors import BadInput, reason
from landscale.models.weights import check_finite
from landscale.runtime.documents import typed
from landscale.runtime.files import atomic_folder
from landscale.runtime.sealed_config import read_sealed, read_sealed_config, write_sealed
from landscale.superres.network import DIVISOR, DSen2, NetworkShape
from landscale.superres.planes import GROUPS
from landscale.vocabulary.units import Level

KIND = "superres"
_EXPECTED = "a description of super-resolution weights"


@dataclass(frozen=True)
class _SavedNetwork:
    """A network in `config.json`, as `_shape_to_json` writes it."""

    inputs: list[str]
    outputs: list[str]
    scale: int
    features: Annotated[int, Meta(ge=1, le=1024)]
    blocks: Annotated[int, Meta(ge=0, le=128)]


@dataclass(frozen=True)
class _SavedPixels:
    """Unit and processing level of the pixels in training, in `config.json`; absent in older weights."""

    unit: Literal["digital number", "unknown"] = "unknown"
    level: Level = "unknown"


def save_networks(
    folder: Path, networks: Mapping[int, DSen2], provenance: dict[str, Any], level: Level = "unknown"
) -> None:
    """Write the folder, complete or not at all.

    Args:
        folder: replaced if it exists.
        networks: by the GSD in metres that they sharpen.
        provenance: scenes and settings of the training.
        level: processing level of the scenes.
    """
    tensors = {
        f"{gsd}m.{name}": tensor.detach().cpu().contiguous()
        for gsd, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    with atomic_folder(folder) as temporary:
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        content = {
            "kind": KIND,
            "model": "dsen2",
            "parameters": sum(tensor.numel() for tensor in tensors.values()),
            "divisor": DIVISOR,
            **asdict(_SavedPixels("digital number", level)),
            "upsample": "bilinear",
            "networks": {f"{gsd}m": _shape_to_json(network.shape) for gsd, network in networks.items()},
            "provenance": provenance,
        }
        write_sealed(temporary, content)


def _shape_to_json(shape: NetworkShape) -> dict[str, Any]:
    return {
        "inputs": list(shape.inputs),
        "outputs": list(shape.outputs),
        "scale": shape.scale,
        "features": shape.features,
        "blocks": shape.blocks,
    }


def read_superres_config(folder: Path) -> dict[str, Any]:
    """Landscale's entries in `config.json`. The files beside it are not read.

    Raises:
        BadInput: the folder holds no super-resolution weights, or their format is too new.
    """
    if not (folder / "config.json").is_file():
        raise BadInput(folder, "holds no weights: expected config.json and model.safetensors of superres train")
    content = read_sealed_config(folder / "config.json", _EXPECTED)
    if content.get("kind") != KIND:
        raise BadInput(folder, "holds weights of another kind, expected those of superres train")
    return content


def load_networks(folder: Path) -> tuple[dict[int, DSen2], dict[str, Any]]:
    """The networks by the GSD in metres that they sharpen, and the config.

    Raises:
        BadInput: weights are missing or damaged (the digest does not match), or have other bands or another order of bands.
    """
    config = read_superres_config(folder)
    file = folder / "model.safetensors"
    _, content = read_sealed(folder, _EXPECTED)
    saved_pixels = {key: config[key] for key in ("unit", "level") if key in config}
    config |= asdict(typed(folder / "config.json", saved_pixels, _SavedPixels, _EXPECTED))
    described = typed(folder / "config.json", config.get("networks"), dict[str, _SavedNetwork], _EXPECTED)
    try:
        tensors = load(content)
        networks = {}
        for gsd in GROUPS:
            if (saved := described.get(f"{gsd}m")) is None:
                continue
            # Memory is allocated for tensors that are there, not for those that are described.
            with torch.device("meta"):
                network = DSen2(NetworkShape(gsd, saved.features, saved.blocks))
            if _shape_to_json(network.shape) != asdict(saved):
                raise BadInput(
                    folder / "config.json", f"describes a {gsd} m network that this version of landscale cannot build"
                )
            prefix = f"{gsd}m."
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            network.load_state_dict(own, assign=True)
            networks[gsd] = network.float()
    except (OSError, KeyError, TypeError, AttributeError, SafetensorError, RuntimeError) as error:
        raise BadInput(file, f"cannot be loaded ({reason(error)})") from None
    if not networks:
        raise BadInput(folder, "describes no network")
    known = tuple(f"{gsd}m." for gsd in networks)
    if foreign := [name for name in tensors if not name.startswith(known)]:
        raise BadInput(file, f"does not fit config.json: has an unexpected tensor {foreign[0]}")
    check_finite(file, tensors)
    return networks, config
