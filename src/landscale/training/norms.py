"""Batch normalisation over the batches of all ranks, so that small batches on many ranks train like one large batch."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from timm.layers import convert_sync_batchnorm as convert_on_gpus
from torch import Tensor, nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def synchronise_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """Make the batch-norm layers of a network use the batches of all ranks; names and parameters do not change.

    On GPUs they become torch's SyncBatchNorm (timm's where an activation follows), which does not run on CPUs.
    """
    if device.type == "cuda":
        converted: nn.Module = convert_on_gpus(network)  # type: ignore[no-untyped-call]
        return converted
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return network


def _forward(norm: BatchNorm, values: Tensor) -> Tensor:
    out = _normalise_over_ranks(norm, values) if norm.training else _normalise_by_running(norm, values)
    if isinstance(norm, BatchNormAct2d):
        out = norm.act(norm.drop(out))
    return out


def _normalise_by_running(norm: BatchNorm, values: Tensor) -> Tensor:
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _normalise_over_ranks(norm: BatchNorm, values: Tensor) -> Tensor:
    """Values (n, C, …) normalised by mean and variance over the patches of all ranks (Ioffe & Szegedy 2015, algorithm 1)."""
    axes = [0, *range(2, values.ndim)]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    x = values.float()
    count = torch.full((1,), float(values.numel() // values.shape[1]))
    sums = sum_over_ranks(torch.cat([x.sum(axes), count]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = x - mean.view(shape)
    variance = sum_over_ranks(centred.square().sum(axes)) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        fraction = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum  # type: ignore[arg-type]
        with torch.no_grad():
            norm.running_mean.lerp_(mean, fraction)
            norm.running_var.lerp_(variance * count / (count - 1).clamp(min=1), fraction)
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(values.dtype)


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, with a gradient. There must be several ranks."""
    summed: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _SumOverRanks(torch.autograd.Function):
    """The sum of x over ranks. Its gradient is the sum of the ranks' gradients, since each rank's sum depends on every x."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values)
    return values
