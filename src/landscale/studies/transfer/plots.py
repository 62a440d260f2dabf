"""Charts of label efficiency, one picture for each store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landscale.report.charts import COLOURS, GREY, LONGEST_NAME, Chart, ChartLine, png_file
from landscale.studies.transfer.rows import SCRATCH, Row
from landscale.vocabulary.headline import HEADLINE_NAMES

LONGEST_LABEL = 28  # characters of a name in the legend, which has four columns
COLUMNS = 2  # of charts in a picture
_ENCODER_COLOURS = COLOURS[:-1]  # the last one is grey, the colour of scratch


def store_png(content: dict[str, Any], store: dict[str, Any]) -> bytes:
    """A PNG file with the charts of a store."""
    charts = store_charts(content, store)
    return png_file([charts[k : k + COLUMNS] for k in range(0, len(charts), COLUMNS)])


def store_charts(content: dict[str, Any], store: dict[str, Any]) -> list[Chart]:
    """A chart for each protocol: the main figure over the number of labelled patches, with intervals.

    It has a line for each encoder, in the same colour in all charts, and below these in grey a line for each network that is
    trained from scratch.

    Args:
        content: of `transfer.json`. store: the store's entry in it.
    """
    rows = [row for row in content["rows"] if row["store"] == store["store"]]
    scratch = [
        _line([row for row in rows if row["encoder"] is None and row["network"] == network], scratch_label(network), k)
        for k, network in enumerate(dict.fromkeys(row["network"] for row in rows if row["encoder"] is None))
    ]
    by_protocol: dict[str, list[ChartLine]] = {}
    for k, encoder in enumerate(content["encoders"]):
        own = [row for row in rows if row["encoder"] == encoder["encoder"]]
        for protocol in dict.fromkeys(row["protocol"] for row in own):
            line = _line([row for row in own if row["protocol"] == protocol], encoder_label(encoder), k)
            by_protocol.setdefault(protocol, []).append(line)
    figure = HEADLINE_NAMES[store["figure"]]
    return [
        Chart(f"{protocol}: {figure}", "labelled patches", [*scratch, *lines], log_x=True)
        for protocol, lines in (by_protocol or {SCRATCH: []}).items()
    ]


def encoder_label(encoder: dict[str, Any]) -> str:
    """The name of an encoder, if it is short; else its end and the beginning of its digest, as two ends may be equal."""
    name, digest = encoder["encoder"], encoder["weights"][:6]
    return name if len(name) <= LONGEST_LABEL else f"{_ending(name, LONGEST_LABEL - 7)} {digest}"


def scratch_label(network: str) -> str:
    """The name of the trainings from scratch of a network."""
    return _ending(f"scratch, {network}", LONGEST_NAME)


def _ending(text: str, length: int) -> str:
    """Text of at most `length` characters; of a longer one the end, because beginnings of names are often equal."""
    return text if len(text) <= length else f"…{text[1 - length :]}"


def _line(rows: Sequence[Row], name: str, number: int) -> ChartLine:
    """Line `number` of the encoders, or of the networks trained from scratch."""
    rows = sorted(rows, key=lambda row: float(row["fitted"]))
    is_scratch = rows[0]["encoder"] is None
    return ChartLine(
        name,
        [(row["fitted"], row[row["figure"]]) for row in rows],
        GREY if is_scratch else _ENCODER_COLOURS[number % len(_ENCODER_COLOURS)],
        intervals=[(row[f"{row['figure']}_low"], row[f"{row['figure']}_high"]) for row in rows],
        dashed=number > 0 if is_scratch else number >= len(_ENCODER_COLOURS),
    )
