"""Thousands of damaged inputs: each is refused in one line that names the file, or the pixels that are accepted are right.

Changed pixels of a plain GeoTIFF are accepted, because it has no checksum; every other change must be noticed.
The seeds are fixed; a failure names the case, which `mutated(SEED, case, content)` reproduces.
"""

from __future__ import annotations

import bz2
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from archives import GSD, Patch, metadata, pixels, write_lists, write_patch, write_v1, write_v2
from conftest import Answer, command, without_bars
from landscale.store import BAD, PatchStore, open_store
from landscale.vocabulary.nomenclatures import CLC43
from launchers import in_memory

SEED = 20261
MANY = pytest.param(2000, marks=pytest.mark.slow)
counts = pytest.mark.parametrize("count", [150, MANY])
fewer = pytest.mark.parametrize("count", [20, MANY])  # for mutants that need a call of `prepare` each


def mutated(seed: int, case: int, content: bytes, header: int = 0) -> bytes:
    """The content after one to three random changes, most of them in its first `header` bytes."""
    rng = random.Random(f"{seed} {case}")
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        reach = min(header, len(data)) if header and rng.random() < 0.7 else len(data)
        at, length = rng.randrange(max(reach, 1)), rng.choice((1, 1, 2, 4, 12, 200))
        kind = rng.choice(
            ("bit", "bit", "bit", "byte", "byte", "word", "cut", "remove", "insert", "copy", "zeros", "ones")
        )
        if not data:
            break
        if kind == "bit":
            data[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            data[at] = rng.randrange(256)
        elif kind == "word":  # a number, as headers contain them
            data[at : at + 2] = rng.choice((0, 1, 2, 8, 12, 15, 32, 65535, rng.randrange(400))).to_bytes(2, "little")
        elif kind == "cut":
            del data[rng.randrange(len(data)) :]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "insert":
            data[at:at] = rng.randbytes(length)
        elif kind == "copy":
            source = rng.randrange(len(data))
            data[at : at + length] = data[source : source + length]
        else:
            data[at : at + length] = (b"\0" if kind == "zeros" else b"\xff") * min(length, len(data) - at)
    return bytes(data)


# ---- one file of each patch, all in one call of prepare

Mutant = tuple[Path, bytes, bytes]  # the file, what it was, what it is


def many_patches(
    root: Path, model: Path, of: Path, count: int, choose: Callable[[int], str], header: int
) -> list[Mutant]:
    """Below `root`, `count` copies of the patch folder `of`, by links; in each one file is damaged. For v1's layout."""
    mutants = []
    for case in range(count):
        name = f"S2A_MSIL2A_20170613T101031_{case}_{case}"
        folder = root / "BigEarthNet-v1.0" / name
        folder.mkdir(parents=True)
        for file in of.iterdir():
            (folder / (name + file.name.removeprefix(of.name))).hardlink_to(file)
        victim = folder / (name + choose(case))
        before = victim.read_bytes()
        after = mutated(SEED, case, before, header)
        victim.unlink()
        victim.write_bytes(after)
        mutants.append((victim, before, after))
    shutil.copytree(model / "metadata", root / "metadata", dirs_exist_ok=True)
    return mutants


def prepared(
    root: Path, mutants: list[Mutant], store: Path
) -> Iterator[tuple[int, Mutant, PatchStore, int, str | None]]:
    """Prepare in another process. Yields for each mutant: case, mutant, store, row, and the problem reported for it, or None."""
    process = command("prepare", "bigearthnet", root, store, "--workers", 1, "--skip-bad")
    try:
        _, stderr = process.communicate(timeout=60 + 0.1 * len(mutants))
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"seed {SEED}: it hangs")
    answer = Answer(process.returncode, "", without_bars(stderr))
    assert answer.code == 0, f"seed {SEED}: exit code {answer.code}, {answer.lines[-5:]}"
    found = open_store(store)
    rows = {name: row for row, name in enumerate(found.column("name").tolist())}
    refused = {}
    for line in answer.lines:
        assert line.startswith("skipped "), f"seed {SEED}: {line}"
        name, _, problem = line.removeprefix("skipped ").partition(": ")
        assert name not in refused
        refused[name] = problem
    bad = {name for name, row in rows.items() if found.states[row] == BAD}
    assert bad == set(refused)
    print(f"seed {SEED}: {len(refused)} of {len(mutants)} refused")
    for case, mutant in enumerate(mutants):
        name = mutant[0].parent.name
        problem = refused.get(name)
        if problem is not None:  # if two bands have different places, the message may name the other one
            assert problem.startswith((f"{mutant[0]}: ", f"{mutant[0].parent}/")), f"seed {SEED} case {case}: {problem}"
            assert "lies at" in problem or problem.startswith(f"{mutant[0]}: "), f"seed {SEED} case {case}: {problem}"
        yield case, mutant, found, rows[name], problem


def band_of(path: Path) -> str:
    return path.stem.rpartition("_")[2]


def read(store: PatchStore, row: int, band: str) -> np.ndarray[Any, Any]:
    plane = next(p for p in store.layout.planes if band in p.bands)
    return np.asarray(store.pixels(plane.key, [row])[0, plane.bands.index(band)])


@pytest.fixture(scope="module")
def v1_small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v1(tmp_path_factory.mktemp("fuzz"), [Patch(0)])


@counts
def test_plain_geotiffs(count: int, v1_small: Path, tmp_path: Path) -> None:
    of = v1_small / "BigEarthNet-v1.0" / Patch(0).v1
    bands = list(GSD)
    mutants = many_patches(tmp_path, v1_small, of, count, lambda k: f"_{bands[k % 12]}.tif", header=500)
    wrong = []
    for case, (path, before, after), store, row, problem in prepared(tmp_path, mutants, tmp_path / "s.h5"):
        band = band_of(path)
        begin = len(before) - (1200 // GSD[band]) ** 2 * 2
        same_header = len(after) == len(before) and after[:begin] == before[:begin]
        if same_header:
            assert problem is None, f"seed {SEED} case {case}: {problem}"
        if problem is None:
            found = read(store, row, band).tobytes()
            right = found == before[begin:] or (len(after) == len(before) and found == after[begin:])
            if not right or not has_right_checksum(store, row):
                wrong.append(
                    f"case {case}: {path.name} was accepted, header changed at {changes(before, after, begin)}"
                )
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)


def has_right_checksum(store: PatchStore, row: int) -> bool:
    left, top = Patch(0).corner
    place = (store.column("crs")[row], *store.column("origin")[row].tolist())
    return place == (f"EPSG:{Patch(0).epsg}", left, top)


def changes(before: bytes, after: bytes, end: int) -> list[int]:
    """Positions before `end` at which the two differ; also the lengths if these differ."""
    if len(before) != len(after):
        return [len(before), len(after)]
    return [k for k in range(end) if before[k] != after[k]]


@counts
def test_compressed_tiled_geotiffs(count: int, v1_small: Path, tmp_path: Path) -> None:
    """LZW has no checksum: changed codes are noticed only if the decoder fails or the file is too short."""
    model = tmp_path / "model" / Patch(0).v1
    write_patch(model, Patch(0), compress="lzw", tiled=True, blockxsize=64, blockysize=64)
    name = f"{Patch(0).v1}_labels_metadata.json"
    shutil.copy(v1_small / "BigEarthNet-v1.0" / Patch(0).v1 / name, model / name)
    blocks = {band: blocks_of(model / f"{Patch(0).v1}_{band}.tif") for band in GSD}
    bands = list(GSD)
    mutants = many_patches(tmp_path, v1_small, model, count, lambda k: f"_{bands[k % 12]}.tif", header=600)
    wrong = []
    for case, (path, before, after), store, row, problem in prepared(tmp_path, mutants, tmp_path / "s.h5"):
        if problem is not None:
            continue
        band = band_of(path)
        codes = np.zeros(len(before), bool)
        for begin, end in blocks[band]:
            codes[begin:end] = True
        kept = len(after) == len(before)
        touched = not kept or any(codes[k] for k in changes(before, after, len(before)))
        right = bool((read(store, row, band) == pixels(0, band)).all())
        if not has_right_checksum(store, row) or (not right and (len(after) < len(before) or not touched)):
            wrong.append(
                f"case {case}: {path.name} was accepted, header changed at {changes(before, after, len(before))}"
            )
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)


def blocks_of(path: Path) -> list[tuple[int, int]]:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        return [(a, a + n) for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]


@counts
def test_label_files(count: int, v1_small: Path, tmp_path: Path) -> None:
    of = v1_small / "BigEarthNet-v1.0" / Patch(0).v1
    mutants = many_patches(tmp_path, v1_small, of, count, lambda _: "_labels_metadata.json", header=0)
    for case, (_, _, after), store, row, problem in prepared(tmp_path, mutants, tmp_path / "s.h5"):
        if problem is not None:
            continue
        content = json.loads(after.decode("utf-8"))
        labels = {CLC43.names[c] for c in np.flatnonzero(store.classes[row])}
        assert labels == set(content["labels"]), f"seed {SEED} case {case}"
        parts = str(content.get("tile_source", "")).split("_")
        assert store.column("tile")[row] == (parts[5] if len(parts) > 5 else ""), f"seed {SEED} case {case}"


# ---- what is read once for all patches: a call of prepare for each

LOOP = """
import contextlib, io, json, signal, sys
from pathlib import Path
from landscale.cli import main
folder, words, victim = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
for case in range(int(sys.argv[4]), int(sys.argv[5])):
    signal.alarm(20)  # it ends a process that hangs
    victim.write_bytes((folder / f"mutant-{case}").read_bytes())
    stderr = io.StringIO()
    store = folder / f"{case}.h5"
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
            code = main([*words, str(store), "--workers", "1"])
    except BaseException as error:
        code = repr(error)
    print(json.dumps([case, code, stderr.getvalue()]), flush=True)
"""

Case = tuple[int, bytes, str | None]  # number, mutant, and the line by which it was refused, or None


def one_by_one(folder: Path, words: list[str], victim: Path, count: int) -> Iterator[Case]:
    """Prepare with each mutant of `victim` in turn, in processes that may crash. Accepted mutants leave a store `CASE.h5`.

    A refusal names the victim, or a file that is not there because the victim gave a wrong name.
    """
    whole, below = victim.read_bytes(), words[2]
    wrong, refused, case = [], 0, 0
    while case < count:
        until = min(case + 100, count)  # at most 100 stores exist at once
        mutants = {k: mutated(SEED, k, whole) for k in range(case, until)}
        for k, mutant in mutants.items():
            (folder / f"mutant-{k}").write_bytes(mutant)
        how = [folder, json.dumps(words), victim, str(case), str(until)]
        done = subprocess.run([sys.executable, "-c", LOOP, *how], capture_output=True, text=True, check=False)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        case += len(answers)
        if case < until:
            wrong.append(f"case {case}: ended with {done.returncode}: {done.stderr[-300:]}")
            case += 1
        for k, code, text in answers:
            lines = [line for line in text.splitlines() if not line.startswith("prepare: ")]
            accepted = code == 0 and not lines
            if accepted or (code == 2 and len(lines) == 1 and lines[0].startswith(f"landscale: {below}/")):
                refused += not accepted
                yield k, mutants[k], None if accepted else lines[0]
            else:
                wrong.append(f"case {k}: {code}: {lines[:3]}")
        for left in [*folder.glob("*.h5*"), *folder.glob("mutant-*")]:
            left.unlink()
    print(f"seed {SEED}: {refused} of {count} refused")
    assert not wrong, f"seed {SEED}:\n" + "\n".join(wrong)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with in_memory(tmp_path) as folder:
        yield folder


def four(folder: Path, version: int) -> Path:
    patches = [Patch(k) for k in (0, 1, 3, 4)]  # without the two that are in no list of v1 because of snow or cloud
    return (write_v1 if version == 1 else write_v2)(folder / "archive", patches)


@fewer
def test_metadata_of_v2(count: int, memory: Path) -> None:
    """A parquet file's pages have no checksum by default: a changed value is accepted if it is valid."""
    root = four(memory, 2)
    table = metadata([Patch(k) for k in (0, 1, 3, 4)])
    victim = root / "metadata.parquet"
    for case, _, problem in one_by_one(memory, ["prepare", "bigearthnet", str(root)], victim, count):
        if problem is None:
            store = open_store(memory / f"{case}.h5")
            assert store.column("name").tolist() == table["patch_id"].tolist(), f"seed {SEED} case {case}"
            assert (store.classes.sum(1) > 0).all()
            assert set(store.splits.tolist()) <= {1, 2, 3}


@fewer
@pytest.mark.parametrize("suffix", ["csv", "csv.bz2"])
def test_split_lists(suffix: str, count: int, memory: Path) -> None:
    root = four(memory, 1)
    shutil.rmtree(root / "metadata")
    names = [Patch(k).v1 for k in (0, 1, 3, 4)]
    write_lists(root / "metadata", {"train": names[:3], "val": names[3:]}, suffix)
    victim = root / f"metadata/train.{suffix}"
    for case, mutant, problem in one_by_one(memory, ["prepare", "bigearthnet", str(root)], victim, count):
        if problem is None:
            text = decompressed(mutant) if suffix == "csv.bz2" else mutant
            listed = {
                line.partition(b",")[0].strip().strip(b'"').decode() for line in text.replace(b"\r", b"\n").split(b"\n")
            }
            store = open_store(memory / f"{case}.h5")
            expected = [1 if name in listed else 2 if name == names[3] else 0 for name in store.column("name")]
            assert store.splits.tolist() == expected, f"seed {SEED} case {case}"


def decompressed(data: bytes) -> bytes:
    """The content of a bz2 file with one stream and nothing after it."""
    decompressor = bz2.BZ2Decompressor()
    text = decompressor.decompress(data)
    assert decompressor.eof
    return text
