"""Comments, docstrings, messages, help texts and documents use plain English: no personification, no unusual words."""

from __future__ import annotations

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Regular expression → what to write instead. Only words without a proper use in this project are listed.
WORDS = {
    r"go(es|ing)? on": "resume, continue",
    r"tells?|told": "describe, report, show, return",
    r"said": "printed, reported",
    r"(files?|stores?|recipes?|tables?|functions?|process(es)?|ranks?|workers?|networks?|name|it) says?": "contains, is, has",
    r"knows?|knew|known to nobody": "has, contains, records",
    r"wants": "expects, requires, needs",
    r"hears?|heard": "receives, is notified",
    r"the judge": "failure detector; decide",
    r"rooms?(?! for)": "module, space, memory",
    r"whoever|nobody|somebody|everybody|anybody": "the process, the reader, no process",
    r"anew": "again",
    r"shares? of": "fraction of",
    r"deaf|blind to": "ignores",
    r"(the|whole|fast|same|long) road": "path, way",
}

# Places where a word still occurs. They may only become fewer: remove a place when its text has been rewritten.
NOT_YET: dict[str, tuple[str, ...]] = {
    r"whoever|nobody|somebody|everybody|anybody": ("src/landscale/models/",),
}


@cache
def prose(path: Path) -> tuple[tuple[int, str], ...]:
    """Lines of text with their numbers: of Python files the comments and strings, of others all lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return tuple(enumerate(text.splitlines(), 1))
    types = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1))  # the last since Python 3.12
    return tuple(
        numbered
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in types
        for numbered in enumerate(token.string.splitlines(), token.start[0])
    )


FILES = sorted(
    path
    for folder, pattern in (
        ("src", "**/*.py"),
        ("src", "**/*.yaml"),
        ("src", "**/*.j2"),
        ("benchmarks", "**/*.py"),
        ("examples", "*"),
        ("docs", "*.md"),
        (".", "*.md"),
    )
    for path in (ROOT / folder).glob(pattern)
    if path.is_file()
)


@pytest.mark.parametrize("expression", WORDS)
def test_words_that_have_a_plainer_one(expression: str) -> None:
    pattern = re.compile(rf"\b(?:{expression})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in FILES
        if not str(path.relative_to(ROOT)).startswith(NOT_YET.get(expression, ()))
        for number, line in prose(path)
        if pattern.search(line)
    ]
    assert not found, f"write {WORDS[expression]} instead:\n" + "\n".join(found)
