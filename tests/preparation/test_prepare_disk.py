"""A disk that fails while a store is written: one line names the store and the reason, and no patch is lost or half written."""

from __future__ import annotations

import errno
import os
import random
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archives import link_v2
from conftest import Cli, command, outcome
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.preparation import plan, prepare_survey
from landscale.runtime import portability
from landscale.store import PENDING, WHOLE, checksum, direct, open_store, writer
from launchers import in_memory
from surveys import dataset

PATCHES = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, v2: Path) -> Path:
    return link_v2(tmp_path_factory.mktemp("disk"), v2, PATCHES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Path:
    path = tmp_path_factory.mktemp("unbroken") / "s.h5"
    prepare_survey(bigearthnet.survey([(None, archive)]), path)
    return path


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CHUNK", 8)


def checked_complete(partial: Path) -> int:
    """Check that every complete patch has the pixels and labels of its checksum. Returns their number."""
    store = open_store(partial, unfinished=True)
    expected = dataset(store, "checksum")
    rows = [i for i, state in enumerate(store.states) if state != PENDING]
    for i in rows:
        assert store.states[i] == WHOLE
        assert checksum([store.pixels(p.key, [i])[0] for p in store.layout.planes], store.classes[i]) == expected[i]
    return len(rows)


class Disk:
    """Replaces `os` where stores are written: it fails from the k-th call on; a failing write may write some bytes first."""

    def __init__(self, k: int, number: int, partly: bool = False, call: str = "pwrite") -> None:
        self._left, self._number, self._partly, self._call = k, number, partly, call
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        original: Callable[..., object] = getattr(os, name)
        return self._failing(original) if name == self._call else original

    def _failing(self, original: Callable[..., object]) -> Callable[..., object]:
        def call(handle: int, *arguments: object) -> object:
            self.calls += 1
            self._left -= 1
            if self._left > 0:
                return original(handle, *arguments)
            if self._partly and self._left == 0:  # first a short write, as on a disk that becomes full
                data, position = arguments
                return original(handle, data[: max(len(data) // 3, 1)], position)  # type: ignore[index, arg-type]
            raise OSError(self._number, os.strerror(self._number))

        return call


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("count", [12, pytest.param(50, marks=pytest.mark.slow)])
def test_writes_that_fail_at_many_places(
    count: int, archive: Path, unbroken: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    words = ("prepare", "bigearthnet", archive)
    counting = Disk(10**9, 0)
    monkeypatch.setattr(direct, "os", counting)
    assert cli(*words, memory / "count.h5", "--workers", 1).code == 0
    assert counting.calls >= 50
    rng = random.Random(5)
    places = [1, *sorted(rng.sample(range(2, counting.calls), count - 2)), counting.calls]
    for number, place in enumerate(places):
        store = memory / f"{number}.h5"
        partial = store.with_name(f"{store.name}.partial")
        why = rng.choice((errno.ENOSPC, errno.EDQUOT, errno.EIO))
        monkeypatch.setattr(direct, "os", Disk(place, why, partly=number % 2 == 0))
        answer = cli(*words, store, "--workers", 1)
        assert answer.code == 2, place
        assert answer.lines == [f"landscale: {partial}: cannot be written ({os.strerror(why)})"], place
        assert not store.exists()
        done = checked_complete(partial)
        monkeypatch.setattr(direct, "os", os)
        again = cli(*words, store, "--workers", 1, "--json")
        assert (again.code, again.json["written"]) == (0, PATCHES - done), place
        assert store.read_bytes() == unbroken.read_bytes(), place
        assert not partial.exists()
        store.unlink()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_a_sync_that_fails(
    call: str, archive: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    """Patches that were not synced are not complete: the kernel may have dropped their pixels."""
    store = tmp_path / "s.h5"
    partial = tmp_path / "s.h5.partial"
    broken = Disk(3 if call == "fdatasync" else 1, errno.EIO, call=call)
    for module in (direct, portability):
        monkeypatch.setattr(module, "os", broken)
    answer = cli("prepare", "bigearthnet", archive, store, "--workers", 1)
    assert answer.code == 2
    assert answer.lines == [f"landscale: {partial}: cannot be written (Input/output error)"]
    assert checked_complete(partial) == (16 if call == "fdatasync" else PATCHES)
    for module in (direct, portability):
        monkeypatch.setattr(module, "os", os)
    assert cli("prepare", "bigearthnet", archive, store, "--workers", 1).code == 0
    assert store.read_bytes() == unbroken.read_bytes()


def test_a_file_size_limit_with_two_workers(archive: Path, unbroken: Path, tmp_path: Path, cli: Cli) -> None:
    """A limit of the kernel: the file has its full size already, and writes beyond the limit fail."""
    store = tmp_path / "s.h5"
    partial = tmp_path / "s.h5.partial"
    begun = command("prepare", "bigearthnet", archive, store, "--workers", 1)
    while not partial.exists():
        assert begun.poll() is None
    begun.kill()
    begun.communicate()
    limit = partial.stat().st_size // 2
    words = ("prepare", "bigearthnet", archive, store, "--workers", 2)
    answer = outcome(command(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))))
    assert (answer.code, answer.lines) == (2, [f"landscale: {partial}: cannot be written (File too large)"])
    assert not store.exists()
    checked_complete(partial)
    assert cli("prepare", "bigearthnet", archive, store, "--workers", 1).code == 0
    assert store.read_bytes() == unbroken.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]


def test_states_are_written_after_the_sync_of_pixels(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power failure no state may be on disk without its pixels, so the order is: pixels, sync, states."""
    seen: list[str] = []
    original = writer.StoreWriter._write

    def write(self: writer.StoreWriter, key: str, *rest: object) -> None:
        seen.append(key)
        original(self, key, *rest)  # type: ignore[arg-type]

    class Noting:
        def __getattr__(self, name: str) -> object:
            if name in {"fdatasync", "fsync"}:
                seen.append(name)
            return getattr(os, name)

    monkeypatch.setattr(writer.StoreWriter, "_write", write)
    for module in (direct, portability):
        monkeypatch.setattr(module, "os", Noting())
    prepare_survey(bigearthnet.survey([(None, archive)]), tmp_path / "s.h5")
    chunk = seen[: seen.index("state") + 1]
    assert chunk[-2:] == ["fdatasync", "state"]
    assert {"data_10m", "data_20m", "data_60m", "checksum", "moments"} <= set(chunk[:-2])
    assert seen[-1] == "fsync"
