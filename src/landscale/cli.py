"""The command line. Errors become one line and exit code 2."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Sequence

from landscale import __version__
from landscale.commands import benchmark, benchmark_ranks, data, download, prepare, results, superres, training
from landscale.commands import scale as scaling
from landscale.commands.command import Parser
from landscale.errors import LandscaleError, LostRank
from landscale.runtime.signals import Stopped
from landscale.runtime.workers import keep_freed_memory

EXAMPLES = """examples:
  landscale demo
  landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8
  landscale train --recipe papoutsis2022 --store ben.h5 --run runs/eca
  landscale evaluate runs/eca ben.h5 --split test
  landscale predict runs/eca S2A_MSIL2A_20220706T085611_N0400 map.tif
"""

# Commands to which all that is left are keys of the recipe.
WITH_KEYS = (training.train_command, scaling.scale_command, benchmark_ranks.scaling_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = _parser().parse_known_args(words)
    command: Callable[..., int] = options.command
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of a lost rank our line tells, not a backtrace of torch's
    keep_freed_memory()
    atexit.register(gc.freeze)  # nothing is left to collect: with torch, the last search for it takes a second
    try:
        if command in WITH_KEYS:
            return command(options, rest)
        if rest and command is prepare.run and not any(word.startswith("-") for word in rest):
            options.inputs, rest = [*options.inputs, *rest], []  # argparse takes only those before an option
        if rest:
            raise LandscaleError(f"{options.name}: does not know {' '.join(rest)}; see landscale {options.name} --help")
        return command(options)
    except LostRank as lost:  # told already
        return lost.code
    except LandscaleError as error:
        return _refuse(str(error))
    except OSError as error:  # a full disk, no permission
        return _refuse(f"{error.filename or 'file system'}: {error.strerror or error}")
    except Stopped as stopped:
        if str(stopped):  # the first of several ranks tells it
            print(f"landscale: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("landscale: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _refuse(line: str) -> int:
    print(f"landscale: {' '.join(line.split())}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "landscale",
        description="Land-cover classification for Sentinel-2 at scale.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[..., int], about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=run)
        return sub

    for room in (download, prepare, superres, data, training, scaling, benchmark, results):
        room.add_commands(add)
    return parser
