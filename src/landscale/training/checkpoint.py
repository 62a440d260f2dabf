"""The state of a training as one safetensors file: tensors, and everything else as JSON in its header. No pickle."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import xxhash
from msgspec import Meta
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from landscale.errors import BadInput, reason
from landscale.runtime.files import atomic_file, check_regular

MAX_BYTES = 1 << 38  # of a checkpoint
MUCH_SHORTER = 0.9  # fraction of the recipe's steps below which a time limit is reported

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Seconds = Annotated[float, Meta(ge=0)]


@dataclass
class TrainingState:
    """The state of a training other than tensors. Every checkpoint holds all of it."""

    total: Count
    """planned steps of the whole training, for the present number of processes"""
    limited: bool = False
    """whether `total` was planned for a time limit"""
    step: Count = 0
    """finished steps"""
    epoch: Count = 0
    """finished epochs"""
    seen: Count = 0
    """patches of this epoch that were used, over all processes"""
    progress: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """fraction of the planned training that is done, in 0…1; the schedule depends on it"""
    ranks: Annotated[int, Meta(ge=1)] = 1
    """number of processes"""
    halved: Annotated[int, Meta(ge=0, le=64)] = 0
    """how often the learning rate was halved after a divergence"""
    first_loss: float = math.nan
    """loss of the first step of the training; a loss far above it counts as a divergence"""
    epoch_loss: float = 0.0
    """sum of the losses of this epoch's steps"""
    epoch_figures: dict[str, float] = field(default_factory=dict)
    """sums of what the objective measures in a step besides the loss, by name"""
    epoch_steps: Count = 0
    epoch_seconds: Seconds = 0.0
    """seconds spent on the steps of this epoch"""
    seconds: Seconds = 0.0
    """seconds spent on the whole training, over all sessions"""
    best: float = -math.inf
    history: list[dict[str, Any]] = field(default_factory=list)

    def cut_short(self, planned: int) -> dict[str, int] | None:
        """The steps of a training that a time limit has cut to a part of the recipe's `planned` steps; else None."""
        if not self.limited or self.total >= MUCH_SHORTER * planned:
            return None
        return {"trained": self.total, "planned": planned}

    def add_loss(self, loss: float, figures: Mapping[str, float]) -> None:
        """Count the loss of one step, and what was measured besides it."""
        if math.isnan(self.first_loss):
            self.first_loss = loss
        self.epoch_loss += loss
        # A new dict, because a copy of this state may share the old one.
        self.epoch_figures = {name: self.epoch_figures.get(name, 0.0) + value for name, value in figures.items()}
        self.epoch_steps += 1


@dataclass(frozen=True)
class TrainerCheckpoint:
    """What a trainer's checkpoint holds besides tensors."""

    state: TrainingState
    optimizer: Mapping[str, int | float | bool]


def save_checkpoint(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint. A reader finds the old file or the new one, never a part of it."""
    packed = {name: t.detach().contiguous() for name, t in tensors.items()}
    text = json.dumps(state)
    with atomic_file(path) as temporary:
        try:
            save_file(packed, temporary, metadata={"state": text, "checksum": _checksum(packed, text)})
        except SafetensorError as error:  # a full disk, no permission
            raise BadInput(path, f"cannot be written ({reason(error)})") from None


def _checksum(tensors: Mapping[str, Tensor], state: str) -> str:
    """XXH3 (128 bits) of the names, types, shapes and bytes of all tensors, and of the state."""
    total = xxhash.xxh3_128(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name].cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


class CheckpointWriter:
    """Writes checkpoints in a thread. A step waits until the tensors are copied in memory, not for the disk.

    One checkpoint is written at a time; the memory of the copies is reused. An error in the thread is raised by the next call.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._memory: dict[tuple[Path, str], Tensor] = {}
        self._pending: Future[None] | None = None

    def write(self, path: Path, tensors: dict[str, Tensor], state: dict[str, Any], keep: int = 1) -> None:
        """Begin to write a checkpoint. With `keep` > 1 the newest `keep` also stay under names with the step of `state`."""
        self.wait()
        copies = {name: self._copy(path, name, tensor.detach()) for name, tensor in tensors.items()}
        copied = torch.cuda.Event() if any(t.is_cuda for t in tensors.values()) else None  # type: ignore[no-untyped-call]
        if copied is not None:
            copied.record()
        frozen = json.loads(json.dumps(state))  # a copy, because the training continues to change the state

        def work() -> None:
            if copied is not None:
                copied.synchronize()
            save_checkpoint(path, copies, frozen)
            if keep > 1:
                _keep(path, frozen["state"]["step"], keep)

        self._pending = self._pool.submit(work)

    def wait(self) -> None:
        """Wait until the checkpoint is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """End the thread, after it has written its checkpoint."""
        self._pool.shutdown()

    def _copy(self, path: Path, name: str, tensor: Tensor) -> Tensor:
        copy = self._memory.get((path, name))
        if copy is None or (copy.shape, copy.dtype) != (tensor.shape, tensor.dtype):
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            self._memory[path, name] = copy
        return copy.copy_(tensor, non_blocking=True)


def _keep(path: Path, step: int, keep: int) -> None:
    """Link the checkpoint under a name with its step, and remove all but the newest `keep` of these links."""
    named = path.with_name(f"step-{step:09d}{path.suffix}")
    named.unlink(missing_ok=True)
    os.link(path, named)
    for old in sorted(path.parent.glob(f"step-*{path.suffix}"))[:-keep]:
        old.unlink()


def load_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a checkpoint.

    Raises:
        BadInput: the file is missing, truncated, damaged (the checksum differs), or not a checkpoint of this version.
    """
    check_regular(path, MAX_BYTES)
    try:
        with safe_open(path, "pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
            metadata = file.metadata() or {}
        text, checksum = metadata["state"], metadata["checksum"]
        content = json.loads(text)
    except KeyError:
        raise BadInput(path, "is not a checkpoint of this version; choose another --run") from None
    except (OSError, SafetensorError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(path, f"is not a complete checkpoint ({reason(error)})") from None
    if checksum != _checksum(tensors, text):
        raise BadInput(
            path, "is damaged: its checksum differs; remove it to start again, or put an older one in its place"
        )
    return {name: tensor.to(device) for name, tensor in tensors.items()}, content


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's tensors by `optimizer.<parameter>.<key>`, and its numbers, which would lose digits as tensors.

    Parameter groups are `group0`, `group1` …; timm's LAMB and Lookahead count their steps there.
    """
    content = optimizer.state_dict()
    parts = {str(k): values for k, values in content["state"].items()}
    parts |= {f"group{k}": group for k, group in enumerate(content["param_groups"])}
    named = {f"optimizer.{part}.{key}": value for part, values in parts.items() for key, value in values.items()}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in named.items() if isinstance(value, int | float)}


def check_optimizer(
    fresh: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
    later: Collection[int] = (),
) -> None:
    """Compare the state of an optimiser in a checkpoint with the one that the optimiser itself has after a step.

    Args:
        fresh: an optimiser of the same kind on a copy of the network, which this function changes.
        tensors, numbers: what `pack_optimizer` returned, among others.
        later: `id` of the parameters that may have no state, because their training begins after the first step.

    Raises:
        ValueError: a part of the state is missing, unknown or of another shape or type, or a setting differs.
    """
    for group in fresh.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    fresh.step()
    tensors_after, numbers_after = pack_optimizer(fresh)
    expected: dict[str, Any] = tensors_after | numbers_after
    parameters = {str(k): p for k, p in enumerate(p for group in fresh.param_groups for p in group["params"])}
    found = {name: value for name, value in (*tensors.items(), *numbers.items()) if name.startswith("optimizer.")}
    states = {name for name in found if not name.startswith("optimizer.group")}
    begun = {name.split(".")[1] for name in states}
    waiting = {key for key, parameter in parameters.items() if id(parameter) in later and key not in begun}
    waiting |= {f"group{k}" for k in range(len(fresh.param_groups))}
    lacking = sorted(name for name in expected.keys() - found.keys() if name.split(".")[1] not in waiting)
    if states and lacking:  # a checkpoint before the first step has none
        raise ValueError(f"{lacking[0]} is missing")
    for name, value in found.items():
        if name in states:
            # A tensor that is only created in a later step, as by Lookahead, has the shape of its parameter.
            right = expected.get(name, parameters.get(name.split(".")[1]))
            if _kind(value) != _kind(right):
                raise ValueError(f"{name} is {_kind(value)}, expected {_kind(right)}")
        elif isinstance(expected.get(name), bool) and value is not expected[name]:
            raise ValueError(f"{name} is {value}, expected {expected[name]}")


def _kind(value: Any) -> str:
    if value is None:
        return "no such state"
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Restore what `pack_optimizer` returned."""
    groups = optimizer.state_dict()["param_groups"]
    parts: dict[str, dict[str, Any]] = {f"group{k}": group for k, group in enumerate(groups)}
    for name, value in (tensors | numbers).items():
        if name.startswith("optimizer."):
            _, part, key = name.split(".", 2)
            parts.setdefault(part, {})[key] = value
    state = {int(part): values for part, values in parts.items() if not part.startswith("group")}
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, values in optimizer.state.items():
        for key, value in values.items():
            # In the memory format of the parameter, because the rounding of sums over a tensor depends on it.
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
