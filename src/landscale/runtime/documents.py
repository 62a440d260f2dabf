"""Read and write JSON files; what is read comes from users and is not trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from landscale.errors import BadInput
from landscale.runtime.files import check_regular, write_text

MAX_BYTES = 1 << 28  # of a JSON file; the largest are GeoJSON lists of patches

T = TypeVar("T")


def write_json(path: str | Path, content: Any) -> None:
    """Write a JSON file atomically, indented, with non-ASCII characters as they are."""
    write_text(Path(path), json_text(content))


def json_text(content: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        BadInput: the file is missing or unreadable, no regular file, larger than MAX_BYTES, or is not valid JSON.
    """
    return parse_json(path, read_bytes(path, MAX_BYTES))


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        BadInput: the file is missing or unreadable, no regular file, or larger.
    """
    path = Path(path)
    check_regular(path, limit)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(path, f"cannot be read ({error.strerror})") from None


def parse_json(path: str | Path, content: bytes) -> Any:
    """The value in the bytes of a JSON file.

    Raises:
        BadInput: they are not valid JSON in UTF-8.
    """
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadInput(path, f"is not valid JSON ({error})") from None


def read_json_object(path: str | Path, expected: str, fields: Iterable[str] = ()) -> dict[str, Any]:
    """The content of a JSON file that holds an object.

    Args:
        path: the file.
        expected: what the file should be, for the error message, such as "a description of landscale weights".
        fields: keys that the object must have.

    Raises:
        BadInput: as `read_json`; or it is not an object, or lacks a field.
    """
    return json_object(path, read_json(path), expected, fields)


def json_object(path: str | Path, content: Any, expected: str, fields: Iterable[str] = ()) -> dict[str, Any]:
    """A value of a JSON file, if it is an object that has these fields. Arguments and errors are those of `read_json_object`."""
    if not isinstance(content, dict):
        raise BadInput(path, f"is not {expected}: found JSON of type {type(content).__name__}, expected an object")
    if missing := [field for field in fields if field not in content]:
        raise BadInput(path, f"is not {expected}: it lacks {', '.join(missing)}")
    return content


def typed(path: str | Path, content: Any, kind: type[T], expected: str) -> T:
    """Content of a file as a dataclass, once every field has its type and range (annotations `msgspec.Meta`).

    Args:
        path: the file, for the error message.
        content: JSON: objects, lists, text, numbers, booleans and None.
        kind: the dataclass.
        expected: what the content should be, for the error message, such as "a description of landscale weights".

    Raises:
        BadInput: a field is missing, of another type or out of range.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise BadInput(path, f"is not {expected}: {str(error).replace('`', '')}") from None
    except UnicodeEncodeError:  # JSON can hold half a character, "\\ud800"
        raise BadInput(path, f"is not {expected}: it holds text that is not Unicode") from None
