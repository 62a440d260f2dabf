"""Fixtures for all tests: small archives, and the command line."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from archives import Patch, write_eurosat, write_eurosat_ms, write_v1, write_v2
from landscale.cli import main

pytest_plugins = [
    "surveys",
    "badserver",
    "hub",
    "landscapes",
    "learned",
    "lmdbs",
    "local_hub",
    "published",
    "sharpening",
    "spots",
    "streamed",
]

# `make test` tries the same examples each time, `make proof` (--hypothesis-profile=proof) more of them, new each time.
_common = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.register_profile("test", _common, max_examples=25, derandomize=True)
settings.register_profile("proof", _common, max_examples=200)
settings.load_profile("test")

# If the tests run in the background, SIGINT is ignored, and the commands that they start would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes that a test starts import the helpers in tests/support as well.
SUPPORT = str(Path(__file__).parent / "support")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SUPPORT, os.environ.get("PYTHONPATH")]))
os.environ["OMP_NUM_THREADS"] = "1"  # for torch, here and in commands, because several tests run at once


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector away from modules and tests, which stay to the end: it took a third of the time here."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture
def seeded() -> None:
    """Seed torch before the test."""
    import torch  # here, because many tests need no torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seed_torch() -> None:
    """Seed torch, so that a test gets the same random numbers after any other tests in this process."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture
def seed() -> int:
    """Seed for tests that draw times of kills or damaged bytes: 0 in `make test`, another one in each `make proof`."""
    value = int(time.time()) if settings.get_current_profile_name() == "proof" else 0
    print(f"seed {value}")  # pytest shows it when the test fails
    return value


@pytest.fixture(scope="session")
def patches() -> list[Patch]:
    return [Patch(k) for k in range(12)]


@pytest.fixture(scope="session")
def v1(tmp_path_factory: pytest.TempPathFactory, patches: list[Patch]) -> Path:
    return write_v1(tmp_path_factory.mktemp("v1"), patches)


@pytest.fixture(scope="session")
def v2(tmp_path_factory: pytest.TempPathFactory, patches: list[Patch]) -> Path:
    return write_v2(tmp_path_factory.mktemp("v2"), patches)


@pytest.fixture(scope="session")
def eurosat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eurosat(tmp_path_factory.mktemp("eurosat"))


@pytest.fixture(scope="session")
def eurosat_zip(tmp_path_factory: pytest.TempPathFactory, eurosat: Path) -> Path:
    name = tmp_path_factory.mktemp("zip") / "EuroSAT_RGB"
    return Path(shutil.make_archive(str(name), "zip", eurosat.parent, eurosat.name))


@pytest.fixture(scope="session")
def eurosat_ms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eurosat_ms(tmp_path_factory.mktemp("EuroSAT_MS"))


@dataclass(frozen=True)
class Answer:
    """Result of a command: exit code, stdout, and the lines of stderr without progress bars."""

    code: int
    out: str
    lines: list[str]

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def without_bars(text: str) -> list[str]:
    return [
        line for line in text.splitlines() if line.strip() and not re.search(r"^\w+: [\d,]+ \w+ in [\d.]+ s, ", line)
    ]


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    """Run a `landscale` command in this process."""

    def run(*words: object) -> Answer:
        capfd.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Answer(code, captured.out, without_bars(captured.err))

    return run


def command(*words: object, **how: Any) -> subprocess.Popen[str]:
    """Start the installed command in a process and session of its own."""
    program = Path(sys.executable).with_name("landscale")
    return subprocess.Popen(
        [str(program), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **how,
    )


def outcome(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate()
    return Answer(process.returncode, out, without_bars(err))


@pytest.fixture
def prepared(cli: Cli, tmp_path: Path) -> Callable[..., Path]:
    """Run `landscale prepare WORDS… STORE`, assert success, and return the store's path."""

    def run(*words: object, name: str = "store.h5", options: tuple[str, ...] = ()) -> Path:
        store = tmp_path / name
        source, *inputs = (str(word) for word in words)
        answer = cli("prepare", source, *inputs, store, "--workers", 1, *options)
        assert answer.code == 0, answer.lines
        return store

    return run
