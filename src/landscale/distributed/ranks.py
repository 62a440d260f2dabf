"""Several processes: who am I, and sums over all. Started by torchrun, srun or mpirun; alone without them."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout

from landscale.errors import LandscaleError, reason

_TO_MEET = datetime.timedelta(minutes=5)
_TO_END = datetime.timedelta(days=7)


def _unheard(_step: int) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Ranks:
    """This process among all of a training. `beat` tells the others that it goes on: with a step, or −1 within one."""

    rank: int = 0
    world: int = 1
    local: int = 0
    beat: Callable[[int], None] = _unheard

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def begin_sum(self, values: torch.Tensor) -> Callable[[], list[float]]:
        """Begin to sum some numbers (n,) over all ranks while other work goes on; the value waits for the sums."""
        if self.world == 1:
            return lambda: list(values.tolist())
        values = values.detach().clone()
        work = dist.all_reduce(values, async_op=True)

        def sums() -> list[float]:
            work.wait()
            return list(values.tolist())

        return sums

    def adopt(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first rank."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def share(self, value: Any) -> Any:
        """The first rank's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _from_environment() -> Ranks:
    e = os.environ
    if "RANK" in e and "WORLD_SIZE" in e:  # torchrun
        return Ranks(int(e["RANK"]), int(e["WORLD_SIZE"]), int(e.get("LOCAL_RANK", "0")))
    if int(e.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # srun; a batch script alone has no step
        _meet_at(_first_slurm_host(), 20000 + int(e["SLURM_JOB_ID"]) % 20000)
        return Ranks(int(e["SLURM_PROCID"]), int(e["SLURM_STEP_NUM_TASKS"]), int(e["SLURM_LOCALID"]))
    if int(e.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:  # Open MPI
        _meet_at("127.0.0.1", 29500)  # on several nodes: mpirun -x MASTER_ADDR=…
        keys = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        rank, world, local = (int(e[key]) for key in keys)
        return Ranks(rank, world, local)
    return Ranks()


def _meet_at(host: str, port: int) -> None:
    os.environ.setdefault("MASTER_ADDR", host)
    os.environ.setdefault("MASTER_PORT", str(port))


def _first_slurm_host() -> str:
    nodes = os.environ["SLURM_STEP_NODELIST"]
    listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    return listed.stdout.split()[0]


def start(backend: str | None = None, patience: datetime.timedelta = _TO_MEET) -> Ranks:
    """Join the process group that the environment announces.

    Args:
        backend: by default NCCL with GPUs, else gloo.
        patience: how long one waits for the others to come. Later nobody gives up by himself: one rank may have much
            more to do than another.

    Raises:
        LandscaleError: some do not come.
    """
    ranks = _from_environment()
    if ranks.world > 1 and not dist.is_initialized():
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(ranks.local)
        chosen = backend or ("nccl" if cuda else "gloo")
        # Else NCCL ends us before `watch` says who is lost.
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
        try:
            dist.init_process_group(chosen, rank=ranks.rank, world_size=ranks.world, timeout=patience)
        except RuntimeError as error:
            raise LandscaleError(f"not all ranks are there ({reason(error)}); run the same command again") from None
        _set_pg_timeout(_TO_END)
    return ranks


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def device(ranks: Ranks | None = None) -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    return torch.device("cuda", ranks.local if ranks else 0) if torch.cuda.is_available() else torch.device("cpu")
