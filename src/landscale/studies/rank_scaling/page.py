"""A rank-scaling study as a Markdown page: what was measured, and next to it the predictions of the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.runtime.markdown import code_block, inline
from landscale.studies.rank_scaling.cost_page import h100_section, markdown_table, sedona_section, signed_percent
from landscale.studies.rank_scaling.rows import cluster_of, overlap_fraction

PAGE_FILE, CHARTS_FILE = "rank-scaling.md", "rank-scaling.svg"

Figures = dict[str, Any]


def rank_scaling_page(content: Figures) -> str:
    """The page of a study, from the content of its results file."""
    weak, strong = ([row for row in content["rows"] if row["kind"] == kind] for kind in ("weak", "strong"))
    parts = [
        f"# {inline(content['settings']['model'])} on several ranks",
        *_introduction(content),
        *(["## Weak scaling", _weak_rule(content), _measured_table(weak)] if weak else []),
        *(["## Strong scaling", "The global batch is the recipe's batch.", _measured_table(strong)] if strong else []),
        *_trainings_section(content),
        f"![Training time, epoch time, efficiency and F1 by number of ranks]({CHARTS_FILE})",
        *_predictions(content),
        *sedona_section(),
        *h100_section(),
        *(f"- failed: {inline(training['failed'])}" for training in content["trainings"] if "failed" in training),
    ]
    return "\n\n".join(parts) + "\n"


# ---- what was measured


def _introduction(content: Figures) -> list[str]:
    s, e = content["settings"], content["environment"]
    data = f"{s['patches']:,} {'synthetic ' if s['synthetic'] else ''}patches in the train split"
    repeats = max((training["repeat"] for training in content["trainings"]), default=0)
    lines = [
        f"Recipe {inline(s['name'])}: {inline(s['model'])} ({s['parameters']:,} parameters), {data}, batches of {s['batch']}"
        f" on one rank, {s['epochs']} epochs, {_repeats(repeats)}.",
        f"Measured on {inline(e['gpu'] or e['processor'])} ({e['cores']} cores), torch {e['packages']['torch']}."
        f"{_threads(content)}"
        " *Seconds per epoch* are those of its steps, without evaluation; the first epoch after each start, in which libraries"
        " are set up, is left out. Values are mean ± standard deviation over the repeats. *Efficiency* is"
        " patches/s per rank, divided by that of the smallest number of ranks. F1 is that of the val split, at a threshold"
        f" of 0.5.{_macro_note(content)}",
        *_schedule(s),
        code_block(e["command"]),
    ]
    return lines + [f"**{line}**" for line in crowding_warnings(content)]


def _macro_note(content: Figures) -> str:
    """Over which classes the macro averages are, from the first training that has them."""
    supports: Figures = next((training["support"] for training in content["trainings"] if training.get("support")), {})
    counts = [f"{split} {n} of {classes}" for split, (n, classes) in supports.items()]
    return f" Macro F1 is over the classes that occur in the split ({', '.join(counts)})." if counts else ""


def _schedule(settings: Figures) -> list[str]:
    """Warm-up and milestones, which belong to the number of epochs of the study."""
    parts = [f"a warm-up of {settings['warmup_epochs']:.3g} epochs"] if settings.get("warmup_epochs") else []
    if settings.get("schedule") == "step" and settings.get("milestones"):
        parts.append(f"the rate divided by 10 after epoch {', '.join(f'{e:.3g}' for e in settings['milestones'])}")
    if not parts:
        return []
    return [f"The schedule is scaled to {settings['epochs']} epochs: {', and '.join(parts)}."]


def _repeats(number: int) -> str:
    return "every training once" if number == 1 else f"every training {number} times with different seeds"


def _threads(content: Figures) -> str:
    threads = content["settings"]["threads"]
    if threads is None:
        return f" Started by {inline(content['settings']['launch'])}."
    return f" Each rank has {threads} thread{'s' if threads > 1 else ''}, whatever the number of ranks."


def crowding_warnings(content: Figures) -> list[str]:
    """A sentence for each number of ranks that had fewer cores than threads."""
    return [
        f"{all_reduce['ranks']} ranks with {all_reduce['threads']} thread{'s' if all_reduce['threads'] > 1 else ''} each are"
        f" more than the {all_reduce['cores']} cores: they waited for each other, and their times do not measure scaling."
        for all_reduce in content["all_reduce"]
        if all_reduce["device"] == "cpu" and all_reduce["ranks"] * all_reduce["threads"] > all_reduce["cores"]
    ]


def _weak_rule(content: Figures) -> str:
    settings = content["settings"]
    if settings.get("rate_rule", "linear") == "sqrt":
        rate = "and the learning rate with its square root"
    else:
        grows = settings["rate_batch"] is not None or settings.get("rate_rule") == "workers"
        rate = "and so does the learning rate" if grows else "the learning rate does not"
    return (
        f"Each rank has {content['settings']['batch']} patches per step: the global batch grows with the number of ranks,"
        f" {rate}."
    )


def _measured_table(rows: Sequence[Figures]) -> str:
    columns = (
        *("ranks", "batch per rank", "global batch", "steps per epoch", "seconds per epoch", "epochs timed"),
        *("patches/s", "speed-up", "efficiency", "micro F1", "macro F1"),
    )
    return markdown_table(
        columns,
        [
            [
                str(row["ranks"]),
                str(row["batch"]),
                str(row["global_batch"]),
                str(row["steps"]),
                _mean_and_deviation(row, "seconds", ".4g", ".2g"),
                str(row["epochs"]),
                f"{row['rate']:,.1f}",
                f"{row['speedup']:.2f}",
                f"{row['efficiency']:.1%}",
                _mean_and_deviation(row, "micro_f1", ".4f", ".4f"),
                _mean_and_deviation(row, "macro_f1", ".4f", ".4f"),
            ]
            for row in rows
        ],
    )


def _trainings_section(content: Figures) -> list[str]:
    """Whole trainings: how long their steps took (Sedona et al. 2019, figure 5), and F1 on the test split."""
    if not content["rows"]:
        return []
    columns = ["scaling", "ranks", "training time, s"]
    tested = any("test_micro_f1" in row for row in content["rows"])
    columns += ["micro F1, test", "macro F1, test"] if tested else []
    rows = [
        [row["kind"], str(row["ranks"]), _mean_and_deviation(row, "training_seconds", ".4g", ".2g")]
        + [_mean_and_deviation(row, f"test_{key}", ".4f", ".4f") for key in ("micro_f1", "macro_f1") if tested]
        for row in content["rows"]
    ]
    about = "*Training time* is the steps of all epochs, the first included, without evaluation."
    if not tested:
        about += " The store has no test split."
    return ["## Whole trainings", about, markdown_table(columns, rows)]


def _mean_and_deviation(row: Figures, key: str, mean_format: str, deviation_format: str) -> str:
    if key not in row:
        return ""
    deviation = row.get(f"{key}_deviation")
    return f"{row[key]:{mean_format}}" + (f" ± {deviation:{deviation_format}}" if deviation is not None else "")


# ---- what the cost model predicts


def _predictions(content: Figures) -> list[str]:
    """The measured all-reduces, and the epoch times that the cost model derives from them."""
    several = [all_reduce for all_reduce in content["all_reduce"] if all_reduce["ranks"] > 1]
    rows = [row for row in content["rows"] if "predicted" in row]
    if not several or not rows:
        return []
    measured = []
    for all_reduce in several:
        link = cluster_of(all_reduce).inside
        measured.append(
            [
                *(str(all_reduce[key]) for key in ("ranks", "nodes", "backend")),
                f"{1e6 * all_reduce['small']:,.0f}",
                f"{1e3 * all_reduce['large']:,.1f}",
                f"{1e6 * link.latency:,.1f}",
                f"{link.bandwidth / 1e9:.3g}",
            ]
        )
    smallest = {
        kind: min(row["ranks"] for row in rows if row["kind"] == kind) for kind in {row["kind"] for row in rows}
    }
    compared = [
        [row["kind"], str(row["ranks"]), f"{row['seconds']:.4g}", f"{row['predicted']:.4g}", _error(row)]
        for row in rows
        if row["ranks"] != smallest[row["kind"]]
    ]
    overlap = overlap_fraction(content)
    hidden = (
        f"{overlap:.0%} of a step can hide it"
        if overlap
        else "no computation hides it, because the same cores compute and communicate"
    )
    return [
        "## The cost model: these trainings",
        "`studies/rank_scaling/cost_model.py` has the formulas and their sources. The time of a step is computation, in"
        " proportion to the patches per rank, and the part of the all-reduce that the backward pass does not hide. Computation"
        " is taken from the smallest number of ranks. The all-reduce was measured among the same ranks, for one number and for"
        f" a bucket of gradients; {hidden}.",
        markdown_table(
            ("ranks", "nodes", "backend", "4 B, µs", "25 MiB, ms", "latency, µs", "bandwidth, GB/s"), measured
        ),
        markdown_table(("kind", "ranks", "measured s per epoch", "predicted", "error"), compared),
    ]


def _error(row: Figures) -> str:
    return signed_percent(row["predicted"] / row["seconds"] - 1)
