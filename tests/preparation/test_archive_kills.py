"""After kills, a full disk or a damaged journal, the same command makes the same store."""

from __future__ import annotations

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import tarballs
from conftest import Cli, command, outcome
from landscale.store import open_store
from streamed import S2, refusal, same
from tarballs import Files, files, pack, tar

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.fixture(scope="module")
def unbroken(many: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = tmp_path_factory.mktemp("unbroken") / "s.h5"
    answer = outcome(command("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store))
    assert answer.code == 0, answer.lines
    return store.read_bytes()


class TestInterruptions:
    @pytest.mark.parametrize("tries", [5, pytest.param(8, marks=pytest.mark.slow)])
    def test_killed_again_and_again(self, tries: int, many: Path, unbroken: bytes, tmp_path: Path) -> None:
        store = tmp_path / "s.h5"
        words = ("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store)
        journals = [tmp_path / f"s.h5.partial.{half}" for half in ("primary", "partner")]

        def size() -> int:
            return sum(path.stat().st_size for path in journals if path.exists())

        rng = random.Random(0)
        kills = 0
        for _ in range(tries):
            process = command(*words)
            begun, reach = size(), rng.choice([0, 20_000, 60_000])
            while process.poll() is None and size() <= begun + reach:
                time.sleep(0.001)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
            assert store.exists() == (process.returncode == 0)
            if store.exists():
                break
        assert kills >= 3
        answer = outcome(command(*words, "--json"))
        assert answer.code == 0, answer.lines
        assert answer.json["written"] < 400
        assert store.read_bytes() == unbroken
        assert list(tmp_path.glob("*")) == [store]

    def test_a_full_disk(self, many: Path, unbroken: bytes, tmp_path: Path) -> None:
        store = tmp_path / "s.h5"
        words = ("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store)
        limit = 60_000_000
        full = command(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        line = refusal(outcome(full))
        assert f"{store}.partial: cannot be written (File too large)" in line
        answer = outcome(command(*words))
        assert answer.code == 0, answer.lines
        assert store.read_bytes() == unbroken

    def test_patches_of_a_damaged_archive_are_replaced(
        self, roots: dict[str, Path], tmp_path: Path, cli: Cli, prepared: Callable[..., Path]
    ) -> None:
        """gzip's checksum is at the end: when it fails, patches of the damaged archive are in the partial store already."""
        found: Files = []
        for k in range(3):
            found += [(n.replace("_MSIL2A_", f"_MSIL2A{k}_"), d) for n, d in files(roots["v1"], S2["v1"])]
        data = tarballs.gzipped(tar(found), level=0)
        archive = tmp_path / "x.tar.gz"
        middle = bytearray(data)
        middle[len(data) // 2] ^= 1
        archive.write_bytes(middle)
        words = ("prepare", "bigearthnet", archive, tmp_path / "s.h5")
        line = refusal(cli(*words))
        assert "CRC" in line or "damaged" in line
        assert (tmp_path / "s.h5.partial.primary").stat().st_size > 1000
        archive.write_bytes(data)
        answer = cli(*words, "--json")
        assert 0 < answer.json["written"] < 27
        same(tmp_path / "s.h5", open_store(prepared("bigearthnet", archive, name="other.h5")))

    def test_two_commands_at_once(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        from landscale.runtime.files import exclusive_lock

        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]))
        with exclusive_lock(tmp_path / "s.h5.partial.primary"):
            assert "another process" in refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))

    def test_a_truncated_or_damaged_journal(self, many: Path, tmp_path: Path, cli: Cli) -> None:
        """As after a power failure: the records before the damage count."""
        words = ("prepare", "bigearthnet", many, tmp_path / "s.h5")
        assert outcome(command(*words)).code == 0
        whole = (tmp_path / "s.h5").read_bytes()
        (tmp_path / "s.h5").unlink()
        process = command(*words)
        journal = tmp_path / "s.h5.partial.primary"
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < 30_000):
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        data = bytearray(journal.read_bytes())
        data[20_000] ^= 1
        journal.write_bytes(data[:-5])
        assert cli(*words).code == 0
        assert (tmp_path / "s.h5").read_bytes() == whole

    def test_the_partial_store_of_another_archive(
        self, many: Path, roots: dict[str, Path], tmp_path: Path, cli: Cli
    ) -> None:
        partial = tmp_path / "s.h5.partial"
        partial.write_bytes(b"something")
        words = ("prepare", "bigearthnet", many, tmp_path / "s.h5")
        assert "belongs to a preparation of other data" in refusal(cli(*words))
        (tmp_path / "s.h5.partial.primary").write_bytes(b"x" * 1000)
        assert "belongs to a preparation of other data" in refusal(cli(*words))
