"""The training step: raw digital numbers → input stage → network → loss → gradients → updated weights.

`batch_loss` is the forward half, used by every training. `plain_step` is a whole step of one process, for studies that
time or compare networks; `trainable_model.TrainableModel.step` adds accumulation, several ranks, clipping and averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from landscale.loading import Native
from landscale.models.classifier import Classifier
from landscale.training.losses import Loss

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def batch_loss(
    inputs: Callable[..., Any],
    network: Callable[..., Any],
    loss: Loss,
    planes: Native,
    targets: Tensor,
    *,
    reduced: bool,
    augment: Augment | None = None,
) -> Tensor:
    """The loss of one batch, a scalar with its graph.

    Args:
        inputs: the input stage, planes → (n, channels, side, side).
        network: its input → logits (n, C), or (n, members, C) for an ensemble whose members each learn the same targets.
        planes: raw digital numbers by their bands.
        targets: (n, C) in 0…1, or maps (n, side, side) of the numbers of classes, for logits (n, C, side, side).
        reduced: whether the network computes in bfloat16.
        augment: changes the normalised values and the targets.
    """
    with torch.no_grad():
        values = inputs(planes)
        if augment is not None:
            values, targets = augment(values, targets)
        values = values.contiguous(memory_format=torch.channels_last)
    with torch.autocast(values.device.type, torch.bfloat16, enabled=reduced):
        logits = network(values)
    if logits.ndim == 3 and targets.ndim == 2:  # (n, members, C)
        targets = targets[:, None].expand_as(logits)
    return loss(logits, targets)


def plain_step(
    classifier: Classifier,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    planes: Native,
    targets: Tensor,
    *,
    reduced: bool,
) -> Tensor:
    """Update the classifier's network once. Returns the loss before the update, a detached scalar on the device.

    Nothing is read back from the device, so that a GPU's queue of work never runs empty.
    """
    value = batch_loss(classifier.inputs, classifier.network, loss, planes, targets, reduced=reduced)
    optimizer.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value.detach()


def use_channels_last(network: nn.Module) -> nn.Module:
    """Store a network's weights in the memory format in which convolutions are fastest."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Readings:
    """A few numbers that are being copied from a device to the host. Reading them waits for the copy, not for later work."""

    def __init__(self, values: Tensor) -> None:
        """Begin to copy values (n,)."""
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()
        else:
            self._host = values.clone()

    def read(self) -> list[float]:
        if self._copied is not None:
            self._copied.synchronize()
        return list(self._host.tolist())
