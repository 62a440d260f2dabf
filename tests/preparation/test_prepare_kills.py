"""SIGKILL at random moments, of the command, a worker or dask's workers: complete patches are kept, and the next call resumes."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import pytest

from archives import link_v2
from conftest import Cli, command, outcome
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.preparation import prepare_survey
from landscale.store import WHOLE
from launchers import Dask, dask, wait_until_gone, workers_of

PATCHES = 1500


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, v2: Path) -> Path:
    return link_v2(tmp_path_factory.mktemp("big"), v2, PATCHES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, big: Path) -> Path:
    path = tmp_path_factory.mktemp("unbroken") / "store.h5"
    prepare_survey(bigearthnet.survey([(None, big)]), path, 1)
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask(tmp_path_factory.mktemp("dask"), 2) as started:
        yield started


def whole(partial: Path) -> int:
    """Number of patches that are complete so far."""
    with suppress(OSError, KeyError), h5py.File(partial, "r", locking=False) as file:
        return int((file["state"][...] == WHOLE).sum())
    return 0


class Proof:
    """One store, prepared by commands that are killed."""

    def __init__(self, folder: Path, big: Path, unbroken: Path, seed: int) -> None:
        folder.mkdir()
        self.store, self.partial = folder / "store.h5", folder / "store.h5.partial"
        self.words = ("prepare", "bigearthnet", big, self.store)
        self.unbroken, self.rng = unbroken, random.Random(seed)

    def kill(self, who: str, *how: object) -> bool:
        """Start the command and kill it, its process group or one of its workers; False if it finished before."""
        before = whole(self.partial)
        if before > PATCHES - 300:
            self.partial.unlink()
            before = 0
        process = command(*self.words, *how)
        self.wait(process, before)
        early = process.poll() is not None
        workers = workers_of(process.pid)
        if who == "worker" and workers:
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(workers), signal.SIGKILL)
            answer = outcome(process)
            assert early or answer.code in {0, 2}
            assert [line for line in answer.lines if "a worker process died" not in line] == []
        else:
            with suppress(ProcessLookupError):
                (os.killpg if who == "group" else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()
        assert wait_until_gone(process.pid) == []
        if self.store.exists():  # it finished before the kill
            assert self.store.read_bytes() == self.unbroken.read_bytes()
            self.store.unlink()
            return False
        assert whole(self.partial) >= before  # complete patches stay complete
        return not early

    def wait(self, process: object, before: int) -> None:
        """Wait until a random moment of the start or of the work."""
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0.1, 1.5))
            return
        goal, end = before + self.rng.randrange(1, 300), time.monotonic() + 30
        while process.poll() is None and whole(self.partial) < goal and time.monotonic() < end:  # type: ignore[attr-defined]
            time.sleep(0.003)

    def ends_well(self, cli: Cli, *how: object) -> None:
        process = command(*self.words, *how)
        answer = outcome(process)
        assert (answer.code, answer.lines) == (0, [])
        assert wait_until_gone(process.pid) == []
        assert [p.name for p in self.store.parent.iterdir()] == [self.store.name]  # no temporary file
        verified = cli("verify", self.store, "--json")
        assert (verified.code, verified.json["patches"], verified.json["damaged"]) == (0, PATCHES, [])
        assert self.store.read_bytes() == self.unbroken.read_bytes()


@pytest.mark.parametrize(
    "kills", [2, pytest.param(15, marks=pytest.mark.slow)]
)  # for each number of workers: 15 × 3, and 15 with dask, are 60
@pytest.mark.parametrize(
    "workers", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(4, marks=pytest.mark.slow)]
)
def test_kills_of_the_command_and_its_workers(
    kills: int, workers: int, big: Path, unbroken: Path, tmp_path: Path, cli: Cli, seed: int
) -> None:
    proof = Proof(tmp_path / "out", big, unbroken, seed)
    done, tries = 0, 0
    while done < kills:
        tries += 1
        assert tries < 4 * kills + 10
        done += proof.kill(("command", "worker", "group")[tries % 3], "--workers", workers)
    proof.ends_well(cli, "--workers", workers)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_the_jobs_of_a_lost_dask_worker_are_repeated(
    kills: int, cluster: Dask, big: Path, unbroken: Path, tmp_path: Path, cli: Cli, seed: int
) -> None:
    """Workers are killed while one command runs; dask's nannies start new ones."""
    proof = Proof(tmp_path / "out", big, unbroken, seed)
    done = commands = 0
    while done < kills:
        commands += 1
        assert commands < 10 * kills, f"killed {done} workers during {commands} commands"
        process = command(*proof.words, "--scheduler", cluster.address)
        for _ in range(3):
            proof.wait(process, whole(proof.partial))
            workers = cluster.workers()
            if process.poll() is None and workers and done < kills:
                with suppress(ProcessLookupError):
                    os.kill(proof.rng.choice(workers), signal.SIGKILL)
                    done += 1
        answer = outcome(process)
        assert (answer.code, answer.lines) == (0, []), answer.lines
        assert proof.store.read_bytes() == unbroken.read_bytes()
        assert cli("verify", proof.store).code == 0
        assert [p.name for p in proof.store.parent.iterdir()] == [proof.store.name]
        if done < kills:
            proof.store.unlink()


@pytest.mark.slow
def test_kills_of_the_command_while_dask_works(
    cluster: Dask, big: Path, unbroken: Path, tmp_path: Path, cli: Cli, seed: int
) -> None:
    proof = Proof(tmp_path / "out", big, unbroken, seed)
    done = sum(proof.kill("command", "--scheduler", cluster.address) for _ in range(8))
    assert done >= 5
    proof.ends_well(cli, "--scheduler", cluster.address)


def test_a_lost_scheduler_is_reported(big: Path, unbroken: Path, tmp_path: Path, cli: Cli) -> None:
    proof = Proof(tmp_path / "out", big, unbroken, 1)
    with dask(tmp_path / "dask", 1) as cluster:
        process = command(*proof.words, "--scheduler", cluster.address)
        end = time.monotonic() + 30
        while whole(proof.partial) < 64 and time.monotonic() < end:
            time.sleep(0.003)
        cluster.kill_scheduler()
        answer = outcome(process)
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert "run the same command again" in answer.lines[0]
    proof.ends_well(cli, "--workers", 1)
