"""Which networks learn, as a table: of docs/zoo.md, or of a page of its own."""

from __future__ import annotations

from typing import Any

from landscale.studies.results import Figures
from landscale.studies.zoo.learning import FALL
from landscale.studies.zoo.speed import measured

Row = dict[str, Any]


def page(content: Figures, command: str) -> str:
    """Markdown of its own, written by `command`."""
    return f"# What the networks learn\n\n{section(content)}\n\nThis page was written by\n\n```\n{command}\n```\n"


def section(content: Figures) -> str:
    """What was done, what came out, and a line for every network."""
    s, e, head = content["settings"], content["environment"], columns(content)
    machine = e["gpu"] if s["device"] == "cuda" else f"{e['processor']}, threads: {e['threads']}"
    patches = "patches of a synthetic landscape" if s["store"] == "synthetic" else f"patches of {s['store']}"
    table = [head, ["---", *["---:"] * (len(head) - 1)], *table_cells(content)]
    return "\n\n".join(
        [
            f"Each network takes {s['steps']} steps on the same {s['batch']} {patches}, with fresh weights and at its own"
            " side: raw numbers through the input stage, binary cross-entropy, AdamW at a constant rate. *Loss* is the mean"
            f" of the first quarter of the steps → that of the last. A network *learns* if it falls by {1 - FALL:.0%} at least. A"
            " loss in **bold** is below that of any answer that is the same for every patch: the network tells the patches"
            " apart; others need more steps, as `landscale benchmark learning NAME --steps 120` gives them. This shows that a"
            " network trains, not how well it will do.",
            "\n".join(f"- {line}" for line in verdict(content)),
            f"On {machine} ({s['device']}), torch {e['packages']['torch']}, timm {e['packages']['timm']}.",
            "\n".join(f"| {' | '.join(cells)} |" for cells in table),
        ]
    )


def verdict(content: Figures) -> list[str]:
    """A sentence for every number of bands and classes."""
    lines = []
    for task in _tasks(content):
        rows = [row for row in content["models"] if (row["bands"], row["classes"]) == task]
        there = measured({"models": rows})
        learn, look = (sum(row[key] for row in there) for key in ("learns", "looks"))
        least = f"; an answer that is the same for every patch has {there[0]['constant']:.3f} at least" if there else ""
        lines.append(f"{_sizes(*task)}: {learn} of {len(rows)} networks learn, {look} tell the patches apart{least}.")
    return lines


def columns(content: Figures) -> list[str]:
    """Of `table_cells`."""
    return ["network", *(f"loss, {_sizes(*task)}" for task in _tasks(content)), "rate", "processor s", "learns"]


def table_cells(content: Figures) -> list[list[str]]:
    """A row for every network: its name, its loss in each task, rate, processor time of all tasks, whether it learns in all."""
    names, tasks = dict.fromkeys(row["name"] for row in content["models"]), _tasks(content)
    return [_cells([row for row in content["models"] if row["name"] == name], tasks) for name in names]


def _cells(rows: list[Row], tasks: list[tuple[int, int]]) -> list[str]:
    losses = {(row["bands"], row["classes"]): _loss(row) for row in rows}
    there = measured({"models": rows})
    return [
        f"`{rows[0]['name']}`",
        *(losses.get(task, "") for task in tasks),
        f"{there[0]['rate']:g}" if there else "",
        f"{sum(row['seconds'] for row in there):.1f}",
        "yes" if len(there) == len(tasks) and all(row["learns"] for row in there) else "no",
    ]


def _loss(row: Row) -> str:
    if "failed" in row:
        return str(row["failed"])
    last = f"{row['last']:.3f}"
    return f"{row['first']:.3f} → {f'**{last}**' if row['looks'] else last}"


def _tasks(content: Figures) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row["bands"], row["classes"]) for row in content["models"]))


def _sizes(bands: int, classes: int) -> str:
    return f"{bands} bands, {classes} classes"
