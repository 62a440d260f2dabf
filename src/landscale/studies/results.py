"""The figures of a benchmark as one JSON file, which the same command completes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.runtime.documents import read_json_object
from landscale.training.runs import environment

Figures = dict[str, Any]


def begin(out: Path, kind: str, settings: Figures, parts: Sequence[str]) -> Figures:
    """What `landscale benchmark KIND` has written to `out` before, or the beginning of it: `parts` without rows.

    Raises:
        BadInput: `out` holds something else, or figures of other settings or of another machine.
    """
    machine = environment()
    if not out.exists():
        empty: Figures = {part: [] for part in parts}
        return {"benchmark": kind, "settings": settings, "environment": machine} | empty
    content = read_results(out, kind)
    for part, now in (("settings", settings), ("environment", machine)):
        for key, value in now.items():
            if key != "command" and content[part].get(key) != value:
                found = f"holds figures with {key} {content[part].get(key)}, not {value}"
                raise BadInput(out, f"{found}; choose another --out")
    return content


def read_results(path: Path, kind: str = "zoo") -> Figures:
    """The figures that `landscale benchmark KIND` has written.

    Raises:
        BadInput: the file is missing or something else.
    """
    content = read_json_object(path, f"a file of figures of `landscale benchmark {kind}`")
    if content.get("benchmark") != kind:
        raise BadInput(path, f"holds no figures of `landscale benchmark {kind}`")
    return content


def missing(rows: list[Figures], key: Figures, final: Collection[str] = ()) -> bool:
    """Whether there is no row of `key`, or it `failed` for a reason that is not `final`."""
    row = _row(rows, key)
    return row is None or ("failed" in row and row["failed"] not in final)


def put(rows: list[Figures], key: Figures, figures: Figures) -> None:
    """Add the row of `key`, instead of one that failed."""
    before = _row(rows, key)
    if before is not None:
        rows.remove(before)
    rows.append(key | figures)


def _row(rows: list[Figures], key: Figures) -> Figures | None:
    return next((row for row in rows if key.items() <= row.items()), None)
