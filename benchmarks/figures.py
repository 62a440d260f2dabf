"""Write the figures of README.md and docs/*.md again from the results in benchmarks/results, after a new measurement.

    python benchmarks/figures.py

A figure that comes from a result is a link to its file, with the place in the file as a JSON pointer (RFC 6901):
`[2.81](benchmarks/results/peers.json#/ratios/resnet50/landscale_over_files)`. The number keeps its decimals and its form (`.72`,
`72 %`, `1,024`). `?.??` stands for one that was never measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LINK = re.compile(r"\[(?P<figure>[^\]\[]*)\]\((?P<file>[\w./-]*results/\w+\.json)#(?P<pointer>/[^)\s]*)\)")
NUMBER = re.compile(r"(?P<number>[\d?,]*\.?[\d?]+)(?P<percent> ?%)?")


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := written_again(text, page)) != text:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(ROOT))


def written_again(text: str, page: Path) -> str:
    """The text of `page` with all figures as its results have them. Figures whose results do not exist yet stay."""

    def figure(link: re.Match[str]) -> str:
        value = result(page.parent / link["file"], link["pointer"])
        new = link["figure"] if value is None else as_shown(value, link["figure"])
        return link[0].replace(f"[{link['figure']}]", f"[{new}]", 1)

    return LINK.sub(figure, text)


def links(page: Path) -> Iterator[re.Match[str]]:
    """The links of a page to results, with the groups `figure`, `file` and `pointer`."""
    return LINK.finditer(page.read_text(encoding="utf-8"))


def result(path: Path, pointer: str) -> float | None:
    """The number at `pointer` in a result; None if the file or the place does not exist."""
    if not path.is_file():
        return None
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    for part in unquote(pointer).split("/")[1:]:
        key: Any = part.replace("~1", "/").replace("~0", "~")
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (LookupError, ValueError, TypeError):
            return None
    return float(value)


def as_shown(value: float, like: str) -> str:
    """The value in the form of the figure `like`: decimals, percent sign, separators, a zero before the point or none.

    Raises:
        ValueError: there is no number in `like`.
    """
    number = NUMBER.search(like)
    if number is None:
        raise ValueError(f"'{like}' contains no number")
    decimals = len(number["number"].partition(".")[2])
    form: Callable[[float], str] = f"{{:,.{decimals}f}}".format
    new = form(value * 100 if number["percent"] else value)
    if number["number"].startswith("."):
        new = new.removeprefix("0")
    return like[: number.start()] + new + (number["percent"] or "") + like[number.end() :]


if __name__ == "__main__":
    main()
