"""Parameters that a network uses under several names (tied weights) are saved once, under the first of the names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def shared_names(network: nn.Module) -> dict[str, str]:
    """The names of parameters and buffers that have occurred under another name, each with that first name."""
    first: dict[int, str] = {}
    tensors = network.state_dict(keep_vars=True)  # the parameters themselves, so that their identity can be compared
    return {name: first[id(tensor)] for name, tensor in tensors.items() if first.setdefault(id(tensor), name) != name}


def distinct_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network without the tensors that occur a second time."""
    shared = shared_names(network)
    return {name: tensor for name, tensor in network.state_dict().items() if name not in shared}


def with_shared(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `distinct_tensors` returned, with an entry for every name of the network, as `load_state_dict` expects.

    Entries that exist already stay, as in files that hold shared tensors several times.
    """
    copies = {name: tensors[first] for name, first in shared_names(network).items() if first in tensors}
    return copies | dict(tensors)
