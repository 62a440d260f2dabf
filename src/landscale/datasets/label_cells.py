"""The classes in a cell of a table: a list, text separated by `;` or `|`, or a list that was written as text, as csv has them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.vocabulary.nomenclatures import NOMENCLATURES

_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_KNOWN = {name for one in NOMENCLATURES.values() for name in one.names}  # some have commas


def classes_of_cells(cells: Iterable[Any], path: Path, column: str) -> list[tuple[str, ...]]:
    """The classes in each cell of a column of a table.

    Args:
        cells: lists of names or numbers, or texts: `Forest;Water`, `Forest|Water`, `['Forest', 'Water']` (Python),
            `['Forest' 'Water']` and `[1 2]` (NumPy), `["Forest", "Water"]` (JSON). A cell without a value has no class.
        path, column: the table and the name of the column, for error messages.

    Raises:
        BadInput: a cell that can be read in two ways, such as `Forest,Water` where `Forest` is another class; a class that is
            in a cell twice, as in a vector of 0 and 1; a number that is not whole.
    """
    rows = _read(cells, path, column)
    for row in rows:
        if len({*row}) < len(row):
            twice = next(name for name in row if row.count(name) > 1)
            problem = (
                f"a cell has {twice!r} twice; expected the classes of an image, or a column of 0 and 1 for each class"
            )
            raise BadInput(path, f"column {column}: {problem}")
    if all(len(row) < 2 for row in rows):
        names = {name for row in rows for name in row}
        _check_separators(names, path, column)
        _check_blanks(names, path, column)
    return rows


def one_class_of_cells(cells: Iterable[Any], path: Path, column: str) -> list[str]:
    """The class in each cell of a column that has one for each image; empty for a cell without a value.

    `;` and `|` belong to the name of a class, unless a part of it is in other cells as well.

    Raises:
        BadInput: as `classes_of_cells`; or a cell has several classes.
    """
    cells = list(cells)
    rows = _read(cells, path, column)
    _check_separators({name for row in rows for name in row}, path, column)
    places = Counter(name for row in {*rows} for name in {*row})
    found = []
    for cell, row in zip(cells, rows, strict=True):
        if len(row) > 1 and (not isinstance(cell, str) or any(places[name] > 1 for name in row)):
            problem = f"a cell has the classes {', '.join(row)}; if images have several, call the column 'labels'"
            raise BadInput(path, f"column {column}: {problem}")
        found.append(" ".join(cell.split()) if len(row) > 1 else row[0] if row else "")
    return found


def _read(cells: Iterable[Any], path: Path, column: str) -> list[tuple[str, ...]]:
    try:
        return [_classes(cell) for cell in cells]
    except ValueError as error:
        raise BadInput(path, f"column {column}: {error}") from None


def _classes(cell: Any) -> tuple[str, ...]:
    """The classes in a cell; ValueError if it cannot be read."""
    if isinstance(cell, str):
        text = cell.strip()
        in_brackets = text[:1] in _BRACKETS and text[-1:] == _BRACKETS[text[:1]]
        is_list = in_brackets and (text[0] == "[" or _QUOTED.search(text))
        words = _written_list(text) if is_list else re.split(r"[;|]", text)
    elif isinstance(cell, Iterable):
        words = [str(word) for word in cell]
    else:
        words = [] if cell is None or str(cell) in ("nan", "<NA>") else [str(cell)]
    return tuple(_name(word) for word in (" ".join(word.split()) for word in words) if word)


def _written_list(text: str) -> list[str]:
    """The words of a list in brackets."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list) and all(isinstance(word, str | int | float) for word in found):
        return [str(word) for word in found]
    inside = text[1:-1].strip()
    if _QUOTED.search(inside):
        if _QUOTED.sub("", inside).strip(", \t\r\n"):
            raise ValueError(f"{text} is no list of names")
        return [re.sub(r"\\(.)", r"\1", single or double) for single, double in _QUOTED.findall(inside)]
    words = [word.strip() for word in inside.split(",")]
    if len(words) == 1 and " " in inside:
        words = inside.split()
        if not all(_NUMBER.fullmatch(word) for word in words):
            raise ValueError(f"{text} can be read in two ways; write names separated by ;")
    return words


def _name(word: str) -> str:
    """A class as it is called: a whole number without a decimal point, which tables with empty cells add."""
    if _NUMBER.fullmatch(word) and not word.isdecimal():
        number = float(word)
        if number != int(number):
            raise ValueError(f"{word} is neither a name nor a whole number")
        return str(int(number))
    return word


def _check_separators(names: set[str], path: Path, column: str) -> None:
    """Refuse names that seem to be several with commas between them, where no cell has several classes."""
    for name in sorted(names - _KNOWN):
        if re.search(r",\S", name) or any(part in names for part in re.split(r",\s*", name) if part != name):
            raise BadInput(path, f"column {column}: {name!r} may be one class or several; separate classes by ;")


def _check_blanks(names: set[str], path: Path, column: str) -> None:
    """Refuse names that seem to be several with blanks between them."""
    for name in sorted(names - _KNOWN):
        if " " in name and any(word in names for word in name.split()):
            problem = f"{name!r} may be one class or several; separate classes by ;, or call the column 'label' if"
            raise BadInput(path, f"column {column}: {problem} every image has one class")
