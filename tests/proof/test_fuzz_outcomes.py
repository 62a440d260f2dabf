"""The fuzz suite notices what it should: commands that run code, hang, take memory, crash, and accept what is damaged."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import watched
from landscale import cli
from outcomes import Case, outcome


def fail(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code


def run_twice(*_: object) -> int:
    return fail("landscale: first\nlandscale: second", 2)


CASES: dict[str, Callable[[watched.Bait], Callable[..., int]]] = {
    "refused": lambda bait: lambda *_: fail("prepare: 4 patches in 0.1 s, 40/s\nlandscale: x: is damaged", 2),
    "same": lambda bait: lambda *_: 0,
    "traceback": lambda bait: lambda *_: fail("landscale: unexpected error (KeyError: 'x')", 70),
    "unclear": lambda bait: run_twice,
    "hang": lambda bait: lambda *_: time.sleep(60),
    "crash": lambda bait: lambda *_: os.kill(os.getpid(), signal.SIGSEGV),
    # Far more than the limit: a forked process has less memory than its parent, by the pages that are not inherited.
    "over 2 GB": lambda bait: lambda *_: (bytearray(1500 << 20), time.sleep(60)),
    "code run": lambda bait: lambda *_: os.system("true"),
    "code run: bait": lambda bait: lambda *_: os.close(os.open(bait.folder / "secret", os.O_RDONLY)),
    "code run: elsewhere": lambda bait: lambda *_: (bait.folder.parent / "other").write_text("x"),
    "code run: URL": lambda bait: lambda *_: len(urllib.request.urlopen(bait.url, timeout=0.2).read()),
}


@pytest.mark.parametrize("name", CASES)
def test_each_outcome(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "SECONDS", 1.0 if name == "hang" else 20.0)
    monkeypatch.setattr(watched, "MEMORY", 200 << 20)
    bait = watched.Bait(tmp_path / "bait")
    (bait.folder / "secret").touch()
    bait.watch()
    (tmp_path / "case").mkdir()
    monkeypatch.setattr(cli, "main", CASES[name](bait))
    ended = watched.run(["info", "x"], tmp_path / "case", bait)
    assert outcome(Case("", ["info", "x"], lambda _: "same"), ended) == name.partition(":")[0], ended
