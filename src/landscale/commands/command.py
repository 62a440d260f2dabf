"""What all commands share: how they are added, how they answer."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from typing import Any, Protocol

from landscale.errors import LandscaleError

STARTED = time.monotonic()


class Parser(argparse.ArgumentParser):
    """One line on wrong usage, instead of the whole synopsis."""

    def error(self, message: str) -> Any:
        self.exit(2, f"landscale: {message}; see {self.prog} --help\n")


class Add(Protocol):
    """Adds a command: its name, the function that runs it and gives the exit code, a line about it, an example."""

    def __call__(self, name: str, run: Callable[..., int], about: str, example: str) -> argparse.ArgumentParser: ...


def tell(options: argparse.Namespace, content: dict[str, Any] | list[Any], text: Callable[[], None]) -> int:
    """The answer of a command: JSON where asked for, else what `text` prints."""
    if options.json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        text()
    return 0


def seconds_left(max_time: str) -> float:
    """What `--max-time` (90s, 45m, 2h) leaves from now on: importing torch may have taken ten seconds of it.

    Raises:
        LandscaleError: not such a time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", max_time)
    if not match:
        raise LandscaleError(f"--max-time: found '{max_time}', expected a number with s, m or h, as in 45m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] - (time.monotonic() - STARTED)
