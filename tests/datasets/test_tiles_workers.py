"""Tiles by several workers and after kills give the same bytes; each block is decoded once; memory is bounded."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from archives import GSD
from conftest import Cli, command, outcome
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT
from landscale.datasets.tiles import survey as tiles
from landscale.errors import LandscaleError
from landscale.preparation import plan, prepare_survey
from landscale.preparation.overlap import IN_FLIGHT
from landscale.scenes.pixels import ScenePixels
from landscale.store import PENDING, open_store
from products import noise, read, write_tiffs


@pytest.mark.parametrize("workers", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, country: Path, clc: Path, whole: Path, tmp_path: Path
) -> None:
    answer = outcome(command("prepare", "tiles", country, tmp_path / "s.h5", "--corine", clc, "--workers", workers))
    assert (answer.code, answer.lines) == (0, [])
    assert (tmp_path / "s.h5").read_bytes() == whole.read_bytes()


def test_several_workers_read_parts_of_one_tile(clc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more workers than tiles, each reads a part of the rows, and the patches are the same."""
    monkeypatch.setattr(tiles, "_PART", 240)
    product = write_tiffs(tmp_path, PRODUCT, noise(600), tiled=True, blockxsize=256, blockysize=256)
    one, two = (tiles.survey([(None, product)], corine=clc, workers=workers) for workers in (1, 2))
    assert one.table["job"].nunique() == 1
    assert two.table["job"].nunique() == 2
    assert one.table.drop(columns="job").equals(two.table.drop(columns="job"))
    assert (np.diff(two.table["job"]) >= 0).all()
    prepare_survey(one, tmp_path / "1.h5")
    prepare_survey(two, tmp_path / "2.h5")
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_resumed_after_kills_within_a_tile(country: Path, clc: Path, whole: Path, tmp_path: Path, cli: Cli) -> None:
    store, partial = tmp_path / "s.h5", tmp_path / "s.h5.partial"
    words = ("prepare", "tiles", country, store, "--corine", clc, "--workers", 2)
    kept = []
    for _ in range(2):
        process = command(*words)
        before, end = count(partial), time.monotonic() + 60
        while count(partial) <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        kept.append(count(partial))
    if not store.exists():
        assert 0 < kept[0] < len(open_store(whole))
        answer = outcome(command(*words))
        assert answer.code == 0, answer.lines
    assert store.read_bytes() == whole.read_bytes()


def test_resumed_after_interrupts_between_chunks(
    country: Path, clc: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of four patches, so that interrupts happen within a tile and within a row of patches."""
    monkeypatch.setattr(plan, "CHUNK", 4)
    survey = tiles.survey([(None, country)], corine=clc)
    allowed: list[int] = []

    def read(*arguments: Any) -> Any:
        if not allowed:
            raise KeyboardInterrupt
        allowed.pop()
        return survey.read(*arguments)

    for chunks in (1, 3, IN_FLIGHT + 2):  # chunks that are read and not yet written are lost
        allowed.extend(range(chunks))
        before = count(tmp_path / "s.h5.partial")
        with pytest.raises(KeyboardInterrupt):
            prepare_survey(dataclasses.replace(survey, read=read), tmp_path / "s.h5")
        assert before + 4 * (chunks - IN_FLIGHT) <= count(tmp_path / "s.h5.partial") <= before + 4 * chunks
    assert count(tmp_path / "s.h5.partial") >= 8
    prepare_survey(survey, tmp_path / "s.h5")
    assert (tmp_path / "s.h5").read_bytes() == whole.read_bytes()


def count(partial: Path) -> int:
    """Patches that are written in an unfinished store."""
    try:
        return int((open_store(partial, unfinished=True).states != PENDING).sum())
    except LandscaleError:
        return 0


Reads = list[tuple[str, int, int, int, int]]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """All windows that are decoded: file, first and end row, first and end column."""
    found: Reads = []
    read = ScenePixels.read

    def counting(
        self: ScenePixels, band: str, row: int, rows: int, column: int = 0, columns: int | None = None
    ) -> NDArray[np.uint16]:
        if columns is not None:  # whole rows are only read to find pixels without data
            found.append((self.files[band].file.name, row, row + rows, column, column + columns))
        return read(self, band, row, rows, column, columns)

    monkeypatch.setattr(ScenePixels, "read", counting)
    return found


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize("block", [256, 16, 1024])
def test_each_block_is_decoded_once(
    block: int, step: int, reads: Reads, clc: Path, tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """Although patches lie across blocks, and chunks of patches end within rows of patches."""
    how = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "lzw"}
    product = write_tiffs(tmp_path, PRODUCT, noise(1560), **how)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{PRODUCT}_{k % 13:02d}_{k // 13:02d}\n" for k in range(0, 169, step)))
    survey = tiles.survey([(None, product)], corine=clc, patch_list=listed)
    planes = survey.layout.buffers(64)
    locations = list(survey.table["location"])
    for start in range(0, len(locations), 64):
        part = locations[start : start + 64]
        outs = {key: plane[: len(part)] for key, plane in planes.items()}
        assert survey.classes is not None
        list(survey.read(part, outs, survey.classes[start : start + 64]))
    decoded: dict[str, NDArray[np.int64]] = {}
    for file, top, bottom, left, right in reads:
        side = noise(1560)["B02"].shape[0] if "B02" in file else 1560
        blocks = decoded.setdefault(file, np.zeros((side // block + 1, side // block + 1), int))
        blocks[top // block : -(-bottom // block), left // block : -(-right // block)] += 1
    assert len(decoded) == 12
    assert all(blocks.max() == 1 for blocks in decoded.values())


def test_memory_is_bounded_for_a_whole_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a tile of 10,980 × 10,980 px with blocks as in real products, count the bytes of all arrays that are kept."""
    from landscale.scenes.strips import Strips

    class File:
        def __init__(self, side: int, block: int) -> None:
            self.height, self.block_shape = side, (block, block)

    class Pixels:
        def __init__(self) -> None:
            blocks = {10: 1024, 20: 640, 60: 192}
            self.files = {band: File(109_800 // gsd, blocks[gsd]) for band, gsd in GSD.items()}

        def read(self, band: str, row: int, rows: int, column: int, columns: int) -> NDArray[np.uint16]:
            return np.zeros((rows, columns), np.uint16)

        def harmonise(self, values: NDArray[np.uint16]) -> NDArray[np.uint16]:
            return values

    strips = Strips(Pixels(), 0, 10_920)  # type: ignore[arg-type]
    most = 0
    for top in range(0, 10_920, 120):
        for band, gsd in GSD.items():
            strips.rows(band, top * 10 // gsd, (top + 120) * 10 // gsd)
        most = max(most, sum(values.nbytes for _, values in strips._rows.values()))
    assert most < 240e6


def test_readers_of_the_same_tile_in_one_process_do_not_share_open_strips(
    safe: Path, clc: Path, archive: Path, tmp_path: Path
) -> None:
    """They have different columns, and are used one after the other."""
    listed = tmp_path / "list.txt"
    listed.write_text(f"{PRODUCT}_03_02\n")
    for patch_list, index in ((None, 13), (listed, 0), (None, 13)):
        survey = tiles.survey([(None, safe)], corine=clc, patch_list=patch_list)
        planes = survey.layout.buffers(len(survey.table))
        assert survey.classes is not None
        list(survey.read(list(survey.table["location"]), planes, survey.classes))
        scene = read(archive / "scene" / PRODUCT / "B02.tif")
        assert (planes["data_10m"][index, 0] == scene[240:360, 360:480]).all()
