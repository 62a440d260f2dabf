"""Shared by all commands: how a command is added, how its result is printed, and time limits."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from landscale.errors import LandscaleError, printable

STARTED = time.monotonic()

T = TypeVar("T")

RemainingWords = Literal["refuse", "inputs", "recipe keys"]
"""What a command does with the words that its parser does not recognise: it refuses them, takes them as further inputs
(argparse stops reading positional arguments at the first option) and refuses options among them itself, or takes them as
`--key value` of a recipe. The command finds them in `options.remaining`."""


class CommandParser(argparse.ArgumentParser):
    """Reports wrong usage in one line instead of printing the whole synopsis.

    before_parsing: called with the words of a command line before they are parsed; it may add options.
    """

    before_parsing: Callable[[Sequence[str]], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        for word in args or ():
            if word.startswith("--") and word.endswith("=--"):  # Python up to 3.12 takes it for an empty list
                self.error(f"argument {word[:-3]}: expected a value, found --")
        if self.before_parsing is not None:
            self.before_parsing(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> Any:
        self.exit(2, f"landscale: {printable(message)}; see {self.prog} --help\n")


class AddCommand(Protocol):
    """Add a command: its name, the function that runs it and returns the exit code, one line of help, and an example."""

    def __call__(
        self,
        name: str,
        run: Callable[[argparse.Namespace], int],
        about: str,
        example: str,
        remaining: RemainingWords = "refuse",
    ) -> CommandParser: ...


def command_adder(parent: argparse.ArgumentParser, metavar: str, dest: str) -> AddCommand:
    """Give `parent` commands below it; the value adds one of them. The name that the user chose is stored in `dest`."""
    commands = parent.add_subparsers(dest=dest, metavar=metavar, required=True, parser_class=CommandParser)

    def add(
        name: str,
        run: Callable[[argparse.Namespace], int],
        about: str,
        example: str,
        remaining: RemainingWords = "refuse",
    ) -> CommandParser:
        parser: CommandParser = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        parser.set_defaults(run=run, remaining_words=remaining)
        parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return parser

    return add


def add_weights(parser: argparse.ArgumentParser, name: str, *, exported: bool = False, class_map: bool = False) -> None:
    """Add a positional argument for weights, which `models.encoders.find_encoder` takes.

    exported: or an exported network. class_map: or a map that `landscale predict` wrote.
    """
    about = "folder of a run or of weights, or a name that `landscale models --encoders` lists"
    about += "; or a folder that `landscale export --format onnx` or `openvino` wrote" if exported else ""
    about += "; or a class map that `landscale predict` wrote" if class_map else ""
    kinds = "RUN|WEIGHTS" + "|EXPORT" * exported + "|MAP.tif" * class_map
    parser.add_argument(name, metavar=kinds, help=about)


def add_offset(parser: argparse.ArgumentParser) -> None:
    """Add `--offset`, for commands that read scenes."""
    parser.add_argument(
        "--offset",
        type=int,
        metavar="NUMBER",
        help="offset of the scene's digital numbers: 1000 since baseline 04.00 (default: that of its metadata or name)",
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add `--timeout`, for commands that run on several ranks."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=300.0,
        metavar="SECONDS",
        help="end all ranks when none has made progress for this long (default: 300)",
    )


def add_probing(parser: argparse.ArgumentParser, protocols: str, all_or_default: str) -> None:
    """Add the options of probes: protocols, amounts of labels, draws, and the recipe of trainings.

    Args:
        parser: the parser of a command that takes words of recipe keys.
        protocols: names of the default protocols, between commas.
        all_or_default: the amounts of labels without `--fraction` and `--shots`, for the help.
    """
    parser.add_argument(
        "--protocol",
        type=list_of(str),
        default=protocols.split(","),
        metavar="NAMES",
        help=f"knn, linear: on frozen features; fine-tune, lora, scratch: trained (default: {protocols})",
    )
    parser.add_argument(
        "--fraction", type=list_of(float), default=[], metavar="0.01,0.1,1", help="fractions of the training labels"
    )
    parser.add_argument(
        "--shots",
        type=list_of(int),
        default=[],
        metavar="1,5,10",
        help=f"training patches of each class (default: {all_or_default})",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="draws of the patches (default: 1)")
    parser.add_argument(
        "--recipe", help="recipe of trainings, without its model and input (default: 30 epochs of AdamW)"
    )
    parser.add_argument_group("recipe keys", "set any key of the recipe of trainings as --key value")


def list_of(kind: Callable[[str], T]) -> Callable[[str], list[T]]:
    """The type of an option with values between commas."""

    def numbers(word: str) -> list[T]:  # argparse uses the name in its messages
        return [kind(part) for part in word.split(",")]

    return numbers


def seconds(word: str) -> float:
    """A duration on the command line, above 0; `inf` for no limit."""
    value = float(word)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"found {word}, expected a number above 0")
    return value


def print_result(options: argparse.Namespace, content: dict[str, Any] | list[Any], text: Callable[[], None]) -> int:
    """Print `content` as JSON if the user gave `--json`; otherwise call `text`, which prints it for people.

    Returns:
        Exit code 0.
    """
    if options.json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        text()
    return 0


def seconds_left(max_time: str) -> float:
    """Seconds of `--max-time` (90s, 45m, 2h) that are left.

    The limit counts from the start of the process, because importing torch may take ten seconds.

    Raises:
        LandscaleError: `max_time` is not written like that.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", max_time)
    if not match:
        raise LandscaleError(f"--max-time: found '{max_time}', expected a number followed by s, m or h, as in 45m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] - (time.monotonic() - STARTED)
