"""Names and messages in Markdown pages are text, whatever they contain."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from landscale.runtime.markdown import code_block, inline

HOSTILE = (
    '<b>&|"x"\n[bold]',
    "a|b",
    "[a](http://b)",
    "**x** _y_ `z`",
    "<script>",
    "~~x~~",
    "\\|",
    "a_b_c",
    "1 < 2 & 3",
)


def words(markdown: str) -> tuple[list[str], str]:
    """The elements and the text of a page in Markdown."""
    tags: list[str] = []
    text: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _attributes: tags.append(tag)  # type: ignore[method-assign]
    parser.handle_data = text.append  # type: ignore[method-assign]
    parser.feed(MarkdownIt().enable("table").enable("strikethrough").render(markdown))
    return tags, "".join(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_in_a_paragraph_and_in_a_table(name):
    expected = " ".join(name.split())
    assert words(f"x {inline(name)} y") == (["p"], f"x {expected} y\n")
    tags, text = words(f"| a | b |\n|---|---|\n| {inline(name)} | 2 |")
    assert tags == ["table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td"]
    assert expected in text.splitlines()


@pytest.mark.parametrize("text", ["landscale train", "a ``` b", "````\n<b>", ""])
def test_a_command_is_shown_as_it_is(text):
    tags, found = words(f"before\n\n{code_block(text)}\n\nafter")
    assert tags == ["p", "pre", "code", "p"]
    assert f"{text}\n" in found
