"""What the cost model says of machines that are not here, as Markdown: the paper's, and one of H100s."""

from __future__ import annotations

from collections.abc import Sequence

from landscale.studies.rank_scaling.cost_model import (
    BACKWARD,
    GRADIENTS,
    H100,
    H100_ONE_ADAPTER,
    H100_RATE,
    JUWELS,
    PAPER,
    PAPER_BATCH,
    PATCHES,
    Fit,
    exposed,
    fit,
)

FITTED = (4, 8)  # GPUs whose times the model is told
ON_PAPER = (1, 8, 96, 1024)


def model_of_the_paper() -> list[str]:
    """Every measured point of paper 1, and what the model says when it is told two of them."""
    points = {k: PAPER[k] for k in FITTED}
    told, nominal = (fit(points, PATCHES, PAPER_BATCH, GRADIENTS, JUWELS, factor) for factor in (None, 1.0))
    rows = []
    for k, seconds in PAPER.items():
        cells = [str(k), f"{seconds:g}"]
        for model in (told, nominal):
            predicted = model.epoch(PATCHES, PAPER_BATCH, GRADIENTS, k, JUWELS)
            cells += [f"{predicted:.1f}", signed(predicted / seconds - 1)]
        rows.append([*cells, f"{1e3 * exposed(GRADIENTS, k, JUWELS, BACKWARD * nominal.compute):.1f}"])
    columns = ("GPUs", "paper, s an epoch", "fitted", "error", "nominal links", "error", "exposed, ms a step")
    return [
        "## The cost model: Sedona et al. 2019 on JUWELS",
        f"ResNet-50, {PAPER_BATCH} patches a GPU, {PATCHES:,} patches an epoch, told the times at"
        f" {' and '.join(map(str, FITTED))} GPUs and nothing else. *Fitted*: communication is what the two points say."
        " From 4 to 8 GPUs the paper is better than linear, so communication would be negative, and is held at 0."
        " *Nominal links*: communication as JUWELS is built (four V100 a node on NVLink 2, 150 GB/s a direction; dual EDR"
        " InfiniBand, 25 GB/s a node; latencies of NCCL's own model, 3.4 and 14 µs), computing from the two points. Both"
        f" agree, as a step takes {1e3 * nominal.compute:.0f} ms and waits for 2 of them.",
        table(columns, rows),
    ]


def model_of_h100s() -> list[str]:
    """What the same training would take on H100s: an estimate."""
    rows = []
    compute = Fit(PAPER_BATCH / H100_RATE)
    for name, machine in (("an adapter a GPU", H100), ("an adapter a node", H100_ONE_ADAPTER)):
        for k in ON_PAPER:
            if k <= machine.ranks_a_node and machine is not H100:
                continue  # inside a node adapters do not matter
            step = compute.step(GRADIENTS, k, machine)
            epoch = compute.epoch(PATCHES, PAPER_BATCH, GRADIENTS, k, machine)
            cells = [f"{k:,}", f"{PAPER_BATCH * k:,}", name if k > machine.ranks_a_node else ""]
            rows.append(
                [*cells, f"{1e3 * step:.2f}", f"{compute.compute / step:.0%}", _seconds(epoch), _seconds(100 * epoch)]
            )
    columns = ("GPUs", "global batch", "400 Gb/s InfiniBand", "ms a step", "efficiency", "s an epoch", "s, 100 epochs")
    return [
        "## The cost model: H100s, an estimate",
        f"**No GPU was measured.** The rate of {H100_RATE:,} patches/s and H100 is assumed: MLPerf's ResNet-50 figures carried"
        f" over to 12 bands of 120 × 120 px. The rest is the model: {PAPER_BATCH} patches a GPU, {PATCHES:,} patches an epoch,"
        f" {GRADIENTS / 1e6:.0f} MB of float32 gradients, eight GPUs a node on NVLink 4 (450 GB/s a direction). Starting,"
        " reading, evaluation and checkpoints come on top, and at these times they are most of a training; nor does anything"
        " here say that a batch of 65,536 learns well.",
        table(columns, rows),
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---" if column in ("kind", "backend", "400 Gb/s InfiniBand") else "---:" for column in columns]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def signed(share: float) -> str:
    return f"{100 * share:+.1f} %".replace("-", "−")
