"""The results of all probes as one table with a row for each encoder, store, protocol and amount of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from landscale.probing import Probe
from landscale.probing.cells import Amount, Cell, cell_file, read_cell
from landscale.probing.intervals import samples_over_seeds
from landscale.runtime.files import atomic_file, write_text
from landscale.store import PatchStore
from landscale.studies.transfer.inputs import Encoder
from landscale.studies.transfer.multiples import Bounded, Multiple, multiple_of_labels

Row = dict[str, Any]
SCRATCH = "scratch"


@dataclass(frozen=True)
class Point:
    """An encoder with one protocol and one amount of labels.

    row: of the summary of its probe (`probing.results.summary_rows`). samples: (SAMPLES,) main figure in bootstrap samples of
    patches and seeds.
    """

    row: Row
    samples: NDArray[np.float64]


def read_points(probe: Probe) -> list[Point]:
    """The points of a probe, from its cells."""
    points = []
    for row in probe.summary:
        key = {name: row[name] for name in ("protocol", "fraction", "shots")}
        cells = [
            Cell(seed["protocol"], Amount(seed["fraction"], seed["shots"]), seed["seed"])
            for seed in probe.seeds
            if key.items() <= seed.items()
        ]
        found = [read_cell(cell_file(Path(probe.folder), cell)).sampled(probe.figures[0]) for cell in cells]
        points.append(Point(row, samples_over_seeds(found)))
    return points


def store_rows(store: PatchStore, figure: str, probed: Sequence[tuple[Encoder, Sequence[Point]]]) -> list[Row]:
    """The rows of one store. Trainings from scratch belong to a network and to no encoder.

    Every row has `store` and `store_digest`, `encoder` and `weights` (digest), which scratch does not have, `network`, the
    columns of the probe's summary, `figure`, the name of the main figure, and `times`, the multiple of labels that scratch needs
    for the same main figure, with the ends of its interval `times_low` and `times_high`. `times_bound`, `times_low_bound` and
    `times_high_bound` are "=", or "<" or ">" where these are only bounds. All are None in rows of scratch, and without scratch.

    Args:
        store: the store. figure: its main figure. probed: each encoder with its points on this store.
    """
    curves = {
        encoder.network: sorted(
            (point for point in points if point.row["protocol"] == SCRATCH),
            key=lambda point: float(point.row["fitted"]),
        )
        for encoder, points in probed
        if encoder.trains_scratch
    }
    rows = []
    for encoder, points in probed:
        for point in points:
            is_scratch = point.row["protocol"] == SCRATCH
            multiple = None if is_scratch else _multiple(point, curves[encoder.network], figure)
            rows.append(
                {
                    "store": str(store.path),
                    "store_digest": store.fingerprint(),
                    "encoder": None if is_scratch else encoder.name,
                    "weights": None if is_scratch else encoder.digest,
                    "network": encoder.network,
                    **point.row,
                    "figure": figure,
                    **_columns(multiple),
                }
            )
    return rows


def _multiple(point: Point, curve: Sequence[Point], figure: str) -> Multiple | None:
    if not curve:
        return None
    labels, scores = (np.array([scratch.row[key] for scratch in curve], np.float64) for key in ("fitted", figure))
    samples = np.stack([scratch.samples for scratch in curve])
    return multiple_of_labels(labels, scores, samples, point.row["fitted"], point.row[figure], point.samples)


def _columns(multiple: Multiple | None) -> Row:
    columns: Row = {}
    for key in ("value", "low", "high"):
        name = "times" if key == "value" else f"times_{key}"
        number: Bounded | None = getattr(multiple, key, None)
        columns |= (
            {name: None, f"{name}_bound": None}
            if number is None
            else {name: number.value, f"{name}_bound": number.bound}
        )
    return columns


def write_tables(out: Path, rows: Sequence[Row]) -> None:
    """Write `transfer.parquet` and `transfer.csv`. A figure that a store does not have is missing in its rows."""
    table = pd.DataFrame(rows).astype({"shots": "Int64"})
    with atomic_file(out / "transfer.parquet") as temporary:
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)
    write_text(out / "transfer.csv", table.to_csv(index=False))
