"""What a training costs on many ranks: computing, and of the all-reduce what the backward pass cannot hide.

    epoch = patches / (batch · ranks) · step        step = compute + exposed

- **All-reduce.** A ring over k ranks sends 2(k−1)/k of the bytes over its slowest link in 2(k−1) messages (Patarasu & Yuan
  2009, *Bandwidth optimal all-reduce algorithms for clusters of workstations*, J. Parallel Distrib. Comput. 69). Over nodes
  it has levels: a reduce-scatter inside each node, an all-reduce of the parts between nodes, an all-gather inside again; the
  first and the last together cost a ring. Between many nodes NCCL takes a tree, where it is faster, whose messages grow
  with log₂ of the nodes (Sanders et al. 2009; NCCL 2.4).
- **Overlap.** Gradients leave in buckets as soon as the backward pass has them (Li et al. 2020, *PyTorch Distributed*, VLDB
  13, section 3.2.3), while it goes on with earlier layers. The last bucket has nothing left to hide behind.

What the model leaves out: reading, evaluation, stragglers, other traffic, and that small batches compute less efficiently.
All sizes are bytes, all times seconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

BUCKET = 25 * 2**20  # bytes, DDP's default
BACKWARD = (7.89 - 2.72) / 7.89  # of a step's FLOPs (ResNet-50 at 12×120×120: 2.72 G forward, 7.89 G with backward)


@dataclass(frozen=True)
class Link:
    """What joins neighbours: bytes/s in one direction, and seconds until a message arrives."""

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Machine:
    """Nodes of `ranks_a_node`, joined `inside` each rank by rank, `between` them node by node."""

    ranks_a_node: int
    inside: Link
    between: Link


# Four V100 (SXM2) a node: NVLink 2 with 150 GB/s a GPU and direction; dual EDR InfiniBand, 2 × 100 Gb/s a node (Jülich
# Supercomputing Centre 2019, JUWELS, J. large-scale research facilities 5, A135). Latencies are those that NCCL's own model
# has for rings over NVLink and over a network (src/graph/tuning.cc, hwLat, protocol Simple).
JUWELS = Machine(4, Link(150e9, 3.4e-6), Link(25e9, 14e-6))
# Eight H100 (SXM) a node: NVLink 4 with 450 GB/s; 400 Gb/s InfiniBand: an adapter for each GPU (as in a DGX H100), or one a node.
H100 = Machine(8, Link(450e9, 3.4e-6), Link(400e9, 14e-6))
H100_ONE_ADAPTER = Machine(8, Link(450e9, 3.4e-6), Link(50e9, 14e-6))

# Sedona et al. 2019: seconds an epoch by GPUs, ResNet-50, 12 bands, 64 patches a GPU.
PAPER = {4: 347.0, 8: 172.0, 16: 86.0, 32: 42.0, 48: 27.0, 64: 20.0, 96: 15.0}
PAPER_BATCH = 64
PATCHES = 269_695  # train split of BigEarthNet v1
GRADIENTS = 4 * 23_620_000  # bytes: ResNet-50 with 12 bands and 43 classes, float32
H100_RATE = (
    21_600  # training patches/s: ResNet-50's MLPerf figures for an H100, carried over to 12×120×120; not measured
)


def ring(size: float, ranks: int, link: Link) -> float:
    """Seconds of a ring all-reduce."""
    return 2 * (ranks - 1) / ranks * size / link.bandwidth + 2 * (ranks - 1) * link.latency


def tree(size: float, ranks: int, link: Link) -> float:
    """Seconds of an all-reduce over double binary trees: all bytes up and down, in log₂ k messages each way."""
    return 2 * size / link.bandwidth + 2 * math.log2(ranks) * link.latency if ranks > 1 else 0.0


def all_reduce(size: float, ranks: int, machine: Machine) -> float:
    """Seconds of an all-reduce on a machine whose nodes are filled one after the other."""
    inside = min(ranks, machine.ranks_a_node)
    nodes = math.ceil(ranks / machine.ranks_a_node)
    between = min(ring(size, nodes, machine.between), tree(size, nodes, machine.between))
    return ring(size, inside, machine.inside) + between


def exposed(size: float, ranks: int, machine: Machine, hiding: float) -> float:
    """Seconds that a step waits for its gradients.

    Args:
        size: bytes of all gradients.
        hiding: seconds of the backward pass that all buckets but the last can hide behind.
    """
    last = min(size, BUCKET)
    others = (size - last) / BUCKET * all_reduce(BUCKET, ranks, machine)
    return all_reduce(last, ranks, machine) + max(0.0, others - hiding)


@dataclass(frozen=True)
class Fit:
    """Seconds that a step computes, and how many times longer than by its machine's figures communication takes."""

    compute: float
    factor: float = 1.0

    def step(self, size: float, ranks: int, machine: Machine, overlap: float = BACKWARD) -> float:
        """Seconds of a step. overlap: the share of computing in which communication can go on."""
        return self.compute + self.factor * exposed(size, ranks, machine, overlap * self.compute)

    def epoch(self, patches: int, batch: int, size: float, ranks: int, machine: Machine) -> float:
        """Seconds of an epoch in which each rank takes `batch` patches a step; a step that is not full counts by its share."""
        return patches / (batch * ranks) * self.step(size, ranks, machine)


def fit(
    epochs: Mapping[int, float], patches: int, batch: int, size: float, machine: Machine, factor: float | None = None
) -> Fit:
    """Computing and communication of measured epochs, by least squares over their steps.

    Measured times may fall faster than in proportion to the ranks, as the paper's do from 4 to 8 GPUs. Communication would
    then be negative; it is taken as 0, and what remains is the mean step.

    Args:
        epochs: seconds an epoch by ranks, with `batch` patches a rank.
        factor: how much longer than by the machine's figures communication takes, where that is known.
    """
    steps = [seconds * batch * ranks / patches for ranks, seconds in epochs.items()]
    waits = [exposed(size, ranks, machine, BACKWARD * min(steps)) for ranks in epochs]
    step, wait = statistics.fmean(steps), statistics.fmean(waits)
    if factor is None:
        spread = sum((w - wait) ** 2 for w in waits)
        slope = sum((w - wait) * (s - step) for w, s in zip(waits, steps, strict=True)) / spread if spread else 1.0
        factor = max(0.0, slope)
    return Fit(max(0.0, step - factor * wait), factor)


def measured_machine(small: float, large: float, size: float, ranks: int) -> Machine:
    """A machine of which nothing is known but two all-reduces over all of its ranks: one ring with links of one kind.

    Args:
        small, large: seconds for a message of next to no bytes, and for one of `size` bytes.
    """
    hops = 2 * (ranks - 1)
    link = Link(hops / ranks * size / max(large - small, 1e-9), small / hops)
    return Machine(ranks, link, link)
