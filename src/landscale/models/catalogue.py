"""The zoo as a table.

To build and count every network takes half a minute with torch, so the rows at the usual bands and classes are kept in a
file of the package, and `landscale models` answers from it at once. `landscale models --recount` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.errors import LandscaleError, UnknownName, reason
from landscale.runtime.documents import read_json
from landscale.runtime.files import write_text
from landscale.runtime.progress import progress_bar

if TYPE_CHECKING:
    from landscale.models.registry import ZooEntry

TABLE = Path(__file__).with_name("zoo.json")
BANDS, CLASSES = 12, 19  # of the table
THEIR_BANDS, THEIR_CLASSES = 10, 19  # of the authors' counts

Row = dict[str, Any]


def zoo_rows(
    name: str | None = None, family: str | None = None, bands: int = BANDS, classes: int = CLASSES
) -> list[Row]:
    """The zoo's rows, or that of `name`, which may be any other timm network; of `family` only where one is given.

    A row is what `registry.describe_model` says, and `authors`: where they published a count, `parameters` (theirs), `ours` at
    the same 10 bands and 19 classes, and the `difference`, ours less theirs.

    Raises:
        UnknownName: no such network or family. LandscaleError: impossible bands or classes.
    """
    table = stored_rows()
    families = dict.fromkeys(row["family"] for row in table.values())
    if family is not None and family not in families:
        raise UnknownName("family", family, families)
    if (bands, classes) == (BANDS, CLASSES) and (name is None or name in table):
        rows = list(table.values()) if name is None else [table[name]]
    else:
        from landscale.models.registry import zoo

        rows = count_rows([entry for entry in zoo(name) if family in (None, entry.family)], bands, classes)
    return [row for row in rows if family in (None, row["family"])]


@cache
def stored_rows() -> dict[str, Row]:
    """The rows of the file, by name, in the zoo's order."""
    return {row["name"]: row for row in read_json(TABLE)} if TABLE.exists() else {}


def recount_zoo() -> list[Row]:
    """Count the whole zoo and write the file."""
    from landscale.models.registry import zoo

    rows = count_rows(zoo(), BANDS, CLASSES)
    write_text(TABLE, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    stored_rows.cache_clear()
    return rows


def count_rows(entries: Iterable[ZooEntry], bands: int, classes: int) -> list[Row]:
    """Rows from the networks themselves, which are built on torch's meta device."""
    from landscale.models.registry import describe_model

    entries, rows = list(entries), []
    as_theirs = (bands, classes) == (THEIR_BANDS, THEIR_CLASSES)
    with progress_bar("count", len(entries), "networks", visible=len(entries) > 1) as advance:
        for entry in entries:
            try:
                row = describe_model(entry.name, bands, classes)
            except (AssertionError, RuntimeError) as error:  # timm's, of a network that wants another side
                raise LandscaleError(f"model '{entry.name}' does not take {entry.side} px: {reason(error)}") from error
            rows.append(row | {"authors": compare_with_authors(entry, row["parameters"] if as_theirs else None)})
            advance(1)
    return rows


def compare_with_authors(entry: ZooEntry, ours: int | None = None) -> dict[str, int] | None:
    """The authors' count beside ours of the same bands and classes, counted unless given; None where they give none."""
    from landscale.models.registry import AUTHORS, describe_model

    theirs = entry.published.get(AUTHORS, {}).get("parameters")
    if theirs is None:
        return None
    count = describe_model(entry.name, THEIR_BANDS, THEIR_CLASSES)["parameters"] if ours is None else ours
    return {"parameters": int(theirs), "ours": count, "difference": count - int(theirs)}
