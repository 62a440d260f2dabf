"""A cost model of training on many ranks: computation, and the part of the all-reduce that the backward pass does not hide.

    epoch = patches / (batch · ranks) · step        step = compute + exposed

- **All-reduce.** A ring over k ranks sends 2(k−1)/k of the bytes over its slowest link, in 2(k−1) messages (Patarasu & Yuan
  2009, *Bandwidth optimal all-reduce algorithms for clusters of workstations*, J. Parallel Distrib. Comput. 69). Over several
  nodes it has levels: a reduce-scatter inside each node, an all-reduce of the parts between nodes, and an all-gather inside
  each node; the first and the last together cost as much as a ring. Between many nodes NCCL uses a tree where that is
  faster; the number of its messages grows with log₂ of the number of nodes (Sanders et al. 2009; NCCL 2.4).
- **Overlap.** DDP sends gradients in buckets as soon as the backward pass has computed them, while it continues with earlier
  layers (Li et al. 2020, *PyTorch Distributed*, VLDB 13, section 3.2.3). When the last bucket is sent, no computation is left
  that could hide it.

The model leaves out reading, evaluation, stragglers, other traffic, and that small batches compute less efficiently.
Sizes are bytes, times are seconds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

BUCKET_BYTES = 25 * 2**20  # DDP's default
# Fraction of a step's FLOPs that the backward pass takes (ResNet-50 at 12×120×120: 2.72 G forward, 7.89 G with backward).
BACKWARD_FRACTION = (7.89 - 2.72) / 7.89


@dataclass(frozen=True)
class Link:
    """A connection between neighbours: bytes/s in one direction, and seconds until a message arrives."""

    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Cluster:
    """Nodes with `ranks_per_node` ranks each; links `inside` connect ranks, links `between` connect nodes."""

    ranks_per_node: int
    inside: Link
    between: Link


# Four V100 (SXM2) per node: NVLink 2 with 150 GB/s per GPU and direction; dual EDR InfiniBand, 2 × 100 Gb/s per node (Jülich
# Supercomputing Centre 2019, JUWELS, J. large-scale research facilities 5, A135). Latencies are those of NCCL's own model for
# rings over NVLink and over a network (src/graph/tuning.cc, hwLat, protocol Simple).
JUWELS = Cluster(4, Link(150e9, 3.4e-6), Link(25e9, 14e-6))
# Eight H100 (SXM) per node: NVLink 4 with 450 GB/s; 400 Gb/s InfiniBand, with an adapter per GPU (as in a DGX H100) or per node.
H100 = Cluster(8, Link(450e9, 3.4e-6), Link(400e9, 14e-6))
H100_ONE_ADAPTER = Cluster(8, Link(450e9, 3.4e-6), Link(50e9, 14e-6))

# Sedona et al. 2019; their seconds per epoch are in `vocabulary.published`.
SEDONA_BATCH = 64  # patches per GPU and step
SEDONA_PATCHES = 269_695  # train split of BigEarthNet v1
SEDONA_GRADIENT_BYTES = 4 * 23_620_000  # ResNet-50 with 12 bands and 43 classes, float32
# Training patches/s of one H100: ResNet-50's MLPerf figures carried over to 12×120×120; not measured.
H100_PATCHES_PER_SECOND = 21_600


def ring_seconds(size: float, ranks: int, link: Link) -> float:
    """Time of a ring all-reduce of `size` bytes."""
    return 2 * (ranks - 1) / ranks * size / link.bandwidth + 2 * (ranks - 1) * link.latency


def tree_seconds(size: float, ranks: int, link: Link) -> float:
    """Time of an all-reduce of `size` bytes over double binary trees: all bytes up and down, log₂ k messages each way."""
    return 2 * size / link.bandwidth + 2 * math.log2(ranks) * link.latency if ranks > 1 else 0.0


def all_reduce_seconds(size: float, ranks: int, cluster: Cluster) -> float:
    """Time of an all-reduce of `size` bytes on a cluster whose nodes are filled one after the other."""
    inside = min(ranks, cluster.ranks_per_node)
    nodes = math.ceil(ranks / cluster.ranks_per_node)
    between = min(ring_seconds(size, nodes, cluster.between), tree_seconds(size, nodes, cluster.between))
    return ring_seconds(size, inside, cluster.inside) + between


def exposed_seconds(size: float, ranks: int, cluster: Cluster, hiding: float) -> float:
    """Time that a step waits for its gradients.

    Args:
        size: bytes of all gradients.
        hiding: seconds of the backward pass that can hide all buckets but the last.
    """
    last = min(size, BUCKET_BYTES)
    others = (size - last) / BUCKET_BYTES * all_reduce_seconds(BUCKET_BYTES, ranks, cluster)
    return all_reduce_seconds(last, ranks, cluster) + max(0.0, others - hiding)


@dataclass(frozen=True)
class StepCost:
    """Seconds of computation per step, and how many times longer communication takes than the cluster's links imply."""

    compute: float
    communication_factor: float = 1.0

    def step_seconds(self, size: float, ranks: int, cluster: Cluster, overlap: float = BACKWARD_FRACTION) -> float:
        """Time of a step. overlap: fraction of computation during which communication can proceed."""
        return self.compute + self.communication_factor * exposed_seconds(size, ranks, cluster, overlap * self.compute)

    def epoch_seconds(self, patches: int, batch: int, size: float, ranks: int, cluster: Cluster) -> float:
        """Time of an epoch with `batch` patches per rank and step; an incomplete step counts as a fraction of one."""
        return patches / (batch * ranks) * self.step_seconds(size, ranks, cluster)


def fit_step_cost(
    epochs: Mapping[int, float], patches: int, batch: int, size: float, cluster: Cluster, factor: float | None = None
) -> StepCost:
    """Computation and communication of measured epochs, by least squares over their steps.

    Measured times may fall faster than in proportion to the ranks, as those of Sedona et al. do from 4 to 8 GPUs.
    Communication would then be negative; it is set to 0, and computation to the mean step.

    Args:
        epochs: seconds per epoch by number of ranks, with `batch` patches per rank and step.
        factor: how many times longer communication takes than the cluster's links imply, if that is known.
    """
    steps = [seconds * batch * ranks / patches for ranks, seconds in epochs.items()]
    waits = [exposed_seconds(size, ranks, cluster, BACKWARD_FRACTION * min(steps)) for ranks in epochs]
    mean_step, mean_wait = statistics.fmean(steps), statistics.fmean(waits)
    if factor is None:
        variation = sum((wait - mean_wait) ** 2 for wait in waits)
        covariation = sum((w - mean_wait) * (s - mean_step) for w, s in zip(waits, steps, strict=True))
        factor = max(0.0, covariation / variation if variation else 1.0)
    return StepCost(max(0.0, mean_step - factor * mean_wait), factor)


def measured_cluster(small: float, large: float, size: float, ranks: int) -> Cluster:
    """A cluster known only by two all-reduces over all of its ranks: one ring with equal links.

    Args:
        small, large: seconds of an all-reduce of a few bytes, and of one of `size` bytes.
    """
    messages = 2 * (ranks - 1)
    link = Link(messages / ranks * size / max(large - small, 1e-9), small / messages)
    return Cluster(ranks, link, link)
