"""The command line: the list of commands, commands of other packages, exit codes, and that help imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Cli
from landscale.cli import COMMANDS
from landscale.commands.benchmark import SUBCOMMANDS
from landscale.errors import LandscaleError, LostRank
from landscale.runtime.signals import Stopped

OUTSIDE = """
def greet(options):
    print(options.person, options.remaining)
    return 7

def add_command(add):
    parser = add("greet", greet, "greet somebody", "landscale greet you", {remaining})
    parser.add_argument("person")
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str) -> None:
    """Put a package on the path as pip would: a module, and an entry point that names it."""
    (folder / f"{name}.py").write_text(content)
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[landscale.commands]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, name, raising=False)


def test_a_command_of_another_package(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "outside_refuses", OUTSIDE.format(remaining="'refuse'"))
    assert "greet" in cli("--help").out
    answer = cli("greet", "you")
    assert (answer.code, answer.out) == (7, "you []\n")
    answer = cli("greet", "you", "--loud")
    line = "landscale: greet: unknown option or argument: --loud; see landscale greet --help"
    assert (answer.code, answer.lines) == (2, [line])


def test_a_command_of_another_package_takes_recipe_keys(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "outside_accepts", OUTSIDE.format(remaining="'recipe keys'"))
    assert cli("greet", "you", "--epochs=3", "--rate", "1").out == "you ['--epochs=3', '--rate', '1']\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("raise RuntimeError('it is broken')", "it is broken"),
        ("add_command = None", "'NoneType' object is not callable"),
        ("def add_command(add): add('train', None, 'train', 'train')", "conflicting subparser: train"),
    ],
)
def test_a_broken_command_of_another_package_does_not_break_the_others(
    content: str, problem: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "outside_breaks", content)
    answer = cli("--version")
    assert answer.code == 0
    (line,) = answer.lines
    assert line.startswith("landscale: the command 'outside_breaks' of outside_breaks cannot be added: ")
    assert problem in line


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [
        (LandscaleError("a\n  b"), 2, ["landscale: a b"]),
        (OSError(28, "No space left on device", "x.h5"), 2, ["landscale: x.h5: No space left on device"]),
        (LostRank("reported by another rank", 3), 3, []),
        (KeyboardInterrupt(), 130, ["landscale: interrupted; run the same command again to resume"]),
        (Stopped("stopped after step 3"), 130, ["landscale: stopped after step 3"]),
        (Stopped("", 15), 75, []),
    ],
)
def test_exit_codes(
    raised: BaseException, code: int, line: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("landscale.demo.demo", fail)
    answer = cli("demo")
    assert (answer.code, answer.lines) == (code, line)


def test_help_of_every_command_is_fast_and_complete() -> None:
    """No heavy library is imported for help; every command and subcommand has a line of help and an example."""
    script = """
import sys
from landscale.cli import main
for words in WORDS:
    try:
        main([*words, "--help"])
    except SystemExit as end:
        assert not end.code
heavy = {"torch", "pandas", "numpy", "rasterio", "h5py", "timm", "matplotlib", "rich", "jinja2"} & set(sys.modules)
assert not heavy, heavy
"""
    names = [[name] for name in COMMANDS] + [
        ["benchmark", kind] for kind in ("zoo", "learning", "scaling", "allreduce", "transfer")
    ]
    names += [["superres", action] for action in ("train", "apply", "evaluate", "convert")]
    assert len(SUBCOMMANDS) == 4
    command = [sys.executable, "-c", f"import sys; sys.argv = ['landscale']\nWORDS = {names}\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("example") == len(names)
