"""The networks of the zoo (those that landscale has by name) as a table.

Building and counting every network takes half a minute, so the rows for 12 bands and 19 classes are stored in a file of the
package, which `landscale models` reads without importing torch. `landscale models --recount` writes it again.
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
BANDS, CLASSES = 12, 19  # for which the stored rows were counted
AUTHORS_BANDS, AUTHORS_CLASSES = 10, 19  # for which the authors published their counts

Row = dict[str, Any]


def zoo_rows(
    name: str | None = None, family: str | None = None, bands: int = BANDS, classes: int = CLASSES
) -> list[Row]:
    """The rows of the zoo, or the row of one network.

    A row is the result of `describe_model` and `authors`, which is None if the authors published no number of parameters.
    Otherwise it has `parameters` (of the authors), `ours` for the same 10 bands and 19 classes, and `difference`: ours − theirs.

    Args:
        name: a network of the zoo, or any other of timm; None: all of the zoo.
        family: only rows of this family.
        bands: number of input channels.
        classes: number of outputs.

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
    """The rows stored in the package, by name, in the order of the zoo."""
    return {row["name"]: row for row in read_json(TABLE)} if TABLE.exists() else {}


def recount_zoo() -> list[Row]:
    """Count the parameters and FLOPs of the whole zoo and write them to the package."""
    from landscale.models.registry import zoo

    rows = count_rows(zoo(), BANDS, CLASSES)
    write_text(TABLE, "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n")
    stored_rows.cache_clear()
    return rows


def count_rows(entries: Iterable[ZooEntry], bands: int, classes: int) -> list[Row]:
    """Rows of networks, which are built on torch's meta device and counted."""
    from landscale.models.registry import describe_model

    entries, rows = list(entries), []
    as_theirs = (bands, classes) == (AUTHORS_BANDS, AUTHORS_CLASSES)
    with progress_bar("count", len(entries), "networks", visible=len(entries) > 1) as advance:
        for entry in entries:
            try:
                row = describe_model(entry.name, bands, classes)
            except (AssertionError, RuntimeError) as error:  # raised by timm if the side does not fit
                raise LandscaleError(f"model '{entry.name}' does not take {entry.side} px: {reason(error)}") from error
            rows.append(row | {"authors": compare_with_authors(entry, row["parameters"] if as_theirs else None)})
            advance(1)
    return rows


def compare_with_authors(entry: ZooEntry, ours: int | None = None) -> dict[str, int] | None:
    """The authors' number of parameters and ours (counted if None), or None if they published none. See `zoo_rows`."""
    from landscale.models.registry import AUTHORS, describe_model

    theirs = entry.published.get(AUTHORS, {}).get("parameters")
    if theirs is None:
        return None
    count = describe_model(entry.name, AUTHORS_BANDS, AUTHORS_CLASSES)["parameters"] if ours is None else ours
    return {"parameters": int(theirs), "ours": count, "difference": count - int(theirs)}
