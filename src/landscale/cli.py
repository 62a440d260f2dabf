"""The command line. An error ends it with one line on stderr and exit code 2, an unexpected one with exit code 70."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import platform
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from landscale import __version__
from landscale.commands.command import AddCommand, CommandParser, command_adder
from landscale.errors import LandscaleError, LostRank, printable, reason
from landscale.runtime.portability import keep_freed_memory
from landscale.runtime.signals import Stopped
from landscale.runtime.threads import wait_without_spinning

EXAMPLES = """examples:
  landscale demo
  landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8
  landscale train --recipe papoutsis2022 --store ben.h5 --run runs/eca
  landscale evaluate runs/eca ben.h5 --split test
  landscale predict runs/eca S2A_MSIL2A_20220706T085611_N0400 map.tif
"""

COMMANDS = (
    *("demo", "download", "prepare", "info", "verify", "models", "train", "pretrain", "evaluate", "predict"),
    *("sample", "compare", "explain", "report", "export", "publish"),
    *("embed", "probe", "superres", "scale", "benchmark"),
)
"""The modules of `landscale.commands` that add a command, in the order of `landscale --help`."""

ENTRY_POINTS = "landscale.commands"
"""The group of entry points by which other packages add commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _prepare_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `landscale info x | head`
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:  # a full disk behind stdout
        _discard_output()
        return _report_error(f"stdout: {error.strerror or error}")
    return code


def _prepare_streams() -> None:
    """Make stdout and stderr usable: replace closed ones, and write what their encoding lacks as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  used until the end
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Send stdout to the null device, so that Python does not fail again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    options, remaining = _command_line(words).parse_known_args(words)
    options.remaining = remaining
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # a lost rank is reported in one line, without torch's backtrace
    wait_without_spinning()
    keep_freed_memory()
    atexit.register(gc.freeze)  # skip the last garbage collection, which takes a second once torch is imported
    try:
        _check_remaining(options)
        return int(options.run(options))
    except LostRank as lost:  # another rank has reported it
        return lost.code
    except LandscaleError as error:
        return _report_error(str(error))
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":  # they stand for bytes in names that are not UTF-8
            return _unexpected(error, options)
        return _report_error(f"{error.object[:500]!r}: is not UTF-8 text; rename the file or folder")
    except OSError as error:  # a full disk, missing permission
        return _report_error(f"{error.filename or 'file system'}: {error.strerror or error}")
    except Stopped as stopped:
        if str(stopped):  # if there are several ranks, only the first has a message
            print(f"landscale: {stopped}", file=sys.stderr)
        return stopped.code
    except KeyboardInterrupt:
        print("landscale: interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    except Exception as error:
        return _unexpected(error, options)


def _unexpected(error: Exception, options: argparse.Namespace) -> int:
    if options.debug:
        raise error
    return _report_unexpected(error)


def _check_remaining(options: argparse.Namespace) -> None:
    """Check that every word of the command line was accepted by the parser or the command.

    Raises:
        LandscaleError: some words were not.
    """
    words = options.remaining
    if words and options.remaining_words == "refuse":
        raise LandscaleError(
            f"{options.name}: unknown option or argument: {' '.join(words)}; see landscale {options.name} --help"
        )


def _report_error(line: str) -> int:
    with suppress(OSError):
        print(f"landscale: {printable(line)}", file=sys.stderr, flush=True)
    return 2


def _report_unexpected(error: Exception) -> int:
    """Report an unexpected error in one line, which names a file with the traceback; return 70 (EX_SOFTWARE)."""
    name = f"landscale-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = "".join(traceback.format_exception(error))
    lines = [
        f"landscale {__version__}",
        platform.platform(),
        f"Python {platform.python_version()}",
        shlex.join(sys.argv),
    ]
    report = "\n".join([*lines, "", text])
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            (folder / name).write_text(report, encoding="utf-8", errors="backslashreplace")
            found = printable(f"{type(error).__name__}: {reason(error)}")
            print(f"landscale: unexpected error ({found}); please report it with {folder / name}", file=sys.stderr)
            return 70
    print(text, file=sys.stderr)
    return 70


def _command_line(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of a command line: of all commands, or only of the one that `words` begins with, which is made sooner."""
    parser = CommandParser(
        "landscale",
        description="Land-cover classification for Sentinel-2 at scale.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    add = command_adder(parser, metavar="COMMAND", dest="name")
    named = [name for name in COMMANDS if name in words[:1]]
    for name in named or COMMANDS:
        import_module(f"landscale.commands.{name}").add_command(add)
    if not named:
        _add_installed_commands(add)
    return parser


def _add_installed_commands(add: AddCommand) -> None:
    """Add the commands of other packages. If one cannot be added, that is reported, and the other commands still work."""
    for entry_point in entry_points(group=ENTRY_POINTS):
        try:
            entry_point.load().add_command(add)
        except Exception as error:
            print(
                f"landscale: the command '{entry_point.name}' of {entry_point.value} cannot be added: {reason(error)}",
                file=sys.stderr,
            )
