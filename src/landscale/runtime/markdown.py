"""Names and messages as text in Markdown pages, in which they are no HTML, links, code or cells of a table."""

from __future__ import annotations

import html
import re


def inline(text: str) -> str:
    """Text on one line. Underscores inside words, as in names of networks, are no markup and stay."""
    return re.sub(r"([\\`*\[\]|~]|(?<!\w)_|_(?!\w))", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def code_block(text: str) -> str:
    """Text as it is, between fences that it does not contain."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
