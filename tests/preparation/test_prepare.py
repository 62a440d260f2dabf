"""Preparing folders: the same bytes from any number of workers and after any number of kills."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from archives import CODES, Patch, link_v2, metadata, write_eurosat, write_v1, write_v2
from conftest import Cli, command, outcome
from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.survey import OneByOne, Survey
from landscale.errors import BadStore, LandscaleError
from landscale.preparation import plan, prepare_survey, random_access
from landscale.store import BAD, PENDING, WHOLE, open_store
from launchers import wait_until_gone, workers_of

PATCHES = 600


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory, v2: Path) -> Path:
    """600 patches, as links to the twelve of the small data set."""
    return link_v2(tmp_path_factory.mktemp("big"), v2, PATCHES)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, big: Path) -> Path:
    """The store that one worker makes of it without interruption."""
    path = tmp_path_factory.mktemp("unbroken") / "store.h5"
    prepare_survey(bigearthnet.survey([(None, big)]), path, 1)
    return path


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bytes(workers: int, big: Path, unbroken: Path, tmp_path: Path) -> None:
    answer = outcome(command("prepare", "bigearthnet", big, tmp_path / "s.h5", "--workers", workers, "--json"))
    assert (answer.code, answer.lines) == (0, [])
    assert (answer.json["patches"], answer.json["written"], answer.json["skipped"]) == (PATCHES, PATCHES, [])
    assert (tmp_path / "s.h5").read_bytes() == unbroken.read_bytes()


def test_chunks_of_any_size_give_the_same_bytes(v1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = set()
    for size in (1, 5, 64):
        monkeypatch.setattr(plan, "CHUNK", size)
        prepare_survey(bigearthnet.survey([(None, v1)]), tmp_path / f"{size}.h5")
        contents.add((tmp_path / f"{size}.h5").read_bytes())
    assert len(contents) == 1


def test_a_second_call_writes_nothing(v2: Path, tmp_path: Path, cli: Cli) -> None:
    words = ("prepare", "bigearthnet", v2, tmp_path / "s.h5", "--workers", 1)
    assert cli(*words, "--json").json["written"] == 12
    before = (tmp_path / "s.h5").stat()
    again = cli(*words)
    assert again.code == 0
    assert "12 patches, complete already" in again.out
    assert cli(*words, "--json").json == {
        "store": str(tmp_path / "s.h5"),
        "patches": 12,
        "written": 0,
        "skipped": [],
        "notes": [],
    }
    after = (tmp_path / "s.h5").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_interrupted_preparation_resumes(v2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted in the sixth chunk: chunks that were written are not read again, and the store has the same bytes."""
    monkeypatch.setattr(plan, "CHUNK", 2)
    survey = bigearthnet.survey([(None, v2)])
    prepare_survey(survey, tmp_path / "whole.h5")
    seen: list[str] = []

    def reader(stop: int) -> Callable[..., object]:
        def read(where: str, planes: object, classes: object) -> object:
            if len(seen) == stop:
                raise KeyboardInterrupt
            seen.append(where)
            return survey.read.read(where, planes, classes)  # type: ignore[attr-defined]

        return OneByOne(read)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        prepare_survey(_with(survey, read=reader(11)), tmp_path / "s.h5")
    assert not (tmp_path / "s.h5").exists()
    states = open_store(tmp_path / "s.h5.partial", unfinished=True).states
    done = int((states == WHOLE).sum())
    assert done in (4, 6, 8, 10)
    assert states.tolist() == [WHOLE] * done + [PENDING] * (12 - done)
    seen.clear()
    assert prepare_survey(_with(survey, read=reader(99)), tmp_path / "s.h5").written == len(seen) == 12 - done
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def _with(survey: Survey, read: object) -> Survey:
    return dataclasses.replace(survey, read=read)  # type: ignore[arg-type]


def test_the_folder_may_be_moved_before_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    write_v2(tmp_path / "before", [Patch(0), Patch(1)])
    victim = next((tmp_path / "before").rglob("*_B12.tif"))
    content = victim.read_bytes()
    victim.unlink()
    words = ("--workers", 1)
    assert cli("prepare", "bigearthnet", tmp_path / "before", tmp_path / "s.h5", *words).code == 2
    victim.write_bytes(content)
    (tmp_path / "before").rename(tmp_path / "after")
    assert cli("prepare", "bigearthnet", tmp_path / "after", tmp_path / "s.h5", *words).code == 0


# ---- other content


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("change", ["split", "labels", "patches", "snow", "date"])
def test_resuming_with_other_content_is_refused(change: str, finished: bool, tmp_path: Path, cli: Cli) -> None:
    patches = [Patch(k) for k in range(3)]
    write_v2(tmp_path / "a", patches)
    victim = next((tmp_path / "a").rglob(f"{patches[2].v2}_B12.tif"))
    if not finished:
        hidden = victim.rename(tmp_path / "hidden")
    store = tmp_path / "s.h5"
    words = ("prepare", "bigearthnet", tmp_path / "a", store, "--workers", 1)
    assert cli(*words).code == (0 if finished else 2)
    if not finished:
        hidden.rename(victim)
    held = store if finished else store.with_name("s.h5.partial")
    before = held.read_bytes()

    table = metadata(patches)
    if change == "split":
        table.loc[1, "split"] = "test"
    elif change == "labels":
        table.at[1, "labels"] = ["Marine waters"]
    elif change == "patches":
        table = table[:2]
    elif change == "snow":
        table.loc[1, "contains_seasonal_snow"] = True
    else:
        table.loc[1, "country"] = "Atlantis"
    table.to_parquet(tmp_path / "a/metadata.parquet")
    answer = cli(*words)
    assert answer.code == 2
    assert len(answer.lines) == 1
    assert answer.lines[0].startswith(f"landscale: {held}: ")
    assert "remove it" in answer.lines[0]
    assert held.read_bytes() == before


def test_resuming_with_another_data_set_is_refused(v2: Path, tmp_path: Path, cli: Cli) -> None:
    root = write_eurosat(tmp_path / "e", each=1)
    assert cli("prepare", "eurosat", root, tmp_path / "s.h5", "--workers", 1).code == 0
    answer = cli("prepare", "bigearthnet", v2, tmp_path / "s.h5", "--workers", 1)
    assert answer.code == 2
    assert "was prepared from other data" in answer.lines[0]


# ---- damaged patches


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, str, Path]:
    """A folder of six patches, the third of which has a truncated file; that file's name; an intact copy of it elsewhere."""
    root = write_v1(tmp_path / "v1", [Patch(k) for k in range(6)])
    victim = root / "BigEarthNet-v1.0" / Patch(2).v1 / f"{Patch(2).v1}_B07.tif"
    spare = Path(shutil.copy(victim, tmp_path / "spare.tif"))
    os.truncate(victim, 3000)
    return root, str(victim), spare


def test_skip_bad_lists_damaged_patches_and_leaves_them_out(
    damaged: tuple[Path, str, Path], tmp_path: Path, cli: Cli
) -> None:
    root, victim, _ = damaged
    store = tmp_path / "s.h5"
    words = ("prepare", "bigearthnet", root, store, "--workers", 1)
    refused = cli(*words)
    assert refused.code == 2
    assert len(refused.lines) == 1
    assert victim in refused.lines[0]
    assert "--skip-bad" in refused.lines[0]
    assert not store.exists()
    answer = cli(*words, "--skip-bad", "--json")
    assert answer.code == 0
    assert answer.json["skipped"] == [Patch(2).v1]
    assert len(answer.lines) == 1
    assert answer.lines[0].startswith(f"skipped {Patch(2).v1}: {victim}: ")
    found = open_store(store)
    assert len(found) == 5
    row = found.column("name").tolist().index(Patch(2).v1)
    assert found.states[row] == BAD
    assert not any(found.pixels(plane.key, [row]).any() for plane in found.layout.planes)
    assert sum(found.split_sizes().values()) == 5
    assert cli("info", store, "--json").json["skipped"] == 1
    assert cli("verify", store).code == 0
    again = cli(*words, "--skip-bad", "--json")  # the finished store lists them again
    assert (again.code, again.json["skipped"], again.json["written"]) == (0, [Patch(2).v1], 0)
    assert "5 patches, 1 skipped" in cli(*words, "--skip-bad").out


def test_statistics_leave_damaged_patches_out(damaged: tuple[Path, str, Path], tmp_path: Path) -> None:
    root, _, _ = damaged
    prepare_survey(bigearthnet.survey([("train", root)]), tmp_path / "s.h5", skip_bad=True)
    shutil.rmtree(root / "BigEarthNet-v1.0" / Patch(2).v1)
    prepare_survey(bigearthnet.survey([("train", root)]), tmp_path / "t.h5")
    assert open_store(tmp_path / "s.h5").statistics == open_store(tmp_path / "t.h5").statistics


def test_a_repaired_file_is_read_again(damaged: tuple[Path, str, Path], tmp_path: Path) -> None:
    root, victim, spare = damaged
    survey = bigearthnet.survey([(None, root)])
    with pytest.raises(LandscaleError, match=re.escape(victim)):
        prepare_survey(survey, tmp_path / "s.h5")
    shutil.copy(spare, victim)
    prepare_survey(survey, tmp_path / "s.h5")
    prepare_survey(survey, tmp_path / "unbroken.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "unbroken.h5").read_bytes()


def test_damaged_patches_do_not_depend_on_workers(big: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    shutil.copytree(big, root, copy_function=os.link)
    folders = sorted((root / "BigEarthNet-S2").glob("*/*"))
    bad = [folders[k] for k in (0, 70, 599)]
    for folder in bad:
        next(folder.glob("*_B03.tif")).unlink()
    one = prepare_survey(bigearthnet.survey([(None, root)]), tmp_path / "1.h5", skip_bad=True)
    assert {name for name, _ in one.skipped} == {folder.name for folder in bad}
    two = outcome(command("prepare", "bigearthnet", root, tmp_path / "2.h5", "--workers", 2, "--skip-bad"))
    assert two.code == 0
    assert sorted(two.lines) == sorted(f"skipped {name}: {reason}" for name, reason in one.skipped)
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_a_folder_of_damaged_patches_only(tmp_path: Path, cli: Cli) -> None:
    write_v2(tmp_path / "a", [Patch(0)])
    next((tmp_path / "a").rglob("*_B01.tif")).unlink()
    answer = cli("prepare", "bigearthnet", tmp_path / "a", tmp_path / "s.h5", "--skip-bad", "--workers", 1)
    assert answer.code == 2
    assert "none of 1 patches can be read" in answer.lines[0]
    assert not (tmp_path / "s.h5").exists()


# ---- kills


class Victim:
    """The real command, in a session of its own, to be killed."""

    def __init__(self, big: Path, store: Path) -> None:
        self.process = command("prepare", "bigearthnet", big, store, "--workers", 2)
        self.partial = store.with_name(store.name + ".partial")

    def whole(self) -> int:
        """Number of patches that are complete so far."""
        try:
            with h5py.File(self.partial, "r", locking=False) as file:
                return int((file["state"][...] == WHOLE).sum())
        except (OSError, KeyError):
            return 0

    def wait_for(self, patches: int, seconds: float = 60) -> bool:
        """Wait until so many patches are complete, or for so many seconds; False if the command ended before."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            if self.whole() >= patches or time.monotonic() > end:
                return True
            time.sleep(0.003)
        return False

    def kill(self, group: bool) -> None:
        """Kill the command alone or its whole session; after that no process of it may be alive."""
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        left = wait_until_gone(self.process.pid)
        for process in left:
            os.kill(process, signal.SIGKILL)
        self.process.communicate()
        assert left == []


def survive(kills: int, seed: int, big: Path, unbroken: Path, store: Path, cli: Cli) -> None:
    """Kill the command again and again, at random moments of its start and of its work, then let it finish."""
    rng = random.Random(seed)
    for k in range(kills):
        victim = Victim(big, store)
        before = victim.whole()
        if before > PATCHES - 200:  # nearly complete: start again from nothing
            victim.kill(group=True)
            victim.partial.unlink()
            victim = Victim(big, store)
            before = 0
        # Every third kill comes while workers start: they must not outlive their parent then either.
        assert victim.wait_for(before + rng.randrange(1, 150), rng.uniform(0.2, 1.2) if k % 3 == 2 else 60)
        victim.kill(group=k % 2 == 1)
        assert not store.exists()
        assert victim.whole() >= before  # complete patches stay complete

    last = command("prepare", "bigearthnet", big, store, "--workers", 2)
    answer = outcome(last)
    assert answer.code == 0, answer.lines
    assert wait_until_gone(last.pid) == []
    assert sorted(p.name for p in store.parent.iterdir()) == [store.name]
    answer = cli("verify", store, "--json")
    assert (answer.code, answer.json["patches"], answer.json["damaged"]) == (0, PATCHES, [])
    assert store.read_bytes() == unbroken.read_bytes()


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_it_survives_kills(kills: int, big: Path, unbroken: Path, tmp_path: Path, cli: Cli, seed: int) -> None:
    (tmp_path / "out").mkdir()
    survive(kills, seed, big, unbroken, tmp_path / "out/store.h5", cli)


def test_a_killed_worker_is_reported_and_the_same_command_resumes(big: Path, unbroken: Path, tmp_path: Path) -> None:
    """The kernel kills a worker in this way when memory runs out."""
    victim = Victim(big, tmp_path / "s.h5")
    assert victim.wait_for(1)
    workers = workers_of(victim.process.pid)
    os.kill(workers[0], signal.SIGKILL)
    answer = outcome(victim.process)
    assert (answer.code, len(answer.lines)) == (2, 1)
    assert "a worker process died" in answer.lines[0]
    assert wait_until_gone(victim.process.pid) == []
    prepare_survey(bigearthnet.survey([(None, big)]), tmp_path / "s.h5", 1)
    assert (tmp_path / "s.h5").read_bytes() == unbroken.read_bytes()


@pytest.mark.parametrize("done", [0, 1, 100])
def test_an_interrupt_is_reported_in_one_line(done: int, big: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to the command and its workers at once, whether these are working or still starting."""
    for tries in range(1, 20):
        victim = Victim(big, tmp_path / "s.h5")
        while not victim.partial.exists() and victim.process.poll() is None:
            time.sleep(0.003)
        time.sleep(0.2 / tries)  # workers are starting, and the command waits for them
        victim.wait_for(done)
        with suppress(ProcessLookupError):
            os.killpg(victim.process.pid, signal.SIGINT)
        answer = outcome(victim.process)
        assert wait_until_gone(victim.process.pid) == []
        if answer.code != 0:
            break
        (tmp_path / "s.h5").unlink()  # it finished before the interrupt
    assert (answer.code, answer.lines) == (130, ["landscale: interrupted; run the same command again to resume"])


def test_a_worker_whose_parent_died_exits_at_once() -> None:
    """The parent may die before the worker begins to watch it."""
    code = "import sys; sys.argv = ['landscale']; import landscale.preparation.pool as p; print('begun', flush=True)"
    call = "p._start_worker(1, None, None); print('lives')"
    done = subprocess.run([sys.executable, "-c", f"{code}; {call}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "begun\n")


def test_two_commands_on_one_store(big: Path, unbroken: Path, tmp_path: Path) -> None:
    """By mistake. Each command succeeds or is refused, and the store is correct, at the latest after one more call."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: outcome(Victim(big, tmp_path / "s.h5").process), range(2)))
    assert {a.code for a in answers} <= {0, 2}
    assert all(len(a.lines) == (a.code == 2) for a in answers), answers
    prepare_survey(bigearthnet.survey([(None, big)]), tmp_path / "s.h5")
    assert (tmp_path / "s.h5").read_bytes() == unbroken.read_bytes()


def test_a_partial_store_that_was_replaced_is_not_finished(v2: Path, tmp_path: Path) -> None:
    """Two commands that start at the same moment: one must not finish the partial store that the other has just created."""
    survey = bigearthnet.survey([(None, v2)])
    partial = tmp_path / "s.h5.partial"
    first = True

    def read(where: str, planes: object, classes: object) -> object:
        nonlocal first
        if first:
            random_access._create(survey, partial, open_store(partial, unfinished=True).attributes["plan"])
            first = False
        return survey.read(where, planes, classes)  # type: ignore[arg-type]

    with pytest.raises(BadStore, match="run the same command again"):
        prepare_survey(_with(survey, read=read), tmp_path / "s.h5")  # type: ignore[arg-type]
    assert not (tmp_path / "s.h5").exists()
    prepare_survey(survey, tmp_path / "s.h5")
    prepare_survey(survey, tmp_path / "t.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "t.h5").read_bytes()


def test_the_splits_are_those_of_the_metadata(unbroken: Path, patches: list[Patch]) -> None:
    splits = open_store(unbroken).splits
    table = np.bincount([CODES[p.split] for p in patches], minlength=4) * (PATCHES // len(patches))
    assert np.bincount(splits, minlength=4).tolist() == table.tolist()
