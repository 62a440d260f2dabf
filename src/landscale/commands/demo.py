"""`landscale demo`: archive, store, training, map and report of a synthetic landscape."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand


def add_command(add: AddCommand) -> None:
    parser = add(
        "demo",
        _run_demo,
        "prepare, train, map and report on a synthetic landscape, in minutes",
        "landscale demo --out demo",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything it writes (default: demo)")


def _run_demo(options: argparse.Namespace) -> int:
    from landscale.demo import demo

    demo(options.out)
    return 0
