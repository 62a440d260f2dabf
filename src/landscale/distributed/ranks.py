"""Which rank this process is, and what ranks exchange. Started by torchrun, srun or mpirun; one rank without them."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from landscale.errors import LandscaleError, reason

T = TypeVar("T")

_ARRIVAL_TIMEOUT = timedelta(minutes=5)
_COLLECTIVE_TIMEOUT = timedelta(days=7)  # failure detection decides, not PyTorch


def _ignore_progress(_step: int) -> None:
    """Used without failure detection: does nothing."""


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, and how many there are. `Ranks()` is the single rank of a run without a launcher."""

    rank: int = 0
    """number of this process, from 0"""
    world: int = 1
    """how many ranks there are (the world size)"""
    local: int = 0
    """number of this process among those on its host; also the number of its GPU"""
    report_progress: Callable[[int], None] = _ignore_progress
    """reports progress to failure detection: called with a step as it begins, or with −1 within one"""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in order, on every rank. Values are pickled."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def begin_sum(self, values: torch.Tensor) -> Callable[[], torch.Tensor]:
        """Begin to sum values (n,) over all ranks, without waiting for the sums.

        Returns a function that gives the sums, on the device of the values. On a GPU the stream waits for them, not the host.
        """
        values = values.detach().clone()
        if self.world == 1:
            return lambda: values
        work = dist.all_reduce(values, async_op=True)

        def wait_for_sums() -> torch.Tensor:
            work.wait()
            return values

        return wait_for_sums

    def broadcast_tensors(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first rank, which have the same shapes and types."""
        if self.world > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def broadcast(self, value: T) -> T:
        """The first rank's value, on every rank. Values are pickled; with None it is a barrier."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


def _from_environment() -> Ranks:
    """The rank that a launcher's environment variables describe.

    Raises:
        LandscaleError: they are incomplete, or not numbers.
    """
    try:
        return _described_rank(os.environ)
    except (KeyError, ValueError) as error:
        raise LandscaleError(
            f"the environment variables of a launcher (RANK, SLURM_PROCID, OMPI_COMM_WORLD_RANK, PMI_RANK …) are wrong or"
            f" incomplete: {reason(error)}; start the processes by torchrun, srun or mpirun, or unset them"
        ) from None


def _described_rank(e: MutableMapping[str, str]) -> Ranks:
    if "RANK" in e and "WORLD_SIZE" in e:  # torchrun
        ranks = Ranks(int(e["RANK"]), int(e["WORLD_SIZE"]), int(e.get("LOCAL_RANK", "0")))
        if ranks.world > 1 and not ("MASTER_ADDR" in e and "MASTER_PORT" in e):
            raise ValueError("MASTER_ADDR and MASTER_PORT are missing")
        return ranks
    if int(e.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # srun; a batch script alone has no step
        _set_master(_first_slurm_host(), 20000 + int(e["SLURM_JOB_ID"]) % 20000)
        return Ranks(int(e["SLURM_PROCID"]), int(e["SLURM_STEP_NUM_TASKS"]), int(e["SLURM_LOCALID"]))
    if int(e.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:  # Open MPI
        _set_master("127.0.0.1", 29500)  # on several nodes: mpirun -x MASTER_ADDR=…
        keys = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        rank, world, local = (int(e[key]) for key in keys)
        return Ranks(rank, world, local)
    if int(e.get("PMI_SIZE", "1")) > 1:  # MPICH and Intel MPI
        _set_master("127.0.0.1", 29500)  # on several nodes: mpiexec -genv MASTER_ADDR …
        return Ranks(int(e["PMI_RANK"]), int(e["PMI_SIZE"]), int(e.get("MPI_LOCALRANKID", "0")))
    return Ranks()


def _set_master(host: str, port: int) -> None:
    """Set the address at which the ranks connect, unless the user has set one."""
    os.environ.setdefault("MASTER_ADDR", host)
    os.environ.setdefault("MASTER_PORT", str(port))


def _first_slurm_host() -> str:
    """The first of hosts written as `node[01-04,7],login`; without `scontrol`, which containers often lack."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", os.environ["SLURM_STEP_NODELIST"])
    assert first is not None  # the pattern also matches nothing
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0])


def start_process_group(backend: str | None = None, timeout: timedelta = _ARRIVAL_TIMEOUT) -> Ranks:
    """Join the process group that the environment variables describe; without them, return `Ranks()`.

    Args:
        backend: by default NCCL with GPUs, else gloo.
        timeout: how long to wait for all ranks to arrive. Collectives have no practical time-out afterwards, since one
            rank may have much more to do than another; failure detection decides which wait is too long.

    Raises:
        LandscaleError: not all ranks arrive in time. A rank that arrives and dies before it is connected to all others ends
            them with exit code 2.
    """
    ranks = _from_environment()
    if ranks.world == 1 or dist.is_initialized():
        return ranks
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(ranks.local)
    # Otherwise NCCL ends the process before failure detection has named the rank that failed.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    try:
        store = _wait_for_all(ranks, timeout)
        with _exit_unless_connected(timeout):
            dist.init_process_group(
                backend or ("nccl" if cuda else "gloo"),
                store=store,
                rank=ranks.rank,
                world_size=ranks.world,
                timeout=_COLLECTIVE_TIMEOUT,
            )
    except RuntimeError as error:
        raise LandscaleError(
            f"not all {ranks.world} ranks arrived within {timeout.total_seconds():g} s ({reason(error)});"
            " run the same command again"
        ) from None
    return ranks


def _wait_for_all(ranks: Ranks, timeout: timedelta) -> Store:
    """The store at MASTER_ADDR, once all ranks have written a key there.

    `init_process_group` has one time-out for the arrival of the ranks and for all collectives after it. Here the two
    differ, so the ranks first wait for each other at the store.
    """
    store, _, _ = next(rendezvous("env://", ranks.rank, ranks.world, timeout=timeout))
    store.set_timeout(timeout)
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"landscale/process_group/{attempt}", store)
    keys = [f"arrived/{rank}" for rank in range(ranks.world)]
    store.set(keys[ranks.rank], "")
    store.wait(keys, timeout)
    return store


@contextmanager
def _exit_unless_connected(timeout: timedelta) -> Iterator[None]:
    """End the process if the block does not end in time.

    With gloo each rank connects to all others here, under the time-out of the collectives: it would wait for days for a rank
    that has arrived and died just after. Nothing can interrupt the main thread in that call.
    """

    def end() -> None:
        seconds = f"{timeout.total_seconds():g} s"
        print(f"landscale: another rank did not connect within {seconds}; run the same command again", file=sys.stderr)
        sys.stderr.flush()
        os._exit(2)

    timer = threading.Timer(timeout.total_seconds(), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end_process_group() -> None:
    """Leave the process group, if this process is in one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def local_device(ranks: Ranks | None = None) -> torch.device:
    """This rank's GPU if there is one, else the CPU."""
    return torch.device("cuda", ranks.local if ranks else 0) if torch.cuda.is_available() else torch.device("cpu")
