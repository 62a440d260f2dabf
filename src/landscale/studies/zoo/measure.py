"""Measure one network once, in a process of its own.

The measured steps are those of training and evaluation: digital numbers at native resolution that are already on the device
pass through the input stage and the network (channels_last, bfloat16 if it is faster). Reading the store and augmentation
are not included, because they are the same for every network.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2

from landscale.loading import Native
from landscale.models.classifier import Classifier, Description, reduced_precision
from landscale.models.registry import PATCH_SIDE, zoo
from landscale.runtime.portability import keep_freed_memory, signal_when_parent_ends
from landscale.training.losses import mean_binary_loss
from landscale.training.step import plain_step, use_channels_last
from landscale.vocabulary.bands import BANDS

REFERENCE_SECONDS = 0.1  # duration of one reference computation
OUT_OF_MEMORY = "out of memory"  # the result of a network that is too large; it is not measured again


@dataclass(frozen=True)
class SpeedMeasurement:
    """A network at an input side, measured with `batch` patches per step for about `seconds`, half of them training."""

    name: str
    side: int
    device: str
    batch: int
    seconds: float
    bands: tuple[str, ...]
    classes: int


def measure_speed(job: SpeedMeasurement) -> dict[str, Any]:
    """Measure the speed and memory of one network, after one step of each kind as a warm-up.

    Returns:
        `training` and `inference` (images/s); `reference` (FLOPs/s of large matrix products in the same precision: the
        lowest of three rates, before, between and after the two, which is low if other programs were computing);
        `peak_memory` (bytes; on a CPU resident memory minus that of the idle interpreter, or None if the system does not
        provide it); `seconds` of the whole measurement.
    """
    begun = time.monotonic()
    device = torch.device(job.device)
    idle = _resident("VmRSS")
    keep_freed_memory()  # as every command does
    reference = _reference(device)
    _reset_peak(device)
    torch.manual_seed(0)
    classifier = Classifier(_description(job)).to(device)
    use_channels_last(classifier.network)
    planes = _planes(job, device)
    steps = {"training": _training(classifier, planes, job, device), "inference": _inference(classifier, planes)}
    for step in steps.values():
        step()
    references, rates = [reference()], {}
    for kind, step in steps.items():
        rates[kind] = _rate(step, job.seconds / 2, job.batch, device)
        references.append(reference())
    memory = {"peak_memory": _peak(device, idle), "seconds": time.monotonic() - begun}
    return rates | {"reference": min(references)} | memory


def _description(job: SpeedMeasurement) -> Description:
    native = zoo(job.name)[0].native
    return Description(
        model=job.name,
        bands=job.bands,
        classes=tuple(f"class {k + 1}" for k in range(job.classes)),
        nomenclature="benchmark",
        multi_label=True,
        statistics=dict.fromkeys(job.bands, (1000.0, 500.0)),
        side=job.side,
        ground=10 * PATCH_SIDE,
        upsample="nearest" if native else "bilinear",
    )


def _planes(job: SpeedMeasurement, device: torch.device) -> Native:
    """A batch like that of a store: for each ground sampling distance a plane of 1.2 km, uint16, (n, bands, side, side)."""
    planes: Native = {}
    for gsd in sorted({BANDS[name].gsd for name in job.bands}):
        names = tuple(name for name in job.bands if BANDS[name].gsd == gsd)
        side = 10 * PATCH_SIDE // gsd
        numbers = torch.randint(0, 4000, (job.batch, len(names), side, side), dtype=torch.int32)
        planes[names] = numbers.to(torch.uint16).to(device)
    return planes


def _training(
    classifier: Classifier, planes: Native, job: SpeedMeasurement, device: torch.device
) -> Callable[[], None]:
    """A training step: forward, loss, backward, AdamW."""
    optimizer = create_optimizer_v2(classifier.network, opt="adamw", lr=1e-4, weight_decay=0.01)
    targets = torch.randint(0, 2, (job.batch, job.classes), device=device).float()
    reduced = reduced_precision(device.type)

    def step() -> None:
        classifier.network.train()
        plain_step(classifier, optimizer, mean_binary_loss, planes, targets, reduced=reduced)

    return step


def _inference(classifier: Classifier, planes: Native) -> Callable[[], None]:
    def step() -> None:
        classifier.eval()
        classifier.probabilities(planes)

    return step


def _rate(step: Callable[[], None], seconds: float, batch: int, device: torch.device) -> float:
    """Items/s of the steps that fit into `seconds`, with `batch` items each; at least one step is run."""
    _synchronise(device)
    begun, steps = time.perf_counter(), 0
    while not steps or time.perf_counter() - begun < seconds:
        step()
        steps += 1
        if steps % 8 == 0:
            _synchronise(device)  # a GPU runs steps asynchronously
    _synchronise(device)
    return steps * batch / (time.perf_counter() - begun)


def _reference(device: torch.device) -> Callable[[], float]:
    """A computation that takes `REFERENCE_SECONDS` and returns its FLOPs/s, which do not depend on the network."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if reduced_precision(device.type) else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def products() -> None:
        a @ b

    products()  # the first one sets up libraries
    return lambda: _rate(products, REFERENCE_SECONDS, 2 * side**3, device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets VmHWM to VmRSS, proc(5)


def _peak(device: torch.device, idle: int | None) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = _resident("VmHWM")
    return None if peak is None or idle is None else peak - idle


def _resident(key: str) -> int | None:
    """The value of `key` in /proc/self/status in bytes, or None if the system does not provide it."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), None)


def end_first() -> None:
    """End when the parent process ends. If memory runs out, Linux kills this process and no other one."""
    if sys.platform == "linux":
        signal_when_parent_ends(signal.SIGKILL)
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def measure_speed_if_memory_suffices(job: SpeedMeasurement) -> dict[str, Any]:
    """The results of `measure_speed`, or `failed` if there is not enough memory."""
    try:
        return measure_speed(job)
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error):
            return {"failed": OUT_OF_MEMORY}
        raise
