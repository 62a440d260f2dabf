"""Batch norms that normalise over the batches of all ranks: a small batch a rank then learns as a large one does."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.norm_act import convert_sync_batchnorm as convert_on_gpus
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with its batch norms over all ranks; names and parameters stay.

    On GPUs they are torch's (timm's where an activation follows), which CPUs do not have.
    """
    if device.type == "cuda":
        converted: nn.Module = convert_on_gpus(network)  # type: ignore[no-untyped-call]
        return converted
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
    return network


def _forward(norm: _BatchNorm, values: Tensor) -> Tensor:
    out = _over_ranks(norm, values) if norm.training else _as_ever(norm, values)
    if isinstance(norm, BatchNormAct2d):
        out = norm.act(norm.drop(out))
    return out


def _as_ever(norm: _BatchNorm, values: Tensor) -> Tensor:
    return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _over_ranks(norm: _BatchNorm, values: Tensor) -> Tensor:
    """(n, C, …) normalised by mean and variance over the n of all ranks (Ioffe & Szegedy 2015, algorithm 1)."""
    axes = [0, *range(2, values.ndim)]
    shape = [1, -1, *[1] * (values.ndim - 2)]
    x = values.float()
    count = torch.full((1,), float(values.numel() // values.shape[1]))
    sums = _over(torch.cat([x.sum(axes), count]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = x - mean.view(shape)
    variance = _over(centred.square().sum(axes)) / count
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum  # type: ignore[arg-type]
        with torch.no_grad():
            norm.running_mean.lerp_(mean, share)
            norm.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)
    out = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        out = out * norm.weight.view(shape) + norm.bias.view(shape)
    return out.to(values.dtype)


def _over(values: Tensor) -> Tensor:
    summed: Tensor = _SumOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return summed


class _SumOverRanks(torch.autograd.Function):
    """y = Σ over ranks; so is the gradient, since every rank's y depends on every rank's x."""

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
