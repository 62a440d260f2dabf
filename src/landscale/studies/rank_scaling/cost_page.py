"""The cost model's figures for clusters that this study did not measure, as Markdown: Sedona et al. 2019, and H100s."""

from __future__ import annotations

from collections.abc import Sequence

from landscale.studies.rank_scaling.cost_model import (
    BACKWARD_FRACTION,
    H100,
    H100_ONE_ADAPTER,
    H100_PATCHES_PER_SECOND,
    JUWELS,
    SEDONA_BATCH,
    SEDONA_GRADIENT_BYTES,
    SEDONA_PATCHES,
    StepCost,
    exposed_seconds,
    fit_step_cost,
)
from landscale.vocabulary.published import SEDONA_EPOCH_SECONDS

FITTED_GPUS = (4, 8)  # numbers of GPUs at which the model is fitted to the measured times
ESTIMATED_GPUS = (1, 8, 96, 1024)
_TEXT_COLUMNS = ("kind", "scaling", "backend", "400 Gb/s InfiniBand")


def sedona_section() -> list[str]:
    """Every measured time of Sedona et al. 2019, next to the model fitted to two of them."""
    points = {gpus: SEDONA_EPOCH_SECONDS[gpus] for gpus in FITTED_GPUS}
    fitted, nominal = (
        fit_step_cost(points, SEDONA_PATCHES, SEDONA_BATCH, SEDONA_GRADIENT_BYTES, JUWELS, factor)
        for factor in (None, 1.0)
    )
    rows = []
    for gpus, seconds in SEDONA_EPOCH_SECONDS.items():
        cells = [str(gpus), f"{seconds:g}"]
        for cost in (fitted, nominal):
            predicted = cost.epoch_seconds(SEDONA_PATCHES, SEDONA_BATCH, SEDONA_GRADIENT_BYTES, gpus, JUWELS)
            cells += [f"{predicted:.1f}", signed_percent(predicted / seconds - 1)]
        wait = exposed_seconds(SEDONA_GRADIENT_BYTES, gpus, JUWELS, BACKWARD_FRACTION * nominal.compute)
        rows.append([*cells, f"{1e3 * wait:.1f}"])
    columns = (
        *("GPUs", "paper, s per epoch", "fitted", "error", "nominal links", "error"),
        "exposed all-reduce, ms per step",
    )
    return [
        "## The cost model: Sedona et al. 2019 on JUWELS",
        f"ResNet-50, {SEDONA_BATCH} patches per GPU, {SEDONA_PATCHES:,} patches per epoch. The model is fitted to the times at"
        f" {' and '.join(map(str, FITTED_GPUS))} GPUs alone. *Fitted*: both computation and communication come from these two"
        " times. From 4 to 8 GPUs the paper's times fall faster than the number of GPUs grows, so that communication would be"
        " negative; it is set to 0. *Nominal links*: communication is that of the links of JUWELS (four V100 per node on NVLink"
        " 2, 150 GB/s per direction; dual EDR InfiniBand, 25 GB/s per node; latencies of NCCL's own model, 3.4 and 14 µs), and"
        " only computation comes from the two times. Both columns agree, because a step takes"
        f" {1e3 * nominal.compute:.0f} ms and waits for about 2 of them.",
        markdown_table(columns, rows),
    ]


def h100_section() -> list[str]:
    """An estimate of the same training on H100s."""
    rows = []
    cost = StepCost(SEDONA_BATCH / H100_PATCHES_PER_SECOND)
    for adapters, cluster in (("one adapter per GPU", H100), ("one adapter per node", H100_ONE_ADAPTER)):
        for gpus in ESTIMATED_GPUS:
            is_one_node = gpus <= cluster.ranks_per_node
            if is_one_node and cluster is not H100:
                continue  # adapters are not used inside a node
            step = cost.step_seconds(SEDONA_GRADIENT_BYTES, gpus, cluster)
            epoch = cost.epoch_seconds(SEDONA_PATCHES, SEDONA_BATCH, SEDONA_GRADIENT_BYTES, gpus, cluster)
            cells = [f"{gpus:,}", f"{SEDONA_BATCH * gpus:,}", "" if is_one_node else adapters]
            cells += [f"{1e3 * step:.2f}", f"{cost.compute / step:.0%}", _seconds(epoch), _seconds(100 * epoch)]
            rows.append(cells)
    columns = (
        *("GPUs", "global batch", "400 Gb/s InfiniBand", "ms per step", "efficiency"),
        *("s per epoch", "s for 100 epochs"),
    )
    return [
        "## The cost model: an estimate for H100s",
        f"**No GPU was measured.** The rate of {H100_PATCHES_PER_SECOND:,} patches/s per H100 is an assumption: MLPerf's"
        " ResNet-50 figures carried over to 12 bands of 120 × 120 px. The rest follows from the model:"
        f" {SEDONA_BATCH} patches per GPU, {SEDONA_PATCHES:,} patches per epoch, {SEDONA_GRADIENT_BYTES / 1e6:.0f} MB of"
        " float32 gradients, eight GPUs per node on NVLink 4 (450 GB/s per direction). Starting, reading, evaluation and"
        " checkpoints are not included, and with epochs this short they take most of the time of a training. Whether"
        " a batch of 65,536 learns well is not part of the estimate.",
        markdown_table(columns, rows),
    ]


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---" if column in _TEXT_COLUMNS else "---:" for column in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def signed_percent(fraction: float) -> str:
    return f"{100 * fraction:+.1f} %".replace("-", "−")


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
