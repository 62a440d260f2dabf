"""The transfer study as a Markdown page, and its tables of multiples for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.runtime.markdown import code_block, inline
from landscale.studies.transfer.multiples import Bounded, Multiple
from landscale.studies.transfer.rows import SCRATCH, Row
from landscale.vocabulary.headline import HEADLINE_NAMES

PAGE_FILE = "transfer.md"
_TEXT_COLUMNS = ("encoder", "protocol", "network", "bands", "weights", "labels")

_MEANING = """\
Each encoder is scored on the test split of each store, with classifiers that are fitted to some or all labels of the train
split. `knn` (the 5 nearest neighbours) and `linear` (logistic regression) leave the encoder as it is. `fine-tune` trains all of
it, `lora` low-rank adapters in it. `scratch` trains the same network on the same input, beginning with random weights; encoders
with the same network and input have the same `scratch`.

- *Labels* are those that were asked for: a part of the train split, or a number of patches of each class. *Patches* is the
  number of labelled patches to which the classifier was really fitted, the mean over seeds. A class that has fewer patches than
  were asked for gives all it has. In a multi-label store a patch counts for all its classes. With all labels, `linear` is
  fitted to train and val together. Besides these, `linear` chooses its regularisation by the labels of val.
- *Scores* are means over seeds, which draw the patches and begin the trainings. In brackets is the 95% interval over bootstrap
  samples of the test patches and of the seeds.
- *Times the labels* is n in "as good as `scratch` with n times the labels": the number of patches with which `scratch` of this
  network has the same score, divided by *patches*. The score of `scratch` with a number of patches is the best one with at
  most as many, and is interpolated over the logarithm of their number. It is never continued beyond what was measured: `> n`
  means that `scratch` does not reach the score with its most patches, which are n times as many; `< n` that it is better
  already with its fewest. `linear` on train and val together has more patches than `scratch` ever has, so there n of `> n` is
  below 1. In brackets is the 95% interval over the same bootstrap samples for `scratch` and encoder; a bound without brackets
  holds in the whole interval."""


def transfer_page(content: dict[str, Any]) -> str:
    """The page of a study, from the content of `transfer.json`; it shows the charts next to it."""
    e = content["environment"]
    packages = ", ".join(f"{name} {e['packages'][name]}" for name in ("landscale", "torch", "timm"))
    parts = [
        "# Label efficiency of encoders",
        _MEANING,
        "## Encoders",
        _markdown(*_encoder_table(content)),
        *(part for store in content["stores"] for part in _store_section(content, store)),
        "## How it was measured",
        f"On {inline(e['gpu'] or e['processor'])}, {packages}. This command repeats it, and resumes it with what is missing:",
        code_block(content["command"]),
    ]
    return "\n\n".join(parts) + "\n"


def multiples_table(content: dict[str, Any], store: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles, and a row for each encoder and protocol with the multiple at each amount; no rows without scratch."""
    rows = [row for row in _rows(content, store) if row["times"] is not None]
    amounts = list(dict.fromkeys(_amount(row) for row in rows))
    found = {(row["encoder"], row["protocol"], _amount(row)): str(_multiple(row)) for row in rows}
    return ["encoder", "protocol", *amounts], [
        [encoder, protocol, *(found[encoder, protocol, amount] for amount in amounts)]
        for encoder, protocol in dict.fromkeys((row["encoder"], row["protocol"]) for row in rows)
    ]


def _store_section(content: dict[str, Any], store: dict[str, Any]) -> list[str]:
    figure = HEADLINE_NAMES[store["figure"]]
    labels = "multi-label" if store["multi_label"] else "single-label"
    splits = ", ".join(f"{n:,} {name}" for name, n in store["splits"].items())
    columns, rows = multiples_table(content, store)
    multiples = ["### Times the labels", _markdown(columns, rows)] if rows else []
    return [
        f"## {inline(store['store'])}",
        f"{store['classes']} classes, {labels}; patches: {splits}; digest {store['digest'][:12]}. The score is {figure}.",
        f"![{figure} by labelled patches]({store['chart']})",
        *(multiples or ["Without the protocol `scratch` there is nothing to compare the numbers of labels with."]),
        "### Scores",
        _markdown(*_score_table(content, store)),
    ]


def _encoder_table(content: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    return ["encoder", "network", "bands", "side", "weights"], [
        [about["encoder"], about["network"], " ".join(about["bands"]), f"{about['side']} px", about["weights"][:12]]
        for about in content["encoders"]
    ]


def _score_table(content: dict[str, Any], store: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    figure = store["figure"]
    return ["encoder", "protocol", "labels", "patches", "seeds", HEADLINE_NAMES[figure]], [
        [
            row["encoder"] or f"none, {row['network']}",
            row["protocol"],
            _amount(row),
            f"{row['fitted']:,.4g}" if row["fitted"] < 1000 else f"{row['fitted']:,.0f}",
            str(row["seeds"]),
            f"{row[figure]:.4f} [{row[f'{figure}_low']:.3f} … {row[f'{figure}_high']:.3f}]",
        ]
        for row in sorted(_rows(content, store), key=lambda row: row["protocol"] != SCRATCH)
    ]


def _rows(content: dict[str, Any], store: dict[str, Any]) -> list[Row]:
    return [row for row in content["rows"] if row["store"] == store["store"]]


def _amount(row: Row) -> str:
    return f"{100 * row['fraction']:.4g}%" if row["fraction"] is not None else f"{row['shots']} a class"


def _multiple(row: Row) -> Multiple:
    return Multiple(*(Bounded(row[name], row[f"{name}_bound"]) for name in ("times", "times_low", "times_high")))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---" if column in _TEXT_COLUMNS else "---:" for column in columns]
    names = [
        [inline(cell) if column in _TEXT_COLUMNS else cell for column, cell in zip(columns, row, strict=True)]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *names))
