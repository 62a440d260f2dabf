"""A scaling study as Markdown: what was measured, and beside it what the cost model says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.studies.rank_scaling.cost_page import model_of_h100s, model_of_the_paper, signed, table
from landscale.studies.rank_scaling.figures import machine_of, overlap_of

Figures = dict[str, Any]


def page(content: Figures) -> str:
    """The page of a study."""
    weak, strong = ([row for row in content["rows"] if row["kind"] == kind] for kind in ("weak", "strong"))
    parts = [
        f"# {content['settings']['model']} over ranks",
        *_about(content),
        *(["## Weak scaling", _rate_rule(content), _times(weak)] if weak else []),
        *(["## Strong scaling", "The global batch is that of one rank.", _times(strong)] if strong else []),
        "![Epoch time, efficiency and F1 against ranks](scaling.svg)",
        *_predictions(content),
        *model_of_the_paper(),
        *model_of_h100s(),
        *(f"- failed: {t['failed']}" for t in content["trainings"] if "failed" in t),
    ]
    return "\n\n".join(parts) + "\n"


# ---- what was measured


def _about(content: Figures) -> list[str]:
    s, e = content["settings"], content["environment"]
    data = f"{s['patches']:,} {'synthetic ' if s['synthetic'] else ''}patches to train on"
    repeats = max((t["repeat"] for t in content["trainings"]), default=0)
    lines = [
        f"Recipe {s['name']}: {s['model']} ({s['parameters']:,} parameters), {data}, batches of {s['batch']}"
        f" at one rank, {s['epochs']} epochs, {_repeats(repeats)}.",
        f"Measured on {e['gpu'] or e['processor']} ({e['cores']} cores), torch {e['packages']['torch']}.{_threads(content)}"
        " *Seconds an epoch* are those of its steps, without evaluation; a session's first epoch, in which libraries are set"
        " up, is left out. Mean ± standard deviation over the epochs of all repeats. *Efficiency* is patches/s and rank, over"
        " that of the smallest number of ranks. F1 is of the val split, at a threshold of 0.5.",
        f"```\n{e['command']}\n```",
    ]
    return lines + [f"**{line}**" for line in crowded(content)]


def _repeats(number: int) -> str:
    return "every training once" if number == 1 else f"every training {number} times, by different seeds"


def _threads(content: Figures) -> str:
    threads = content["settings"]["threads"]
    if threads is None:
        return f" Started by `{content['settings']['launch']}`."
    return f" Each rank has {threads} thread{'s' if threads > 1 else ''} at every number of ranks."


def crowded(content: Figures) -> list[str]:
    """A sentence for each number of ranks that had to share cores."""
    return [
        f"{known['ranks']} ranks with {known['threads']} thread{'s' if known['threads'] > 1 else ''} each are more than the"
        f" {known['cores']} cores: they waited for each other, and their times say nothing about scaling."
        for known in content["all_reduce"]
        if known["device"] == "cpu" and known["ranks"] * known["threads"] > known["cores"]
    ]


def _rate_rule(content: Figures) -> str:
    grows = content["settings"]["rate_batch"] is not None
    rate = "and so does the learning rate" if grows else "the learning rate stays"
    return (
        f"Each rank has {content['settings']['batch']} patches a step: the global batch grows with the ranks, {rate}."
    )


def _times(rows: Sequence[Figures]) -> str:
    columns = (
        *("ranks", "batch a rank", "global batch", "steps an epoch", "seconds an epoch", "epochs timed"),
        *("patches/s", "speed-up", "efficiency", "micro F1", "macro F1"),
    )
    return table(
        columns,
        [
            [
                str(row["ranks"]),
                str(row["batch"]),
                str(row["global_batch"]),
                str(row["steps"]),
                _spread(row, "seconds", ".4g"),
                str(row["epochs"]),
                f"{row['rate']:,.1f}",
                f"{row['speedup']:.2f}",
                f"{row['efficiency']:.1%}",
                _spread(row, "micro_f1", ".4f"),
                _spread(row, "macro_f1", ".4f"),
            ]
            for row in rows
        ],
    )


def _spread(row: Figures, key: str, form: str) -> str:
    if key not in row:
        return ""
    deviation = row.get(f"{key}_deviation")
    return f"{row[key]:{form}}" + (
        f" ± {deviation:{'.2g' if form == '.4g' else form}}" if deviation is not None else ""
    )


def _predictions(content: Figures) -> list[str]:
    """The all-reduce as it was measured, and the epochs that follow from it."""
    several = [known for known in content["all_reduce"] if known["ranks"] > 1]
    rows = [row for row in content["rows"] if "predicted" in row]
    if not several or not rows:
        return []
    links = [(known, machine_of(known).inside) for known in several]
    measured = [
        [
            *(str(known[key]) for key in ("ranks", "nodes", "backend")),
            f"{1e6 * known['small']:,.0f}",
            f"{1e3 * known['large']:,.1f}",
            f"{1e6 * link.latency:,.1f}",
            f"{link.bandwidth / 1e9:.3g}",
        ]
        for known, link in links
    ]
    first = {
        kind: next(row for row in rows if row["kind"] == kind) for kind in dict.fromkeys(row["kind"] for row in rows)
    }
    compared = [
        [row["kind"], str(row["ranks"]), f"{row['seconds']:.4g}", f"{row['predicted']:.4g}", _error(row)]
        for row in rows
        if row is not first[row["kind"]]
    ]
    hidden = overlap_of(content)
    overlap = (
        f"{hidden:.0%} of a step can hide it"
        if hidden
        else "nothing hides it, as the cores that compute also communicate"
    )
    return [
        "## The cost model: these trainings",
        "`benchmark/cost_model.py` has the formulas and their sources: a step is computing, in proportion to the patches of"
        " a rank, and the part of the all-reduce that the backward pass does not hide. Computing is known from the smallest"
        f" number of ranks; the all-reduce was measured among the same ranks, for one number and for a bucket of gradients;"
        f" {overlap}.",
        table(("ranks", "nodes", "backend", "4 B, µs", "25 MiB, ms", "latency, µs", "bandwidth, GB/s"), measured),
        table(("kind", "ranks", "measured s an epoch", "predicted", "error"), compared),
    ]


def _error(row: Figures) -> str:
    return signed(row["predicted"] / row["seconds"] - 1)
