"""A GPU that computes shapes, types and devices but no numbers, so that code for GPUs runs on a machine without one.

torch's fake tensors carry the device "cuda". An operation on tensors of two devices raises, and so does reading a number.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

try:
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
except ImportError as error:
    raise ImportError(
        "torch has no torch._subclasses.fake_tensor.FakeTensorMode any more: find its new place, or the tests of the GPU"
        " path cannot run on a machine without a GPU"
    ) from error

GPU = torch.device("cuda", 0)
ReadsANumber = DataDependentOutputException


@dataclass
class Transfers(TorchDispatchMode):
    """Lists operations in which the host waits for the GPU: copies to the host, and copies from memory that is not pinned."""

    waits: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, str(func)
        if name.startswith("aten._local_scalar_dense.") and args[0].device.type == "cpu":
            return (
                0.5 if args[0].is_floating_point() else 0
            )  # reading a number on the CPU is allowed; a fake tensor has none, so return any
        if name.startswith(
            "aten._fused_sgd_."
        ):  # updates in place and returns nothing; torch has no implementation for fake tensors
            return None
        out = func(*args, **kwargs)
        if name.startswith(("aten._to_copy.", "aten.to.")) and isinstance(args[0], Tensor):
            source, target = args[0].device.type, out.device.type
            if source != target and not (target == "cuda" and kwargs.get("non_blocking")):
                self.waits.append(f"{name} {source} → {target}")
        elif name.startswith("aten.copy_.") and args[0].device.type != args[1].device.type:
            if not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking"):
                self.waits.append(f"{name} {args[1].device.type} → {args[0].device.type}")
        elif name.startswith(("aten.nonzero.", "aten.equal.")) and args[0].device.type == "cuda":
            self.waits.append(name)
        return out


@contextlib.contextmanager
def fake_gpu() -> Iterator[Transfers]:
    """Within the block, tensors may be on the device "cuda". Build networks before it and move them to the device in it."""
    generator = torch.Generator  # replaced below by a generator on the CPU for every device
    with contextlib.ExitStack() as stack:
        for target, replacement in (
            ("torch.cuda.is_bf16_supported", lambda *_: True),
            ("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            ("torch.cuda.Stream", lambda *_: mock.MagicMock()),
            ("torch.cuda.stream", lambda *_: contextlib.nullcontext()),
            ("torch.cuda.current_stream", lambda *_: mock.MagicMock()),
            ("torch.cuda.mem_get_info", lambda *_: (10**9, 10**9)),
            ("torch.Generator", lambda *_, **__: generator()),
            ("torch.Tensor.numpy", any_numbers),
            (
                "landscale.loading.gathering.ThreadPoolExecutor",
                SynchronousExecutor,
            ),  # FakeTensorMode is active in one thread only
            ("torch.Tensor.pin_memory", lambda tensor, *_: tensor),
            ("torch.Tensor.record_stream", lambda *_: None),
            ("torch.Tensor.backward", backward),
            ("torch.nn.Module.to", move),
        ):
            stack.enter_context(mock.patch(target, replacement))
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield stack.enter_context(Transfers())


def any_numbers(tensor: Tensor) -> np.ndarray:
    """Replaces `Tensor.numpy`: any numbers, because fake tensors have none."""
    dtype = str(tensor.dtype).removeprefix("torch.")
    return np.resize(np.arange(8), tuple(tensor.shape)).astype(dtype)


class SynchronousExecutor(Executor):
    """Calls a function when it is submitted, in the same thread."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, function, /, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def move(module: nn.Module, *args: object, **kwargs: object) -> nn.Module:
    """Replaces `Module.to`, which cannot replace parameters by fake tensors."""

    def moved(tensor: Tensor) -> Tensor:
        if kwargs.get("memory_format") is not None and tensor.ndim != 4:
            return tensor
        return tensor.detach().to(*args, **kwargs)

    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(moved(parameter))
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = moved(buffer)
    return module


def backward(loss: Tensor) -> None:
    """`Tensor.backward` in Python: that of torch needs the streams of a GPU driver.

    Visits the nodes of the graph after all nodes that use them, and adds up their gradients.
    """
    order, seen, stack = [], set(), [(loss.grad_fn, False)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(following, False) for following, _ in node.next_functions if following is not None]
    gradients = {loss.grad_fn: {0: torch.ones_like(loss)}}
    with torch.no_grad():
        for node in reversed(order):
            given = gradients.pop(node, {})
            if hasattr(node, "variable"):
                variable = node.variable
                variable.grad = given[0] if variable.grad is None else variable.grad + given[0]
                continue
            results = node(*[given.get(k) for k in range(len(node._input_metadata))])
            results = results if isinstance(results, tuple) else (results,)
            for (following, place), result in zip(node.next_functions, results, strict=True):
                if following is None or result is None:
                    continue
                expected = following._input_metadata[place]
                gradient = result.sum_to_size(tuple(expected.shape)).to(expected.dtype)
                found = gradients.setdefault(following, {})
                found[place] = found[place] + gradient if place in found else gradient
