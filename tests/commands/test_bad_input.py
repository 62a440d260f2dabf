"""Wrong input ends a command with one line that names it and exit code 2, and leaves no incomplete output."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from archives import Patch, metadata, pixels, write_band, write_eurosat, write_v1, write_v2
from conftest import Answer, Cli, command, outcome
from landscale.store import open_store

PATCHES = [Patch(k) for k in range(4)]
Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def source_v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v1(tmp_path_factory.mktemp("source"), PATCHES)


@pytest.fixture(scope="module")
def source_v2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v2(tmp_path_factory.mktemp("source"), PATCHES)


@pytest.fixture(scope="module")
def rgb_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from landscale.datasets import eurosat
    from landscale.preparation import prepare_survey

    folder = tmp_path_factory.mktemp("rgb")
    prepare_survey(
        eurosat.survey([(None, write_eurosat(folder, each=5, classes=["Forest", "River"]))]), folder / "rgb.h5"
    )
    return folder / "rgb.h5"


def refused(answer: Answer, *parts: object) -> str:
    """Check that the exit code is 2 and that the only line contains all `parts`. Returns the line."""
    assert answer.code == 2
    assert len(answer.lines) == 1, answer.lines
    assert answer.lines[0].startswith("landscale: ")
    assert "Traceback" not in answer.out
    for part in parts:
        assert str(part) in answer.lines[0]
    return answer.lines[0]


def cut(length: int) -> Damage:
    return lambda path: os.truncate(path, length)


def other(**how: object) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        dtype, shape = how.get("dtype", "uint16"), how.get("shape", (60, 60))
        write_band(path, pixels(0, "B05", shape).astype(dtype), Patch(1).corner, 20, Patch(1).epsg)  # type: ignore[arg-type, call-overload]

    return damage


BAND_FILES: dict[str, tuple[Damage, str]] = {
    "truncated": (cut(5000), "has 5000 bytes, its header announces 7572"),
    "truncated in its header": (cut(150), "header is truncated or damaged"),
    "empty": (cut(0), "is empty"),
    "missing": (Path.unlink, "cannot be read (No such file or directory)"),
    "text": (lambda path: path.write_text("not a picture\n" * 500) and None, "is not a TIFF file"),
    "of another size": (other(shape=(120, 120)), "is 120×120 uint16, expected 60×60 uint16"),
    "of another type": (other(dtype="uint8"), "is 60×60 uint8, expected 60×60 uint16"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + b"more") and None, "has 7576 bytes"),
}


@pytest.mark.parametrize("case", BAND_FILES)
def test_a_damaged_band_file_is_named_and_after_its_repair_the_same_command_succeeds(
    case: str, source_v2: Path, tmp_path: Path, cli: Cli
) -> None:
    damage, message = BAND_FILES[case]
    root, store = tmp_path / "archive", tmp_path / "out/s.h5"
    shutil.copytree(source_v2, root)
    victim = next(root.rglob(f"{Patch(1).v2}_B05.tif"))
    whole = victim.read_bytes()
    damage(victim)
    words = ("prepare", "bigearthnet", root, store, "--workers", 1)
    line = refused(cli(*words), f"landscale: {victim}: ", message)
    assert "\t" not in line
    assert sorted(p.name for p in store.parent.iterdir()) == ["s.h5.partial"]
    victim.write_bytes(whole)
    assert cli(*words).code == 0
    assert sorted(p.name for p in store.parent.iterdir()) == ["s.h5"]
    assert cli("prepare", "bigearthnet", source_v2, tmp_path / "whole.h5", "--workers", 1).code == 0
    assert store.read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_one_line_from_a_command_with_worker_processes(source_v2: Path, tmp_path: Path) -> None:
    """Workers, warnings and the logs of libraries add no further lines."""
    root, store = tmp_path / "archive", tmp_path / "s.h5"
    shutil.copytree(source_v2, root)
    victim = next(root.rglob(f"{Patch(1).v2}_B05.tif"))
    victim.write_text("not a picture\n")
    refused(outcome(command("prepare", "bigearthnet", root, store, "--workers", 2)), victim)
    assert not store.exists()


def test_no_progress_bar_is_left_before_the_line(source_v2: Path, tmp_path: Path) -> None:
    root = tmp_path / "archive"
    shutil.copytree(source_v2, root)
    next(root.rglob("*_B05.tif")).unlink()
    _, message = command("prepare", "bigearthnet", root, tmp_path / "s.h5", "--workers", 1).communicate()
    assert len(message.splitlines()) == 1


# ---- metadata and labels


def metadata_of(labels: list[str] | None = None, split: str | None = None) -> Damage:
    def damage(path: Path) -> None:
        table = metadata(PATCHES)
        if labels is not None:
            table.at[2, "labels"] = labels
        if split is not None:
            table.loc[2, "split"] = split
        table.to_parquet(path)

    return damage


METADATA: dict[str, tuple[Damage, str]] = {
    "missing": (Path.unlink, "no such file"),
    "empty": (cut(0), "is not the metadata of BigEarthNet v2"),
    "truncated": (cut(2000), "is not the metadata of BigEarthNet v2"),
    "text": (lambda path: path.write_text("patch_id,labels\n") and None, "is not the metadata of BigEarthNet v2"),
    "without labels": (
        lambda path: metadata(PATCHES).drop(columns="labels").to_parquet(path),
        "is not the metadata of BigEarthNet v2",
    ),
    "without patches": (metadata(PATCHES)[:0].to_parquet, "holds no patch"),
    "an unknown class": (metadata_of(labels=["Pastures", "Glaciers"]), "unknown class of ben19 'Glaciers'"),
    "a class of the 44": (metadata_of(labels=["Coniferous forrest"]), "did you mean Coniferous forest"),
    "an unknown split": (metadata_of(split="holdout"), "split 'holdout', expected train, val, test"),
}


@pytest.mark.parametrize("case", METADATA)
def test_damaged_metadata(case: str, source_v2: Path, tmp_path: Path, cli: Cli) -> None:
    damage, message = METADATA[case]
    root, store = tmp_path / "archive", tmp_path / "out/s.h5"
    shutil.copytree(source_v2, root, copy_function=os.link)
    path = root / "metadata.parquet"
    path.unlink()
    shutil.copy(source_v2 / "metadata.parquet", path)
    damage(path)
    words = ("prepare", "bigearthnet", root, store, "--workers", 1)
    refused(cli(*words), root if case == "without patches" else path, message)
    assert not store.parent.exists()
    shutil.copy(source_v2 / "metadata.parquet", path)
    assert cli(*words).code == 0


def labels(**changes: object) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in content.items() if v != "remove"}))

    return damage


LABEL_FILES: dict[str, tuple[Damage, str]] = {
    "missing": (Path.unlink, "cannot be read (No such file or directory)"),
    "no JSON": (lambda path: path.write_text("labels: [Pastures]\n") and None, "is not valid JSON"),
    "truncated": (cut(60), "is not valid JSON"),
    "empty": (cut(0), "is not valid JSON"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe\x00") and None, "is not valid JSON"),
    "too deep": (lambda path: path.write_text("[" * 10**5) and None, "is not valid JSON"),
    "a list": (lambda path: path.write_text("[]") and None, "has no 'labels'"),
    "no labels": (labels(labels="remove"), "has no 'labels'"),
    "an unknown class": (labels(labels=["Glaciers and perpetual snow"]), "'Glaciers and perpetual snow'"),
    "a misspelt class": (labels(labels=["Coniferus forest"]), "did you mean Coniferous forest"),
    "labels that are no list": (labels(labels=3), "labels_metadata.json"),
    "labels that are numbers": (labels(labels=[312]), "labels_metadata.json"),
}


@pytest.mark.parametrize("case", LABEL_FILES)
def test_damaged_label_files(case: str, source_v1: Path, tmp_path: Path, cli: Cli) -> None:
    damage, message = LABEL_FILES[case]
    root, store = tmp_path / "archive", tmp_path / "s.h5"
    shutil.copytree(source_v1, root)
    victim = next(root.rglob(f"{Patch(1).v1}_labels_metadata.json"))
    whole = victim.read_bytes()
    damage(victim)
    words = ("prepare", "bigearthnet", root, store, "--workers", 1)
    refused(cli(*words), victim, message)
    assert not store.exists()
    victim.write_bytes(whole)
    assert cli(*words).code == 0


LISTS: dict[str, tuple[Damage, str]] = {
    "truncated": (cut(30), "is no list of patch names"),
    "no bz2": (lambda path: path.write_text("S2A\n") and None, "is no list of patch names"),
}


@pytest.mark.parametrize("case", LISTS)
def test_damaged_split_lists(case: str, source_v1: Path, tmp_path: Path, cli: Cli) -> None:
    damage, message = LISTS[case]
    root = tmp_path / "archive"
    shutil.copytree(source_v1, root)
    path = root / "metadata/train.csv.bz2"
    damage(path)
    refused(cli("prepare", "bigearthnet", root, tmp_path / "s.h5", "--workers", 1), path, message)
    assert not (tmp_path / "s.h5").exists()


# ---- EuroSAT


IMAGES: dict[str, tuple[Damage, str]] = {
    "truncated": (cut(900), "cannot be decoded"),
    "empty": (cut(0), "is empty"),
    "text": (lambda path: path.write_text("no picture") and None, "is not a PNG or JPEG"),
    "of another size": (
        lambda path: _save(path, np.zeros((32, 64, 3), np.uint8)),
        "is 64×32 RGB, expected 64×64 RGB",
    ),
    "grey": (lambda path: _save(path, np.zeros((64, 64), np.uint8)), "is 64×64 L, expected 64×64 RGB"),
}


def _save(path: Path, values: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(values).save(path)


@pytest.mark.parametrize("case", IMAGES)
def test_damaged_images(case: str, tmp_path: Path, cli: Cli) -> None:
    damage, message = IMAGES[case]
    root = write_eurosat(tmp_path, each=2, classes=["Forest", "River"])
    victim = root / "River/River_2.jpg"
    whole = victim.read_bytes()
    damage(victim)
    words = ("prepare", "eurosat", root, tmp_path / "s.h5", "--workers", 1)
    refused(cli(*words), victim, message)
    assert not (tmp_path / "s.h5").exists()
    victim.write_bytes(whole)
    assert cli(*words).code == 0


@pytest.mark.parametrize("length", [100, 5000, -100])
def test_a_truncated_zip(length: int, tmp_path: Path, cli: Cli) -> None:
    root = write_eurosat(tmp_path / "e", each=2, classes=["Forest"])
    path = Path(shutil.make_archive(str(tmp_path / "EuroSAT_RGB"), "zip", root.parent, root.name))
    os.truncate(path, length % path.stat().st_size)
    refused(cli("prepare", "eurosat", path, tmp_path / "s.h5", "--workers", 1), path, "is not a complete zip file")


def test_a_damaged_member_of_a_zip(tmp_path: Path, cli: Cli) -> None:
    root = write_eurosat(tmp_path / "e", each=1, classes=["Forest"])
    path = Path(shutil.make_archive(str(tmp_path / "EuroSAT_RGB"), "zip", root.parent, root.name))
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xda", 200) + 20 if b"\xff\xda" in content else 800] ^= 0x55
    path.write_bytes(content)
    refused(cli("prepare", "eurosat", path, tmp_path / "s.h5", "--workers", 1), f"{path}::", "Forest_1.jpg")


def test_a_truncated_13_band_file(eurosat_ms: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(eurosat_ms / "Forest", tmp_path / "ms/Forest")
    os.truncate(tmp_path / "ms/Forest/Forest_2.tif", 60_000)
    answer = cli("prepare", "eurosat", tmp_path / "ms", tmp_path / "s.h5", "--workers", 1)
    refused(answer, tmp_path / "ms/Forest/Forest_2.tif", "has 60000 bytes, its header announces")


# ---- names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "bigearthnit", "{v2}", "{out}"], "unknown data set 'bigearthnit'; did you mean bigearthnet"),
        (["prepare", "bigearthnet", "{v2}", "{out}", "--wrokers", "2"], "--wrokers"),
        (["prepare", "bigearthnet", "{v2}", "{out}", "--workers", "two"], "'two'"),
        (["prepare", "bigearthnet", "{v2}"], "STORE.h5"),
        (["prpare", "bigearthnet", "{v2}", "{out}"], "prpare"),
        (["models", "resnet5O"], "did you mean resnet50"),
        (["train", "--recipe", "sedona2018", "--store", "{store}"], "did you mean sedona2019"),
        (["train", "--store", "{store}", "--epoch", "3", "--run", "{out}"], "unknown recipe key 'epoch'; did you mean epochs"),
        (["train", "--store", "{store}", "--epochs", "many", "--run", "{out}"], "many"),
        (["train", "--store", "{store}", "--model", "wide_resnt", "--bands", "rgb", "--run", "{out}"], "did you mean"),
        (["train", "--store", "{store}", "--bands", "s2-11", "--run", "{out}"], "s2-12"),
        (["train", "--store", "{store}", "--bands", "s2-12", "--run", "{out}"], "{store}: lacks B01, B05"),
        (["train", "--store", "{store}", "--bands", "rgb", "--labels", "ben91", "--run", "{out}"], "did you mean ben19"),
        (["train", "--store", "{store}", "--max-time", "soon", "--run", "{out}"], "found 'soon', expected a number"),
        (["train", "--store", "{out}"], "{out}: no such store"),
        (["evaluate", "{v2}", "{store}", "--split", "tset"], "unknown split 'tset'; did you mean test"),
        (["evaluate", "{v2}", "{store}"], "{v2}: holds no weights"),
        (["evaluate", "{v2}", "{out}"], "{out}: no such store"),
        (["info", "{out}"], "{out}: no such"),
        (["verify", "{out}"], "{out}: no such store"),
    ],
)  # fmt: skip
def test_unknown_names_and_options(
    words: list[str], message: str, source_v2: Path, rgb_store: Path, tmp_path: Path, cli: Cli
) -> None:
    known = {"v2": source_v2, "store": rgb_store, "out": tmp_path / "out"}
    refused(cli(*(word.format(**known) for word in words)), message.format(**known))
    assert not list(tmp_path.iterdir())


# ---- stores


@pytest.mark.parametrize(
    "words", [["info", "{}"], ["verify", "{}"], ["train", "--store", "{}"], ["evaluate", "nowhere", "{}"]]
)
@pytest.mark.parametrize("length", [0, 1000, -1])
def test_a_truncated_store(words: list[str], length: int, rgb_store: Path, tmp_path: Path, cli: Cli) -> None:
    path = Path(shutil.copy(rgb_store, tmp_path / "s.h5"))
    os.truncate(path, length % path.stat().st_size)
    refused(cli(*(word.format(path) for word in words)), f"{path}: is not a complete HDF5 patch store")


def test_an_unfinished_store(source_v2: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(source_v2, tmp_path / "archive")
    victim = next((tmp_path / "archive").rglob("*_B05.tif"))
    victim.unlink()
    refused(cli("prepare", "bigearthnet", tmp_path / "archive", tmp_path / "s.h5", "--workers", 1), victim)
    refused(cli("info", tmp_path / "s.h5"), "s.h5.partial is unfinished")


# ---- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs root to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root cannot mount a file system on this machine")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, source_v2: Path, cli: Cli) -> None:
    """A full disk is reported at once, no file is left, and with more space the same command succeeds."""
    store = small_disk / "s.h5"
    words = ("prepare", "bigearthnet", source_v2, store, "--workers", 1)
    refused(cli(*words), store.with_name("s.h5.partial"), "No space left on device", "GB")
    assert list(small_disk.iterdir()) == []
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert cli(*words).code == 0
    assert len(open_store(store)) == 4


def test_a_limit_on_the_size_of_files(source_v2: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.h5"
    words = ("prepare", "bigearthnet", source_v2, store, "--workers", 1)
    limit = (300_000, 300_000)
    answer = outcome(command(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit)))
    refused(answer, store.with_name("s.h5.partial"), "cannot be written")
    assert list(tmp_path.iterdir()) == []


def test_a_store_at_a_path_that_cannot_be_written(source_v2: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "file").touch()
    refused(cli("prepare", "bigearthnet", source_v2, tmp_path / "file/s.h5", "--workers", 1), tmp_path / "file")
    (tmp_path / "folder.h5").mkdir()
    refused(
        cli("prepare", "bigearthnet", source_v2, tmp_path / "folder.h5", "--workers", 1), "folder.h5: is not a file"
    )
