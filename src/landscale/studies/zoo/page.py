"""docs/zoo.md: the networks by family, with the parameters of the published code and the speed measured on a machine."""

from __future__ import annotations

from landscale.models.catalogue import AUTHORS_BANDS, AUTHORS_CLASSES, Row, zoo_rows
from landscale.models.differences import format_difference, reasons_for_differences
from landscale.studies.results import Results
from landscale.studies.zoo.learning_page import learning_section
from landscale.studies.zoo.summary import QUIET_SHARE, Speed, Spread, busy_rows, comparison_sentences, speed_of

BUSY = "†"  # marks a network during all of whose measurements the machine was busy
COLUMNS = (
    *("network", "parameters", "authors'", "difference", "GFLOPs", "input px"),
    *("training images/s", "inference images/s", "peak memory MB", "% of the machine"),
)


def zoo_page(content: Results, command: str, learning: Results | None = None) -> str:
    """The page in Markdown. Networks that are not in `content` are listed without speeds.

    Args:
        content: results of `measure_zoo`.
        command: the command that writes this page.
        learning: results of `measure_learning`, which get a section of their own.
    """
    rows = zoo_rows(bands=AUTHORS_BANDS, classes=AUTHORS_CLASSES)
    speeds = {(model["name"], model["side"]): speed_of(content, model) for model in content["models"]}
    families = {row["family"]: None for row in rows}
    sections = [_family(family, [row for row in rows if row["family"] == family], speeds) for family in families]
    beginning = [_beginning(rows, content, command)]
    if learning is not None:
        beginning.append("The last section shows [what the networks learn](#what-the-networks-learn) in a few steps.")
        sections.append(f"## What the networks learn\n\n{learning_section(learning)}")
    return "\n\n".join([*beginning, *sections]) + "\n"


def _beginning(rows: list[Row], content: Results, command: str) -> str:
    s, e = content["settings"], content["environment"]
    machine = e["gpu"] if s["device"] == "cuda" else f"{e['processor']}, {e['threads']} of its cores"
    paragraphs = [
        "# The zoo",
        f"{len(rows)} networks can be trained by name, and so can any other network of timm. The networks of Papoutsis et"
        " al. 2022 are rebuilt from their paper and code and have the same number of parameters; where the number differs,"
        " the lines below a table name the layers. Newer networks are listed for comparison. Every network accepts any bands"
        f" and classes. Parameters and FLOPs are given for the {AUTHORS_BANDS} bands and {AUTHORS_CLASSES} classes of the paper"
        " (`landscale models` shows them for others, `landscale models NAME` shows one network with published scores).",
        "**How to read the tables.** *Parameters* are the trainable ones, *authors'* those of the published code."
        " *GFLOPs* are those of the forward pass of one patch, where a multiply-add counts as two. *Images/s* include whole"
        " steps on patches that are already on the device: digital numbers through the input stage and the network, in"
        " training also the backward pass and AdamW. They are the median over the rounds, with the lowest and the"
        " highest round in parentheses. *Peak memory* is that of a training step, with the weights. *% of the machine*"
        " compares the FLOPs of a training step, three times those of the forward pass, with those that large matrix products"
        " reach on the machine.",
        f"**Measured** on {machine} ({s['device']}), batches of {s['batch']}, {len(s['bands'])} bands,"
        f" {s['classes']} classes, torch {e['packages']['torch']}, timm {e['packages']['timm']}, {s['seconds']:g} s"
        f" per measurement, or one step if that takes longer. {_quality(content, len(rows))} This page was written by",
        f"```\n{command}\n```",
    ]
    if lines := comparison_sentences(content):
        paragraphs += ["## The paper's claim", "\n".join(f"- {line}" for line in lines)]
    return "\n\n".join(paragraphs)


def _quality(content: Results, networks: int) -> str:
    """How many rounds there were, how evenly fast the machine was, and what was left out because it was busy."""
    speeds = [speed_of(content, model) for model in content["models"]]
    measured = [speed for speed in speeds if isinstance(speed, Speed)]
    rates = [row["reference"] for row in content["measurements"] if "failed" not in row]
    if not rates:
        return f"No network of {networks} was measured."
    rounds = Spread.of([speed.rounds for speed in measured])
    marked = sum(speed.busy for speed in measured)
    machine = Spread.of([rate / 1e9 for rate in rates])
    names = {model["name"] for model in content["models"]}
    return (
        f"The load average was {content['load']:.1f} at the beginning."
        f" {len(names)} of {networks} networks, each once in every round, in an order that is turned from round to round;"
        f" {rounds.show('.0f')} rounds count for a network. Matrix products before, between and after the two parts of a"
        f" measurement reached {machine.show(',.0f')} GFLOPs/s. A measurement during which they reached less than"
        f" {QUIET_SHARE:.0%} of the highest rate is repeated, and does not count if it stays slower, because other programs were"
        f" computing ({len(busy_rows(content['measurements']))} of {len(rates)}); {marked} networks without any other"
        f" measurement are marked {BUSY}."
    )


def _family(family: str, rows: list[Row], speeds: dict[tuple[str, int], Speed | str | None]) -> str:
    lines = [f"## {family}", "", *(f"- {source}" for source in dict.fromkeys(row["source"] for row in rows)), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(_cells(row, speeds.get((row["name"], row["input"][-1])))) + " |" for row in rows]
    if differing := reasons_for_differences([row["name"] for row in rows]):
        lines += ["", "Differences from the published code:", "", *(f"- {line}" for line in differing)]
    return "\n".join(lines)


def _cells(row: Row, speed: Speed | str | None) -> list[str]:
    authors = row["authors"]
    return [
        f"`{row['name']}`",
        f"{row['parameters']:,}",
        f"{authors['parameters']:,}" if authors else "",
        format_difference(authors["difference"]) if authors else "",
        f"{row['flops'] / 1e9:.3g}",
        str(row["input"][-1]),
        *speed_cells(speed),
    ]


def speed_cells(speed: Speed | str | None) -> list[str]:
    """Training and inference images/s, megabytes and per cent; or the reason why the network failed; empty if unmeasured."""
    if not isinstance(speed, Speed):
        return [speed or "", "", "", ""]
    mark = f" {BUSY}" if speed.busy else ""
    return [
        speed.training.show(",.1f") + mark,
        speed.inference.show(",.1f") + mark,
        f"{speed.memory / 1e6:,.0f}" if speed.memory is not None else "",
        f"{100 * speed.share:.0f}",
    ]
