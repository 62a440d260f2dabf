"""Asynchronous copies from the host to a device."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; if that is a CPU, return the tensor itself.

    A copy from ordinary memory would make the host wait until the GPU has done all its work, so it goes through pinned memory.
    """
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
