"""What a case is, and the kinds of outcome that are counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import watched

RIGHT = {
    "refused": "exit code 2 and one line on stderr; or exit code 1 of `verify`, which lists the damage",
    "same": "accepted, with the same result as the unaltered input",
    "valid": "accepted as another valid input: nothing in it, and no checksum, shows that it was altered",
}
WRONG = {
    "code run": "started a program, unpickled a class, fetched a URL, or touched a file that is none of its inputs",
    "silent": "accepted, although the input is damaged or contradicts itself",
    "traceback": "an exception that nobody foresaw, exit code 70",
    "unclear": "exit code 2 without one line that says why, or with warnings of libraries beside it",
    "hang": "not ended after 30 s",
    "over 2 GB": "took more than 2 GB of memory",
    "crash": "ended by a signal",
}


@dataclass(frozen=True)
class Case:
    """One altered input.

    what: what was altered, for people. words: the command. accepted: the outcome if the exit code is 0, from what the command
    printed: `same`, `valid` or `silent`.
    """

    what: str
    words: list[str]
    accepted: Callable[[str], str]


def outcome(case: Case, ended: watched.Ended) -> str:
    """One of RIGHT and WRONG."""
    if ended.forbidden:
        return "code run"
    if ended.hung:
        return "hang"
    if ended.memory > watched.MEMORY:
        return "over 2 GB"
    if ended.code < 0:
        return "crash"
    if ended.code == 1 and case.words[0] == "verify" and ended.out:
        return "refused"  # the damage was found
    if ended.code not in (0, 2) or "Traceback (most recent" in ended.err:
        return "traceback"
    if ended.code == 0:
        return case.accepted(ended.out)
    lines = ended.err.strip().splitlines()
    messages = [line for line in lines if line.startswith("landscale: ")]
    return "refused" if messages == lines[-1:] and not _UNTIDY.search(ended.err) else "unclear"


_UNTIDY = re.compile(r"Warning|Error:|\n\s+File ")  # other lines tell about the work before the error
