"""Averaging gradients over ranks during the backward pass (DDP), and their compression."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from landscale.distributed import Ranks
from landscale.training.norms import synchronise_norms

ONE_BUCKET = 10_000  # MB, more than the gradients of any network of the zoo
RANK = 4  # rank of the matrices that PowerSGD sends
PLAIN_STEPS = 100  # steps without compression: the first gradients have no low rank (Vogels et al. 2019)


def over_ranks(
    network: nn.Module, ranks: Ranks, device: torch.device, compress: str = "none", *, sync_norms: bool = False
) -> nn.Module:
    """Wrap a network in a module to call instead; after its backward pass every rank has the gradients averaged over all ranks.

    DDP reduces them in buckets as the backward pass produces them.

    Args:
        compress: none; bf16, which halves the bytes; powersgd, which sends low-rank factors and adds the remaining error to the
            next step's gradients (the error is not saved in checkpoints).
        sync_norms: compute batch normalisation over the batches of all ranks.
    """
    if ranks.world == 1:
        return network
    if sync_norms:
        network = synchronise_norms(network, device)
    # PowerSGD communicates in callbacks. With gloo, those of several buckets would run in another order on each rank.
    one_bucket = compress == "powersgd" and device.type == "cpu"
    parallel = DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # `TrainableModel.share_norm_statistics` does it once an epoch
        bucket_cap_mb=ONE_BUCKET if one_bucket else None,
        gradient_as_bucket_view=True,
    )
    if compress == "bf16":
        parallel.register_comm_hook(None, default_hooks.bf16_compress_hook)
    elif compress == "powersgd":
        state = powerSGD_hook.PowerSGDState(  # type: ignore[no-untyped-call]
            None, matrix_approximation_rank=RANK, start_powerSGD_iter=PLAIN_STEPS
        )
        parallel.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return parallel
