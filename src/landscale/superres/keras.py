"""Convert the authors' published weights (Keras, HDF5) to networks of this package.

Reads files of `model.save` and `save_weights`: one group a layer, with `kernel:0` (height, width, in, out) and `bias:0`. Keras
numbers convolutions (`conv2d_1` …) in the order in which they are made, which is the order in DSen2. The number of channels
determines the network: 10 in and 6 out sharpen 20 m, 12 in and 2 out sharpen 60 m. Bands are in the order of `planes.GROUPS`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.superres.network import DSen2, NetworkShape

_Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # kernel and bias


def convert_keras(paths: Sequence[Path]) -> dict[int, DSen2]:
    """The networks in Keras files, by the GSD in metres that they sharpen.

    Raises:
        BadInput: a file cannot be read or holds another network, or two files hold networks for the same bands.
    """
    networks: dict[int, DSen2] = {}
    for path in paths:
        network = _build_network(path, _read_layers(path))
        gsd = network.shape.gsd
        if gsd in networks:
            raise BadInput(path, f"is a second network for {gsd} m")
        networks[gsd] = network
    return dict(sorted(networks.items()))


def _read_layers(path: Path) -> list[_Layer]:
    """Kernels and biases in the order in which the layers were made."""
    found: dict[str, dict[str, NDArray[np.float32]]] = {}

    def collect(name: str, item: h5py.Dataset | h5py.Group) -> None:
        layer, _, array = name.rpartition("/")
        array = array.removesuffix(":0")
        if isinstance(item, h5py.Dataset) and array in ("kernel", "bias") and "optimizer_weights" not in name:
            found.setdefault(layer, {})[array] = np.asarray(item, np.float32)

    try:
        with h5py.File(path) as file:
            file.get("model_weights", file).visititems(collect)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(path, f"is no HDF5 file of Keras ({reason(error)})") from None
    layers = [found[layer] for layer in sorted(found, key=_layer_number)]
    if any(len(layer) < 2 for layer in layers):
        raise BadInput(path, "has a layer without kernel:0 or bias:0")
    return [(layer["kernel"], layer["bias"]) for layer in layers]


def _layer_number(layer: str) -> int:
    """12 for `conv2d_12/conv2d_12`, 0 for `conv2d`."""
    number = re.search(r"_(\d+)$", layer)
    return int(number[1]) if number else 0


def _build_network(path: Path, layers: list[_Layer]) -> DSen2:
    kernels = [kernel.shape for kernel, _ in layers]
    if len(layers) < 4 or len(layers) % 2 or any(len(k) != 4 or k[:2] != (3, 3) for k in kernels):
        raise BadInput(path, f"holds {len(layers)} layers, expected DSen2's even number of 3×3 convolutions")
    gsd = {(10, 6): 20, (12, 2): 60}.get((kernels[0][2], kernels[-1][3]))
    if gsd is None:
        found = f"takes {kernels[0][2]} bands and gives {kernels[-1][3]}"
        raise BadInput(path, f"{found}, expected 10 and 6 (20 m) or 12 and 2 (60 m)")
    network = DSen2(NetworkShape(gsd, kernels[0][3], (len(layers) - 2) // 2))
    middle = [conv for block in network.blocks for conv in (block.first, block.second)]  # type: ignore[union-attr]
    for conv, (kernel, bias) in zip([network.head, *middle, network.tail], layers, strict=True):
        values = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()), torch.from_numpy(bias)
        if values[0].shape != conv.weight.shape or values[1].shape != conv.bias.shape:  # type: ignore[union-attr]
            expected = tuple(conv.weight.permute(2, 3, 1, 0).shape)  # type: ignore[operator, union-attr]
            raise BadInput(path, f"has a kernel of shape {kernel.shape}, expected {expected} in a network of DSen2")
        with torch.no_grad():
            conv.weight.copy_(values[0])  # type: ignore[operator, union-attr]
            conv.bias.copy_(values[1])  # type: ignore[operator, union-attr]
    return network
