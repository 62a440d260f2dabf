"""The results of a study as one JSON file, written row by row, so that the same command can complete it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.runtime.documents import read_json_object
from landscale.training.runs import environment

Results = dict[str, Any]


def open_results(out: Path, benchmark: str, settings: Results, tables: Sequence[str]) -> Results:
    """Read the results that `landscale benchmark BENCHMARK` wrote to `out`. If there is no file, begin new results.

    Args:
        settings: settings of the benchmark; results of other settings are refused.
        tables: keys of the lists of rows, which are empty in new results.

    Raises:
        BadInput: `out` contains something else, or results of other settings or of another machine.
    """
    machine = environment()
    if not out.exists():
        empty: Results = {table: [] for table in tables}
        return {"benchmark": benchmark, "settings": settings, "environment": machine, **date_and_load()} | empty
    content = read_results(out, benchmark)
    for part, current in (("settings", settings), ("environment", machine)):
        for key, value in current.items():
            if key != "command" and content[part].get(key) != value:
                found = f"contains results with {key} {content[part].get(key)}, not {value}"
                raise BadInput(out, f"{found}; choose another --out")
    return content


def date_and_load() -> Results:
    """`date` (UTC) and `load` (average number of busy processes over the last minute): when results begin to be measured."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "load": round(os.getloadavg()[0], 2)}


def read_results(path: Path, benchmark: str = "zoo") -> Results:
    """Read the results that `landscale benchmark BENCHMARK` wrote.

    Raises:
        BadInput: the file is missing or contains something else.
    """
    content = read_json_object(path, f"a file of results of `landscale benchmark {benchmark}`")
    if content.get("benchmark") != benchmark:
        raise BadInput(path, f"contains no results of `landscale benchmark {benchmark}`")
    return content


def needs_row(rows: list[Results], key: Results, final: Collection[str] = ()) -> bool:
    """Whether the row of `key` is missing, or has `failed` for a reason other than those in `final`."""
    row = _find_row(rows, key)
    return row is None or ("failed" in row and row["failed"] not in final)


def put_row(rows: list[Results], key: Results, values: Results) -> None:
    """Append the row of `key`. A row of the same key, which has failed, is removed."""
    before = _find_row(rows, key)
    if before is not None:
        rows.remove(before)
    rows.append(key | values)


def rows_with_values(rows: Sequence[Results]) -> list[Results]:
    """The rows that have not failed."""
    return [row for row in rows if "failed" not in row]


def _find_row(rows: list[Results], key: Results) -> Results | None:
    return next((row for row in rows if key.items() <= row.items()), None)
