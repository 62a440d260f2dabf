"""The exceptions of landscale.

Each of them means that the user can correct something, and has a message of one line: what, where, expected, found. The command
line prints this line to stderr and exits with code 2.

    LandscaleError
    ├── UnknownName          a model, band, class, recipe, split … that does not exist (the nearest names are suggested)
    ├── BadInput             a file that is missing, damaged or of another kind than expected
    │   └── BadStore         a patch store that is truncated, unfinished, or lacks a band, split or class
    ├── Diverged             the loss or gradient of a training is no longer finite
    └── LostRank             another process of this training has ended or failed; one of the remaining processes has reported it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LandscaleError(Exception):
    """Anything that a user can correct; the message is one line."""


class UnknownName(LandscaleError):
    """A name that does not exist. `kind` is what it names, such as "model" or "band"; `known` are the existing names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:20])}"
        super().__init__(f"unknown {kind} '{name}'; {hint}")


class BadInput(LandscaleError):
    """A file or folder that cannot be used: its path and the problem."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = str(path)
        self.problem = problem

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str]]:  # keeps path and problem when pickled
        return type(self), (self.path, self.problem)


class BadStore(BadInput):
    """A patch store that cannot be read, or lacks a band, split or class."""


class Diverged(LandscaleError):
    """The loss or the gradients are no longer finite."""


class LostRank(LandscaleError):
    """Another rank has ended or failed, and one rank has reported it: this one ends without a message, with exit code `code`."""

    def __init__(self, line: str, code: int = 1) -> None:
        super().__init__(line)
        self.code = code


def reason(error: BaseException) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def printable(text: str) -> str:
    """A text on one line. Control characters, which names of files may have, become escapes, as in Python's `ascii`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
