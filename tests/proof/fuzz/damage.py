"""Alterations of any file: of its bytes, or of the values in a document such as JSON."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUMBERS = (-1, 0, 1, 2, 3, 7, 255, 65536, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, -0.5, 1e-300, 1e300, 1e308)
ODD = (
    *NUMBERS,
    *(math.nan, math.inf, -math.inf, None, True, False, "", " ", "x", "nan", "1", "-1", "1e999", "None", "../../x"),
    *("/etc/passwd", "\0", "\n", "\ud800", "ß" * 300, "x" * 100_000, "[/red]", "<b>", "%s", "{0}", "${HOME}"),
    *([], {}, [1], [[1]], [None], {"a": 1}, [math.nan], ["x"], {"": ""}, [1] * 1000, {"__class__": "os.system"}),
)


def of_bytes(rng: random.Random, content: bytes) -> tuple[bytes, str]:
    """The content after one to three changes, and what they are."""
    data, done = bytearray(content), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kind = rng.choice(("bit", "bit", "bit", "byte", "number", "cut", "remove", "insert", "copy", "zeros", "ones"))
        reach = len(data) if rng.random() < 0.6 else min(len(data), 600)  # headers
        at, length = rng.randrange(max(reach, 1)), rng.choice((1, 2, 4, 8, 12, 200))
        done.append(f"{kind} at {at}")
        if not data:
            break
        if kind == "bit":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            data[at] = rng.randrange(256)
        elif kind == "number":
            size = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, 2, 8, 255, 65535, 2**31, 2**63, rng.randrange(400))) % (1 << 8 * size)
            data[at : at + size] = value.to_bytes(size, "little")
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = rng.randbytes(length)
        elif kind == "copy":
            source = rng.randrange(len(data))
            data[at : at + length] = data[source : source + length]
        else:
            data[at : at + length] = (b"\0" if kind == "zeros" else b"\xff") * min(length, len(data) - at)
    return bytes(data), ", ".join(done)


def of_values(rng: random.Random, document: Any, odd: tuple[Any, ...] = ODD) -> str:
    """Change one value or key anywhere in an object of JSON, in place; returns what was done."""
    places = list(_places(document, ""))
    holder, key, path = rng.choice(places)
    kind = rng.choice(("odd", "odd", "odd", "odd", "remove", "rename", "add", "near", "swap", "nest"))
    value = holder[key]
    if kind == "near" and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = rng.choice((value + 1, value - 1, -value, value * 2, float(value), str(value), [value]))
        return f"{path} becomes {holder[key]!r}"
    if kind == "remove":
        del holder[key]
        return f"{path} removed"
    if kind == "rename" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
        return f"{path} renamed"
    if kind == "add" and isinstance(holder, dict):
        name = rng.choice(("x", "checkpoint_path", "pretrained_cfg", "file", "__class__", "", "landscale_format"))
        holder[name] = rng.choice(odd)
        return f"{path}: added {name!r}: {str(holder[name])[:60]!r}"
    if kind == "swap":
        other, at, where = rng.choice(places)
        if isinstance(holder, list) and len(holder) > 1:  # within a list: such as two classes
            other, at = holder, rng.randrange(len(holder))
            where = f"{path} {at}"
        if _holds(value, other) or _holds(other[at], holder):
            return f"{path} unchanged"
        holder[key], other[at] = other[at], value
        return f"{path} and {where} swapped"
    if kind == "nest":
        depth = rng.choice((2, 50, 400))
        for _ in range(depth):
            value = [value]
        holder[key] = value
        return f"{path} in {depth} lists"
    holder[key] = rng.choice(odd)
    return f"{path} becomes {str(holder[key])[:60]!r}"


def _places(document: Any, path: str) -> list[tuple[Any, Any, str]]:
    """Every holder, key in it, and path."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    found = []
    for key, value in items:
        found.append((document, key, f"{path}/{key}"))
        if isinstance(value, dict | list) and value:
            found += _places(value, f"{path}/{key}")
    return found


def _holds(value: Any, holder: Any) -> bool:
    if value is holder:
        return True
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(_holds(part, holder) for part in inner)


def of_file(rng: random.Random, path: Path) -> str:
    """Replace a file by what is no file of that kind; returns what was done."""

    def link(target: str) -> Callable[[], None]:
        return lambda: path.symlink_to(target)

    ways: dict[str, Callable[[], None]] = {
        "missing": lambda: None,
        "empty": lambda: path.write_bytes(b""),
        "a folder": path.mkdir,
        "a pipe": lambda: os.mkfifo(path),
        "/dev/zero": link("/dev/zero"),
        "/dev/null": link("/dev/null"),
        "a link to itself": link(path.name),
        "a link to nothing": link("nothing"),
        "64 GB of nothing": lambda: _sparse(path, 1 << 36),
        "300 MB of brackets": lambda: path.write_bytes(b"[" * (300 << 20)),
        "deep brackets": lambda: path.write_bytes(b"[" * 200_000),
        "noise": lambda: path.write_bytes(rng.randbytes(5000)),
    }
    name = rng.choice([*ways, *(w for w in ways if w != "300 MB of brackets")])
    path.unlink()
    ways[name]()
    return f"{path.name} is {name}"


def _sparse(path: Path, size: int) -> None:
    path.touch()
    os.truncate(path, size)
