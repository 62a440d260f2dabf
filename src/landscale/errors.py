"""The exceptions of landscale.

All of them mean "the input is not what it should be" and carry one line for a person: what, where, expected, found.
The command line prints that line to stderr and exits 2.

    LandscaleError
    ├── UnknownName          a model, band, class, recipe, split … that does not exist (the nearest names are suggested)
    ├── BadInput             a file that is missing, damaged or of another kind than its place demands
    │   └── BadStore         a patch store that is truncated, unfinished or lacks what is asked of it
    ├── Diverged             a training whose loss or gradient is no longer finite
    └── LostRank             another process of this training is gone or has failed; one of those that are left has told it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LandscaleError(Exception):
    """Anything a user can put right; its text is one line."""


class UnknownName(LandscaleError):
    """A name that is not in its list. `kind` says what the list holds, as in "model" or "band"."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known[:20])}"
        super().__init__(f"unknown {kind} '{name}'; {hint}")


class BadInput(LandscaleError):
    """A file or folder that cannot be used: its path, what is wrong with it."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = str(path)
        self.problem = problem

    def __reduce__(self) -> tuple[type[BadInput], tuple[str, str]]:  # crosses process borders whole
        return type(self), (self.path, self.problem)


class BadStore(BadInput):
    """A patch store that cannot be read or does not hold what is asked of it."""


class Diverged(LandscaleError):
    """Loss or gradients stopped being finite."""


class LostRank(LandscaleError):
    """A rank is gone or has failed, and one of the ranks has told so: this one ends without a word, with exit code `code`."""

    def __init__(self, line: str, code: int = 1) -> None:
        super().__init__(line)
        self.code = code


def reason(error: BaseException) -> str:
    """The first line of what a library's exception says, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
