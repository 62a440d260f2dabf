"""Which networks learn, as a section of docs/zoo.md or as a page of its own."""

from __future__ import annotations

from landscale.studies.results import Results, rows_with_values
from landscale.studies.zoo.learning import LEARNT_RATIO


def learning_page(content: Results, command: str) -> str:
    """A page in Markdown, written by `command`."""
    return (
        f"# What the networks learn\n\n{learning_section(content)}\n\nThis page was written by\n\n```\n{command}\n```\n"
    )


def learning_section(content: Results) -> str:
    """How the networks were trained, a summary, and a table with a row for every network."""
    s, e, head = content["settings"], content["environment"], learning_columns(content)
    machine = e["gpu"] if s["device"] == "cuda" else f"{e['processor']}, threads: {e['threads']}"
    patches = "patches of a synthetic landscape" if s["store"] == "synthetic" else f"patches of {s['store']}"
    table = [head, ["---", *["---:"] * (len(head) - 1)], *learning_rows(content)]
    return "\n\n".join(
        [
            f"Each network is trained for {s['steps']} steps on the same {s['batch']} {patches}, with new weights and at its"
            " own input side, by binary cross-entropy and AdamW at a constant rate. *Loss* is the mean over the first quarter"
            " of the steps → the mean over the last quarter, in **bold** if the network learns. A network *learns* if its last"
            f" loss is at least {1 - LEARNT_RATIO:.0%} lower than that of the best prediction that is the same for all patches,"
            " the frequency of each class. So it must distinguish the patches; to learn how frequent the classes are is not"
            " enough."
            " A network that does not learn may need more steps (`landscale benchmark learning NAME --steps 120`)."
            " This shows that a network can be trained, not how well it will score.",
            "\n".join(f"- {line}" for line in learning_summary(content)),
            f"On {machine} ({s['device']}), torch {e['packages']['torch']}, timm {e['packages']['timm']}.",
            "\n".join(f"| {' | '.join(cells)} |" for cells in table),
        ]
    )


def learning_summary(content: Results) -> list[str]:
    """A sentence for every combination of bands and classes."""
    lines = []
    for task in _tasks(content):
        rows = [row for row in content["models"] if (row["bands"], row["classes"]) == task]
        trained = rows_with_values(rows)
        learning = sum(row["learns"] for row in trained)
        constant = (
            f"; the best prediction that is the same for all patches has a loss of {trained[0]['constant']:.3f}"
            if trained
            else ""
        )
        lines.append(f"{_sizes(*task)}: {learning} of {len(rows)} networks learn{constant}.")
    return lines


def learning_columns(content: Results) -> list[str]:
    """The column titles of `learning_rows`."""
    return ["network", *(f"loss, {_sizes(*task)}" for task in _tasks(content)), "rate", "processor s", "learns"]


def learning_rows(content: Results) -> list[list[str]]:
    """A row for every network: name, loss in each task, rate, processor time of all tasks, and whether it learns in all."""
    names, tasks = dict.fromkeys(row["name"] for row in content["models"]), _tasks(content)
    return [_cells([row for row in content["models"] if row["name"] == name], tasks) for name in names]


def _cells(rows: list[Results], tasks: list[tuple[int, int]]) -> list[str]:
    losses = {(row["bands"], row["classes"]): _loss(row) for row in rows}
    trained = rows_with_values(rows)
    return [
        f"`{rows[0]['name']}`",
        *(losses.get(task, "") for task in tasks),
        f"{trained[0]['rate']:g}" if trained else "",
        f"{sum(row['seconds'] for row in trained):.1f}",
        "yes" if len(trained) == len(tasks) and all(row["learns"] for row in trained) else "no",
    ]


def _loss(row: Results) -> str:
    if "failed" in row:
        return str(row["failed"])
    last = f"{row['last']:.3f}"
    return f"{row['first']:.3f} → {f'**{last}**' if row['learns'] else last}"


def _tasks(content: Results) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row["bands"], row["classes"]) for row in content["models"]))


def _sizes(bands: int, classes: int) -> str:
    return f"{bands} bands, {classes} classes"
