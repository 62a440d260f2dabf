"""Processes, dask workers and the ranks of any launcher write the same bytes and report an error in the same line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from archives import link_v2, write_eurosat
from conftest import Cli, command, outcome, without_bars
from landscale.cli import main
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.errors import LandscaleError
from landscale.preparation import prepare_survey
from landscale.preparation import ranks as preparation_ranks
from launchers import Dask, codes_of, dask, members, mpirun, ranks_at, srun, start_ranks, torchrun, wait_until_gone
from slurm import slurm

PATCHES = 400


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, v2: Path) -> Path:
    return link_v2(tmp_path_factory.mktemp("big"), v2, PATCHES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, big: Path) -> bytes:
    path = tmp_path_factory.mktemp("unbroken") / "store.h5"
    prepare_survey(bigearthnet.survey([(None, big)]), path, 1)
    return path.read_bytes()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, big: Path) -> tuple[Path, list[Path]]:
    """Three patches lack a band, so that a rank other than the first reads one of them."""
    root = tmp_path_factory.mktemp("damaged") / "archive"
    shutil.copytree(big, root, copy_function=os.link)
    folders = sorted((root / "BigEarthNet-S2").glob("*/*"))
    victims = [next(folders[k].glob("*_B03.tif")) for k in (5, 150, PATCHES - 1)]
    for victim in victims:
        victim.unlink()
    return root, victims


@pytest.mark.slow
def test_four_workers_give_the_same_bytes(big: Path, unbroken: bytes, tmp_path: Path) -> None:
    answer = outcome(command("prepare", "bigearthnet", big, tmp_path / "s.h5", "--workers", 4))
    assert (answer.code, answer.lines) == (0, [])
    assert (tmp_path / "s.h5").read_bytes() == unbroken


# ---- dask


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with dask(tmp_path_factory.mktemp("dask"), 2, 2) as started:
        yield started


def test_two_dask_workers_give_the_same_bytes(cluster: Dask, big: Path, unbroken: bytes, tmp_path: Path) -> None:
    words = ("prepare", "bigearthnet", big, tmp_path / "s.h5", "--scheduler", cluster.address, "--json")
    answer = outcome(command(*words))
    assert (answer.code, answer.lines) == (0, [])
    assert (answer.json["patches"], answer.json["written"]) == (PATCHES, PATCHES)
    assert (tmp_path / "s.h5").read_bytes() == unbroken


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 2), (2, 1)])
def test_more_dask_workers_and_threads(workers: int, threads: int, big: Path, unbroken: bytes, tmp_path: Path) -> None:
    with dask(tmp_path / "dask", workers, threads) as started:
        words = ("prepare", "bigearthnet", big, tmp_path / "s.h5", "--scheduler", started.address)
        assert outcome(command(*words)).code == 0
    assert (tmp_path / "s.h5").read_bytes() == unbroken


def test_a_bad_patch_on_a_dask_worker(
    cluster: Dask, damaged: tuple[Path, list[Path]], tmp_path: Path, cli: Cli
) -> None:
    root, victims = damaged
    words = ("prepare", "bigearthnet", root, tmp_path / "s.h5", "--scheduler", cluster.address)
    answer = outcome(command(*words))
    assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
    assert any(str(victim) in answer.lines[0] for victim in victims)
    skipped = outcome(command(*words, "--skip-bad"))
    assert (skipped.code, len(skipped.lines)) == (0, 3), skipped.lines
    assert all(any(str(victim) in line for line in skipped.lines) for victim in victims)
    assert cli("verify", tmp_path / "s.h5").code == 0


def test_no_dask_scheduler_at_the_address(big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setattr("landscale.preparation.cluster._TIMEOUT", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://"):
        answer = cli("prepare", "bigearthnet", big, tmp_path / "s.h5", "--scheduler", address)
        assert (answer.code, len(answer.lines)) == (2, 1), answer.lines
        assert f"--scheduler {address}: no dask scheduler answers there" in answer.lines[0]


# ---- ranks


@dataclass(frozen=True)
class Launcher:
    """How a launcher starts several ranks: the words before `landscale`, and environment variables."""

    before: Callable[[int], list[object]]
    environment: dict[str, str]
    ranks: int = 2

    def start(self, *words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(word) for word in (*self.before(self.ranks), *words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=os.environ | self.environment,
        )

    def run(self, *words: object, seconds: float = 60) -> tuple[int, str, list[str]]:
        """Exit code, stdout, and landscale's own lines on stderr; no process may be left running."""
        process = self.start(*words)
        try:
            out, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        assert wait_until_gone(process.pid) == []
        assert "landscale/" not in stderr, stderr  # no traceback of landscale
        ours = [line for line in without_bars(stderr) if line.startswith(("landscale:", "skipped "))]
        return process.returncode, out, ours


@pytest.fixture(scope="module")
def local_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with slurm(tmp_path_factory.mktemp("slurm")) as environment:
        yield Launcher(srun, environment)


@dataclass(frozen=True)
class ForkedRanks:
    """Two ranks without a launcher: they are forked, so that they need not import torch."""

    log: Path

    def run(self, *words: object) -> tuple[int, str, list[str]]:
        """As `Launcher.run`; what is not landscale's own line on stderr counts as stdout."""
        self.log.unlink(missing_ok=True)
        codes = codes_of(start_ranks(2, self.log, main, list(map(str, words))))
        assert codes in ([0, 0], [2, 2]), codes
        lines = without_bars(self.log.read_text())
        ours = [line for line in lines if line.startswith(("landscale:", "skipped "))]
        return codes[0] or 0, "\n".join(line for line in lines if line not in ours), ours


slow = (pytest.mark.slow, pytest.mark.cluster)


@pytest.fixture(params=[pytest.param(name, marks=slow) for name in ("torchrun", "srun", "mpirun")])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    return launcher_of(request.param, request)


def launcher_of(name: str, request: pytest.FixtureRequest) -> Launcher:
    if name == "srun":
        return request.getfixturevalue("local_slurm")
    if name == "mpirun" and shutil.which("mpirun") is None:
        pytest.skip("mpirun is not installed (Debian's openmpi-bin has one)")
    return Launcher({"torchrun": torchrun, "mpirun": mpirun}[name], {})


@pytest.fixture(params=["forked", *(pytest.param(name, marks=slow) for name in ("torchrun", "srun", "mpirun"))])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ForkedRanks | Launcher:
    if request.param == "forked":
        return ForkedRanks(tmp_path_factory.mktemp("forked") / "log")
    return launcher_of(request.param, request)


def test_ranks_give_the_same_bytes(ranks: ForkedRanks | Launcher, big: Path, unbroken: bytes, tmp_path: Path) -> None:
    code, out, lines = ranks.run("prepare", "bigearthnet", big, tmp_path / "s.h5")
    assert (code, lines) == (0, [])
    assert out.count("400 patches") == 1  # one rank prints the result
    assert (tmp_path / "s.h5").read_bytes() == unbroken
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.slow
def test_three_ranks_of_two_workers(big: Path, unbroken: bytes, tmp_path: Path) -> None:
    three = Launcher(torchrun, {}, 3)
    assert three.run("prepare", "bigearthnet", big, tmp_path / "s.h5", "--workers", 2)[0] == 0
    assert (tmp_path / "s.h5").read_bytes() == unbroken


def test_bad_patches_over_ranks(
    ranks: ForkedRanks | Launcher, damaged: tuple[Path, list[Path]], tmp_path: Path, cli: Cli
) -> None:
    root, victims = damaged
    store = tmp_path / "s.h5"
    code, out, lines = ranks.run("prepare", "bigearthnet", root, store)
    assert code != 0
    assert out == ""
    assert len(lines) == 1, lines  # from all ranks together
    assert any(str(victim) in lines[0] for victim in victims)
    code, _, lines = ranks.run("prepare", "bigearthnet", root, store, "--skip-bad")
    assert (code, len(lines)) == (0, 3), lines
    assert all(any(str(victim) in line for line in lines) for victim in victims)
    assert cli("verify", store).code == 0
    one = tmp_path / "one.h5"
    prepare_survey(bigearthnet.survey([(None, root)]), one, skip_bad=True)
    assert store.read_bytes() == one.read_bytes()


@pytest.mark.slow
def test_a_survey_that_fails_is_reported_once(launcher: Launcher, tmp_path: Path) -> None:
    code, out, lines = launcher.run("prepare", "bigearthnet", tmp_path / "nowhere", tmp_path / "s.h5")
    assert code != 0
    assert (out, lines) == ("", [f"landscale: {tmp_path / 'nowhere'}: no such folder"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plan_over_ranks_writes_nothing(big: Path, tmp_path: Path) -> None:
    code, out, _ = Launcher(torchrun, {}).run("prepare", "bigearthnet", big, tmp_path / "s.h5", "--plan")
    assert code == 0
    assert out.count("jobs for 2 workers") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_after_the_loss_of_a_rank_the_same_command_resumes(
    launcher: Launcher, victim: int, big: Path, unbroken: bytes, tmp_path: Path
) -> None:
    store = tmp_path / "s.h5"
    process = launcher.start("prepare", "bigearthnet", big, store)
    end = time.monotonic() + 60
    while not store.with_name("s.h5.partial").exists() and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(ranks_at(store)[victim], signal.SIGKILL)
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        for left in [*members(process.pid), *ranks_at(store).values()]:
            os.kill(left, signal.SIGKILL)
    assert process.returncode != 0
    assert "landscale/" not in stderr, stderr
    ours = [line for line in stderr.splitlines() if line.startswith("landscale: ")]
    assert all("another rank is gone" in line and "run the same command again" in line for line in ours), ours
    assert not store.exists()
    assert launcher.run("prepare", "bigearthnet", big, store)[0] == 0
    assert store.read_bytes() == unbroken


def test_joining_ends_when_a_rank_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation_ranks, "_START_TIMEOUT", timedelta(seconds=1))
    for key, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 0}.items():
        monkeypatch.setenv(key, str(value))
    with pytest.raises(LandscaleError, match="ranks arrived within"), preparation_ranks.joined_ranks():
        pytest.fail("a rank is missing")


class TwoRanks:
    """Two ranks without processes: the outcomes of the other rank are given."""

    def __init__(self, rank: int, others: list[object]) -> None:
        self.rank, self.first, self.world, self._others = rank, rank == 0, 2, others

    def gather(self, value: object) -> list[object]:
        return [value, *self._others] if self.first else [*self._others, value]

    def broadcast(self, value: object) -> object:
        return value if self.first else self._others[0]


def test_an_error_of_one_rank_raises_on_all_and_is_reported_by_the_first() -> None:
    def full() -> int:
        raise OSError(28, "No space left on device", "s.h5")

    whole = (1, None)
    bad = (None, "s.h5: No space left on device")
    with pytest.raises(LandscaleError, match=r"^s\.h5: No space") as caught:
        preparation_ranks.on_all_ranks(TwoRanks(0, [bad]), lambda: 1)  # type: ignore[arg-type]
    assert not isinstance(caught.value, preparation_ranks.ReportedByFirstRank)
    with pytest.raises(preparation_ranks.ReportedByFirstRank):
        preparation_ranks.on_all_ranks(TwoRanks(1, [whole]), full)  # type: ignore[arg-type]
    with pytest.raises(preparation_ranks.ReportedByFirstRank):
        preparation_ranks.on_first_rank(TwoRanks(1, [bad]), lambda: 1)  # type: ignore[arg-type]
    assert preparation_ranks.on_all_ranks(TwoRanks(1, [whole]), lambda: 2) == [1, 2]  # type: ignore[arg-type]
    assert preparation_ranks.on_first_rank(TwoRanks(1, [(7, None)]), full) == 7  # type: ignore[arg-type]


@pytest.mark.slow
def test_eurosat_gives_the_same_bytes_too(tmp_path: Path) -> None:
    root = write_eurosat(tmp_path / "e", each=12, classes=["Forest", "River", "Pasture"])
    contents = set()
    for workers in (1, 2):
        answer = outcome(command("prepare", "eurosat", root, tmp_path / f"{workers}.h5", "--workers", workers))
        assert answer.code == 0
        contents.add((tmp_path / f"{workers}.h5").read_bytes())
    assert len(contents) == 1


def test_commands_about_stores_import_neither_torch_nor_pandas(v2: Path, tmp_path: Path) -> None:
    """Importing them takes seconds: commands about stores need no torch, and workers of BigEarthNet no pandas either."""
    store = tmp_path / "s.h5"
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    for words in (("prepare", "bigearthnet", v2, store, "--workers", 2), ("info", store), ("verify", store)):
        process = command(*words, env=environment)
        _, imported = process.communicate()
        assert process.returncode == 0
        names = [line.rpartition("|")[2].strip() for line in imported.splitlines() if line.startswith("import time:")]
        assert "landscale.store" in names
        assert "torch" not in names
        # Every process prints its imports. Only the command imports pandas: the fork server of the workers does not.
        assert names.count("pandas") == (words[0] == "prepare")
