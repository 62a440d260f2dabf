"""docs/zoo.md: the zoo by family, our parameters beside the authors', and what each network costs on a machine."""

from __future__ import annotations

from typing import Any

from landscale.models.catalogue import THEIR_BANDS, THEIR_CLASSES, Row, listing
from landscale.models.differences import reasons, signed
from landscale.studies.results import Figures
from landscale.studies.zoo.learning_page import section as learnt
from landscale.studies.zoo.speed import measured, verdict

COLUMNS = (
    *("network", "parameters", "authors'", "difference", "GFLOPs", "input px"),
    *("training images/s", "inference images/s", "peak memory MB", "% of the machine"),
)


def page(content: Figures, command: str, learning: Figures | None = None) -> str:
    """Markdown of all networks of the zoo; those that `content` does not hold have no speeds.

    Args:
        content: figures of `measure_zoo`.
        command: what writes this page.
        learning: figures of `measure_learning`, for a section of their own.
    """
    rows = listing(bands=THEIR_BANDS, classes=THEIR_CLASSES)
    speeds = {row["name"]: row for row in content["models"]}
    families = {row["family"]: None for row in rows}
    sections = [_family(family, [row for row in rows if row["family"] == family], speeds) for family in families]
    beginning = [_beginning(rows, content, command)]
    if learning is not None:
        beginning.append("[What the networks learn](#what-the-networks-learn) in a few steps stands at the end.")
        sections.append(f"## What the networks learn\n\n{learnt(learning)}")
    return "\n\n".join([*beginning, *sections]) + "\n"


def _beginning(rows: list[Row], content: Figures, command: str) -> str:
    s, e = content["settings"], content["environment"]
    machine = e["gpu"] if s["device"] == "cuda" else f"{e['processor']}, {e['threads']} of its cores"
    paragraphs = [
        "# The zoo",
        f"{len(rows)} networks can be trained by name, and so can any other of timm. Those of Papoutsis et al. 2022 are"
        " rebuilt from their paper and code and have its parameters; where a number differs, the lines below a table say"
        " by which layers. Beside them stand newer networks, to compare with. Every network takes any bands and classes:"
        f" parameters and FLOPs are given for their {THEIR_BANDS} bands and {THEIR_CLASSES} classes"
        " (`landscale models` shows them for others, `landscale models NAME` one network with what others published).",
        "**How to read the tables.** *Parameters* are the trainable ones, *authors'* those of the published code."
        " *GFLOPs* are one patch forward, a multiply-add counted as two. *Images/s* are whole steps on patches that are on"
        " the device already: raw numbers through the input stage and the network, in training also backward and AdamW."
        " *Peak memory* is a training step's, weights included. *% of the machine* is a training step's FLOPs, three times"
        " the forward ones, beside what large matrix products reach on it.",
        f"**Measured** on {machine} ({s['device']}), batches of {s['batch']}, {len(s['bands'])} bands,"
        f" {s['classes']} classes, torch {e['packages']['torch']}, timm {e['packages']['timm']}, about {s['seconds']:g} s"
        f" a network; {len(measured(content))} of {len(rows)} networks. This page was written by",
        f"```\n{command}\n```",
    ]
    if lines := verdict(content):
        paragraphs += ["## The paper's claim", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(paragraphs)


def _family(family: str, rows: list[Row], speeds: dict[str, Figures]) -> str:
    lines = [f"## {family}", "", *(f"- {source}" for source in dict.fromkeys(row["source"] for row in rows)), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(_cells(row, speeds.get(row["name"], {}))) + " |" for row in rows]
    if differing := reasons([row["name"] for row in rows]):
        lines += ["", "Where we differ:", "", *(f"- {line}" for line in differing)]
    return "\n".join(lines)


def _cells(row: Row, speed: dict[str, Any]) -> list[str]:
    authors = row["authors"]
    cells = [
        f"`{row['name']}`",
        f"{row['parameters']:,}",
        f"{authors['parameters']:,}" if authors else "",
        signed(authors["difference"]) if authors else "",
        f"{row['flops'] / 1e9:.3g}",
        str(row["input"][-1]),
    ]
    return cells + (speed_cells(speed) if speed else [""] * 4)


def speed_cells(row: Figures) -> list[str]:
    """Training and inference images/s, megabytes, per cent; of a network that failed, why."""
    if "failed" in row:
        return [row["failed"], "", "", ""]
    memory = row["peak_memory"]
    return [
        f"{row['training']:,.1f}",
        f"{row['inference']:,.1f}",
        f"{memory / 1e6:,.0f}" if memory is not None else "",
        f"{100 * row['training_share']:.0f}",
    ]
