"""The gradients of all ranks become their mean while the backward pass goes on: DDP, and what may travel instead of float32."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from landscale.distributed import Ranks
from landscale.training.norms import synchronise_norms

ONE_BUCKET = 10_000  # MB
RANK = 4  # of PowerSGD's approximation
PLAIN_STEPS = 100  # before PowerSGD begins: the first gradients have no low rank (Vogels et al. 2019)


def over_ranks(
    network: nn.Module, ranks: Ranks, device: torch.device, compress: str = "none", *, sync_norms: bool = False
) -> nn.Module:
    """What to call instead of the network, so that every rank ends a step with the same gradients.

    DDP reduces them in buckets as the backward pass makes them. compress: `none`; `bf16` halves the bytes; `powersgd`
    sends factors of low rank and keeps what they miss for the next step (that memory is not in checkpoints).
    """
    if ranks.world == 1:
        return network
    if sync_norms:
        network = synchronise_norms(network, device)
    # PowerSGD talks from callbacks, and over gloo those of several buckets would come in another order on each rank.
    one_bucket = compress == "powersgd" and device.type == "cpu"
    parallel = DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        broadcast_buffers=False,  # norms' statistics are the first rank's when they are looked at
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
