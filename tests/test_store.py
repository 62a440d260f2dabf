"""The store is plain byte ranges in an HDF5 file, the same bytes whoever writes it, and nothing in it changes unnoticed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import Cli
from landscale.errors import BadInput, BadStore, UnknownName
from landscale.store import (
    BAD,
    SPLITS,
    WHOLE,
    Layout,
    Plane,
    Writer,
    checksum,
    create,
    moments,
    open_store,
)

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08")
CLASSES = ("forest", "lake", "town")
ATTRIBUTES = {"plan": "a plan", "provenance": '{"source": "tests"}'}
LAYOUT = Layout(
    (Plane("data_10m", BANDS[:3], 4), Plane("data_60m", BANDS[3:5], 2)), CLASSES, "custom", multi_label=True
)

Content = dict[str, NDArray[np.generic]]


def content(layout: Layout, n: int, seed: int = 0, bad: Sequence[int] = ()) -> Content:
    """Everything of n patches that is written by patch."""
    rng = np.random.default_rng(seed)
    planes: Content = {p.key: rng.integers(0, 256, (n, *p.shape)).astype(p.dtype) for p in layout.planes}
    for p in layout.planes:
        if p.dtype == "uint16":
            planes[p.key] = (planes[p.key] * 257).astype(np.uint16)  # to 65535
    classes = rng.integers(0, 2, (n, len(layout.classes))).astype(np.uint8)
    state = np.full(n, WHOLE, np.uint8)
    state[list(bad)] = BAD
    return planes | {
        "classes": classes,
        "crs": np.array([f"EPSG:{32600 + k}".encode() for k in range(n)], "S16"),
        "origin": rng.normal(size=(n, 2)),
        "moments": moments([planes[p.key] for p in layout.planes]),
        "checksum": np.array([checksum([planes[p.key][i] for p in layout.planes], classes[i]) for i in range(n)], "u8"),
        "state": state,
    }


def table(n: int, splits: Sequence[str] = ("train", "val", "test")) -> Content:
    codes = np.array([SPLITS.index(splits[k % len(splits)]) for k in range(n)], np.uint8)
    return {"name": np.array([f"pätch_{k}" for k in range(n)]), "split": codes, "snow": codes == 1}


def write(path: Path, layout: Layout = LAYOUT, n: int = 6, **how: object) -> Content:
    """A finished store; the value is what was put into it."""
    columns = content(layout, n, bad=how.pop("bad", ()))  # type: ignore[arg-type]
    create(path, layout, table(n, **how), ATTRIBUTES)  # type: ignore[arg-type]
    writer = Writer(path)
    writer.put(0, columns)
    writer.finish()
    writer.close()
    return columns


layouts = st.builds(
    lambda bands, sides, dtype, classes: Layout(
        tuple(
            Plane(f"data_{k}", tuple(f"{BANDS[k]}{b}" for b in range(n)), side, dtype)
            for k, (n, side) in enumerate(zip(bands, sides, strict=False))
        ),
        tuple(f"class {k}" for k in range(classes)),
        "custom",
        multi_label=True,
    ),
    st.lists(st.integers(1, 3), min_size=1, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.integers(1, 4),
)


@given(layout=layouts, n=st.integers(1, 7))
def test_any_hdf5_tool_reads_it_and_datasets_are_plain_byte_ranges(tmp_path: Path, layout: Layout, n: int) -> None:
    path = tmp_path / "s.h5"
    expected = write(path, layout, n)
    with h5py.File(path, "r") as file:
        for key, values in expected.items():
            assert np.array_equal(file[key][...], values), key
        for key in file:
            dataset = file[key]
            assert dataset.chunks is None
            assert dataset.compression is None
            assert dataset.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
            assert dataset.id.get_create_plist().get_nfilters() == 0
            mapped = np.memmap(path, dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)
            assert mapped.tobytes() == dataset[...].tobytes(), key
        for plane in layout.planes:
            assert file[plane.key].shape == (n, *plane.shape)
            assert [b.decode() for b in file[plane.key].attrs["bands"]] == list(plane.bands)
    store = open_store(path)
    assert store.layout == layout
    assert all(np.array_equal(store.planes[p.key], expected[p.key]) for p in layout.planes)


@settings(max_examples=30)
@given(data=st.data(), layout=layouts, n=st.integers(1, 9), writers=st.integers(1, 4))
def test_order_and_number_of_writers_leave_no_trace(
    tmp_path: Path, data: st.DataObject, layout: Layout, n: int, writers: int
) -> None:
    write(tmp_path / "one.h5", layout, n)
    columns = content(layout, n)
    path = tmp_path / "many.h5"
    create(path, layout, table(n), ATTRIBUTES)
    cuts = sorted(data.draw(st.sets(st.integers(1, n), max_size=3)) - {n})
    pieces = data.draw(st.permutations(list(zip([0, *cuts], [*cuts, n], strict=True))))
    pool = [Writer(path) for _ in range(writers)]
    for k, (start, stop) in enumerate(pieces):
        pool[k % writers].put(start, {key: values[start:stop] for key, values in columns.items()})
    pool[-1].finish()
    for writer in pool:
        writer.close()
    assert path.read_bytes() == (tmp_path / "one.h5").read_bytes()


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (Debian's hdf5-tools) is not installed")
def test_the_tools_of_hdf5_read_every_dataset_and_attribute(tmp_path: Path) -> None:
    write(tmp_path / "store.h5")
    told = subprocess.run(["h5dump", tmp_path / "store.h5"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    with h5py.File(tmp_path / "store.h5") as file:
        for name in [*file, *file.attrs]:
            assert f'"{name}"' in told.stdout


def test_the_same_content_is_the_same_bytes_at_any_time(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 would keep the second in which an object was made
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_space_is_allocated_when_it_is_created(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    create(path, LAYOUT, table(5000), ATTRIBUTES)
    size = path.stat().st_size
    assert path.stat().st_blocks * 512 >= size > 5000 * (3 * 16 + 2 * 4) * 2
    writer = Writer(path)
    columns = content(LAYOUT, 5000)
    writer.put(0, columns)
    writer.finish()
    writer.close()
    assert path.stat().st_size == size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]


def test_a_state_is_written_after_its_bytes_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.h5"
    create(path, LAYOUT, table(6), ATTRIBUTES)
    with h5py.File(path) as file:
        place = file["state"].id.get_offset()
    done: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def spy_write(handle: int, data: memoryview, position: int) -> int:
        done.append("state" if place <= position < place + 6 else "bytes")
        return pwrite(handle, data, position)

    def spy_sync(handle: int) -> None:
        done.append("sync")
        fdatasync(handle)

    monkeypatch.setattr(os, "pwrite", spy_write)
    monkeypatch.setattr(os, "fdatasync", spy_sync)
    writer = Writer(path)
    writer.put(2, {key: values[2:5] for key, values in content(LAYOUT, 6).items()})
    writer.close()
    assert done == ["bytes"] * (len(done) - 2) + ["sync", "state"]
    assert open_store(path, unfinished=True).states.tolist() == [0, 0, WHOLE, WHOLE, WHOLE, 0]


def test_partial_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write may do less than it was asked for."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, position: pwrite(handle, data[:7], position))
    expected = write(tmp_path / "s.h5")
    assert np.array_equal(open_store(tmp_path / "s.h5").planes["data_10m"], expected["data_10m"])


# ---- what is refused


def refused(path: Path, **how: bool) -> str:
    with pytest.raises(BadStore) as caught:
        open_store(path, **how)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return caught.value.problem


def test_unfinished(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    create(path, LAYOUT, table(6), ATTRIBUTES)
    writer = Writer(path)
    writer.put(1, {key: values[1:3] for key, values in content(LAYOUT, 6).items()})
    writer.close()
    assert "unfinished: 4 of 6 patches are pending" in refused(path)
    assert len(open_store(path, unfinished=True)) == 2
    path.rename(tmp_path / "t.h5.partial")
    assert "t.h5.partial is its beginning" in refused(tmp_path / "t.h5")


def test_truncated_at_any_length(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    for length in reversed(range(0, path.stat().st_size, 173)):
        os.truncate(path, length)
        refused(path)


def test_foreign(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.h5") == "no such store"
    (tmp_path / "text.h5").write_text("not a store\n")
    assert "not a whole HDF5 patch store" in refused(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data_10m"] = np.zeros((2, 3))
    assert refused(tmp_path / "other.h5") == "is an HDF5 file but no patch store"
    with h5py.File(tmp_path / "later.h5", "w") as file:
        file.attrs.update(layout="{}", format=99)
    assert refused(tmp_path / "later.h5") == "has format 99, this program reads 2; prepare it again"
    (tmp_path / "folder.h5").mkdir()
    assert "is no file" in refused(tmp_path / "folder.h5")


@pytest.mark.parametrize("key", ["data_60m", "classes", "state", "statistics", "seal"])
def test_a_store_without_one_of_its_datasets(key: str, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    with h5py.File(path, "r+") as file:
        del file[key]
    try:
        store = open_store(path)
    except BadStore as error:
        assert key in str(error)  # noqa: PT017
    else:
        with pytest.raises(BadStore, match=key):
            list(store.damaged())


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BadInput, match=r"s\.h5: cannot be written \(No space left on device\).* GB"):
        create(tmp_path / "s.h5", LAYOUT, table(6), ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_a_store_that_another_process_creates_is_left_to_it(tmp_path: Path) -> None:
    held = tmp_path / ".s.h5.new"
    with held.open("wb") as file:
        file.write(b"of another process")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="in another process"):
            create(tmp_path / "s.h5", LAYOUT, table(6), ATTRIBUTES)
        assert held.read_bytes() == b"of another process"
    write(tmp_path / "s.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_what_a_kill_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".s.h5.new").write_bytes(b"junk" * 10_000)
    write(tmp_path / "s.h5")
    write(tmp_path / "t.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "t.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "t.h5"]


# ---- what it tells


@given(seed=st.integers(0, 99), n=st.integers(1, 12), dtype=st.sampled_from(["uint8", "uint16", "float32"]))
def test_statistics_are_numpys_over_the_train_split(tmp_path: Path, seed: int, n: int, dtype: str) -> None:
    layout = Layout(
        (Plane("data_10m", BANDS[:3], 5, dtype), Plane("data_20m", BANDS[3:4], 2, dtype)),
        CLASSES,
        "c",
        multi_label=True,
    )
    rng = np.random.default_rng(seed)
    splits = [SPLITS[k] for k in rng.integers(0, 4, n)]
    columns = write(tmp_path / "s.h5", layout, n, splits=splits, bad=[0])
    chosen = [k for k in range(1, n) if splits[k] == "train"]
    found = open_store(tmp_path / "s.h5").statistics
    if not chosen:
        assert found == {}
        return
    for plane in layout.planes:
        for b, band in enumerate(plane.bands):
            values = columns[plane.key][chosen, b].astype(np.float64)
            assert found[band] == pytest.approx((values.mean(), values.std()), rel=1e-12)


def test_statistics_of_large_numbers_are_exact(tmp_path: Path) -> None:
    """The sum of squares of 30 patches of 120×120 px at 60,000 and one: float32, or a naive float64 variance, would lose it."""
    layout = Layout((Plane("data_10m", ("B02",), 120),), CLASSES, "c", multi_label=True)
    n = 30
    create(tmp_path / "s.h5", layout, table(n, ["train"]), ATTRIBUTES)
    pixels = np.full((n, 1, 120, 120), 60_000, np.uint16)
    pixels[7, 0, 3, 4] = 60_001
    columns = content(layout, n) | {"data_10m": pixels, "moments": moments([pixels])}
    writer = Writer(tmp_path / "s.h5")
    writer.put(0, columns)
    writer.finish()
    writer.close()
    mean, std = open_store(tmp_path / "s.h5").statistics["B02"]
    count = pixels.size
    assert mean == pytest.approx(60_000 + 1 / count, rel=1e-15)
    assert std == pytest.approx((1 / count - 1 / count**2) ** 0.5, rel=1e-12)


def test_patches_splits_and_columns(tmp_path: Path) -> None:
    write(tmp_path / "s.h5", n=7, splits=("train", "val", "none"), bad=[3])
    store = open_store(tmp_path / "s.h5")
    assert len(store) == 6
    assert store.patches("train").tolist() == [0, 6]
    assert store.patches("val").tolist() == [1, 4]
    assert store.split_sizes() == {"none": 2, "train": 2, "val": 2}
    assert (store.has_split("val"), store.has_split("test")) == (True, False)
    assert store.column("name").tolist() == [f"pätch_{k}" for k in range(7)]
    assert store.column("snow").tolist() == [1, 0, 0, 1, 0, 0, 1]
    with pytest.raises(BadStore, match=r"no patch of the split 'test'; it has 2 none, 2 train, 2 val"):
        store.patches("test")
    with pytest.raises(UnknownName, match="did you mean train"):
        store.patches("trian")
    assert [p.key for p in store.planes_for(["B04"])] == ["data_60m"]
    assert [p.key for p in store.planes_for(["B04", "B01"])] == ["data_10m", "data_60m"]
    with pytest.raises(BadStore, match="lacks B08, B07; it has B01, B02, B03, B04, B05"):
        store.planes_for(["B01", "B08", "B07"])


def test_info(tmp_path: Path, cli: Cli) -> None:
    columns = write(tmp_path / "s.h5", n=7, bad=[3])
    answer = cli("info", tmp_path / "s.h5", "--json")
    summary = answer.json
    assert summary == open_store(tmp_path / "s.h5").summary()
    assert summary["patches"] == 6
    assert summary["skipped"] == 1
    assert summary["splits"] == {"train": 2, "val": 2, "test": 2}
    assert summary["bands"] == ["B01", "B02", "B03", "B04", "B05"]
    assert summary["classes"] == list(CLASSES)
    assert summary["side"] == 4
    assert summary["planes"]["data_60m"] == [7, 2, 2, 2]
    kept = np.delete(columns["classes"], 3, axis=0)
    assert summary["counts"] == dict(zip(CLASSES, kept.sum(0).tolist(), strict=True))
    assert set(summary["statistics"]) == set(summary["bands"])
    assert summary["bytes"] == (tmp_path / "s.h5").stat().st_size
    assert answer.lines == []
    assert "6 patches" in cli("info", tmp_path / "s.h5").out


def test_a_store_without_a_train_split(tmp_path: Path, cli: Cli) -> None:
    write(tmp_path / "s.h5", splits=("test",))
    assert open_store(tmp_path / "s.h5").statistics == {}
    assert cli("info", tmp_path / "s.h5", "--json").json["splits"] == {"test": 6}
    assert cli("info", tmp_path / "s.h5").code == 0
    assert cli("verify", tmp_path / "s.h5").code == 0


# ---- verify


def ranges(path: Path) -> dict[str, tuple[int, int]]:
    """Where each dataset lies, and how many bytes a patch has in it."""
    with h5py.File(path, "r") as file:
        return {k: (file[k].id.get_offset(), file[k].id.get_storage_size() // file[k].shape[0]) for k in file}


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))


BY_PATCH = (
    "data_10m data_60m classes name split tile crs date country origin snow cloud moments checksum seal".split()  # noqa: SIM905
)


@pytest.fixture
def flipped(tmp_path: Path) -> Callable[[int, int], Path]:
    """A store with one bit flipped."""
    write(tmp_path / "good.h5", bad=[4])
    good = (tmp_path / "good.h5").read_bytes()

    def make(at: int, bit: int) -> Path:
        path = tmp_path / "flipped.h5"
        path.write_bytes(good)
        flip(path, at, bit)
        return path

    return make


@settings(max_examples=200)
@given(
    key=st.sampled_from(BY_PATCH),
    patch=st.sampled_from([0, 1, 2, 3, 5]),
    where=st.integers(0, 2**20),
    bit=st.integers(0, 7),
)
def test_verify_names_the_patch_of_any_flipped_bit(
    flipped: Callable[[int, int], Path], tmp_path: Path, key: str, patch: int, where: int, bit: int
) -> None:
    begin, each = ranges(tmp_path / "good.h5")[key]
    path = flipped(begin + patch * each + where % each, bit)
    assert [i for i, damaged in open_store(path).damaged() if damaged] == [patch]


@pytest.mark.parametrize("bit", range(8))
@pytest.mark.parametrize("patch", [2, 4])
def test_verify_sees_a_flipped_state(flipped: Callable[[int, int], Path], tmp_path: Path, patch: int, bit: int) -> None:
    """A patch must not vanish; patch 4 was left out and must not come back."""
    path = flipped(ranges(tmp_path / "good.h5")["state"][0] + patch, bit)
    try:
        store = open_store(path)
    except BadStore as error:
        assert "pending" in str(error)  # noqa: PT017
        return
    assert [i for i, damaged in store.damaged() if damaged] == [patch]


PIXELS = ("data_10m", "data_60m", "classes")


def everything(path: Path) -> object:
    store = open_store(path)
    with h5py.File(path, "r") as file:
        # What stands in the place of a patch that was left out, here 4, is of no consequence.
        kept = {key: np.delete(file[key][...], 4, axis=0) if key in PIXELS else file[key][...] for key in file}
    columns = {key: values.tobytes() for key, values in kept.items() if key != "seal"}
    return store.layout, store.statistics, store.attributes, columns


@settings(max_examples=300)
@given(at=st.integers(0, 2**20), bit=st.integers(0, 7))
def test_no_flipped_bit_of_the_whole_file_changes_anything_unnoticed(
    flipped: Callable[[int, int], Path], tmp_path: Path, at: int, bit: int
) -> None:
    """HDF5's own structures and our texts included: it is refused, or found by verify, or of no consequence."""
    path = flipped(at % (tmp_path / "good.h5").stat().st_size, bit)
    try:
        noticed = any(damaged for _, damaged in open_store(path).damaged())
    except BadStore:
        return
    if not noticed:
        assert everything(path) == everything(tmp_path / "good.h5")


def test_the_command_names_the_patches_and_ends_with_1(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    good = cli("verify", path, "--json")
    assert (good.code, good.json["patches"], good.json["damaged"]) == (0, 6, [])
    assert good.lines == []
    places = ranges(path)
    flip(path, places["data_10m"][0] + 3 * places["data_10m"][1] + 5, 3)
    flip(path, places["classes"][0] + 1 * places["classes"][1], 0)
    bad = cli("verify", path, "--json")
    assert (bad.code, bad.json["damaged"]) == (1, ["pätch_1", "pätch_3"])
    text = cli("verify", path)
    assert text.code == 1
    assert "damaged: pätch_3" in text.out.splitlines()


def test_damaged_statistics_are_refused_by_verify(tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "s.h5"
    write(path)
    flip(path, ranges(path)["statistics"][0], 0)
    answer = cli("verify", path)
    assert answer.code == 2
    assert answer.lines == [f"landscale: {path}: its statistics are damaged; prepare it again"]


@pytest.mark.parametrize("text", [b"forest", b"a plan", b"tests"])
def test_damaged_texts_are_refused_on_opening(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    at = path.read_bytes().index(b'"' + text if text == b"forest" else text) + 2
    flip(path, at, 0)
    assert "checksum" in refused(path)


@given(
    n=st.integers(1, 5),
    bands=st.integers(1, 3),
    side=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "uint16", "float32"]),
    seed=st.integers(0, 9),
)
def test_moments_are_each_patchs_own(n, bands, side, dtype, seed):
    rng = np.random.default_rng(seed)
    plane = rng.uniform(0, 255 if dtype == "uint8" else 65535, (n, bands, side, side)).astype(dtype)
    other = plane[:, :1]
    found = moments([plane, other])
    assert found.shape == (n, bands + 1, 2)
    values = plane.astype(np.float64)
    expected = np.stack([values.sum((2, 3)), np.square(values).sum((2, 3))], axis=2)
    np.testing.assert_allclose(found[:, :bands], expected, rtol=0 if dtype[0] == "u" else 1e-13)
    np.testing.assert_array_equal(found[:, bands:], found[:, :1])
    for i in range(n):
        np.testing.assert_array_equal(moments([plane[i : i + 1]])[0], found[i, :bands])


def test_moments_of_the_largest_numbers_are_exact():
    found = moments([np.full((1, 1, 300, 300), 65535, np.uint16)])
    assert found.tolist() == [[[90_000 * 65535, 90_000 * 65535**2]]]
