"""An HDF5 store consists of plain byte ranges, and its bytes do not depend on the processes that write it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Cli
from landscale.errors import BadInput, BadStore, UnknownName
from landscale.store import (
    WHOLE,
    Layout,
    Plane,
    StoreWriter,
    create_store,
    is_environment,
    open_store,
)
from landscale.store.planes import SENTINEL1, SENTINEL2
from tiny import ATTRIBUTES, BANDS, CLASSES, LAYOUT, content, refused, table, write

layouts = st.builds(
    lambda bands, sides, dtype, classes: Layout(
        tuple(
            Plane(f"data_{k}", tuple(f"{BANDS[k]}{b}" for b in range(n)), side, 60 / side, dtype)
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
    assert all(np.array_equal(store.pixels(p.key), expected[p.key]) for p in layout.planes)


@settings(max_examples=30)
@given(data=st.data(), layout=layouts, n=st.integers(1, 9), writers=st.integers(1, 4))
def test_the_file_does_not_depend_on_order_and_number_of_writers(
    tmp_path: Path, data: st.DataObject, layout: Layout, n: int, writers: int
) -> None:
    write(tmp_path / "one.h5", layout, n)
    columns = content(layout, n)
    path = tmp_path / "many.h5"
    create_store(path, layout, table(n), ATTRIBUTES)
    cuts = sorted(data.draw(st.sets(st.integers(1, n), max_size=3)) - {n})
    pieces = data.draw(st.permutations(list(zip([0, *cuts], [*cuts, n], strict=True))))
    pool = [StoreWriter(path) for _ in range(writers)]
    for k, (start, stop) in enumerate(pieces):
        pool[k % writers].put(start, {key: values[start:stop] for key, values in columns.items()})
    pool[-1].finish()
    for writer in pool:
        writer.close()
    assert path.read_bytes() == (tmp_path / "one.h5").read_bytes()


@pytest.mark.skipif(shutil.which("h5dump") is None, reason="h5dump (Debian's hdf5-tools) is not installed")
def test_h5dump_reads_every_dataset_and_attribute(tmp_path: Path) -> None:
    write(tmp_path / "store.h5")
    told = subprocess.run(["h5dump", tmp_path / "store.h5"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (0, "")
    with h5py.File(tmp_path / "store.h5") as file:
        for name in [*file, *file.attrs]:
            assert f'"{name}"' in told.stdout


def test_the_file_does_not_depend_on_the_time(tmp_path: Path) -> None:
    write(tmp_path / "a.h5")
    time.sleep(1.1)  # HDF5 would keep the second in which an object was made
    write(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_space_is_allocated_when_it_is_created(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    create_store(path, LAYOUT, table(5000), ATTRIBUTES)
    size = path.stat().st_size
    assert path.stat().st_blocks * 512 >= size > 5000 * (3 * 16 + 2 * 4) * 2
    writer = StoreWriter(path)
    columns = content(LAYOUT, 5000)
    writer.put(0, columns)
    writer.finish()
    writer.close()
    assert path.stat().st_size == size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5"]


def test_a_state_is_written_after_its_bytes_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.h5"
    create_store(path, LAYOUT, table(6), ATTRIBUTES)
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
    writer = StoreWriter(path)
    writer.put(2, {key: values[2:5] for key, values in content(LAYOUT, 6).items()})
    writer.close()
    assert done == ["bytes"] * (len(done) - 2) + ["sync", "state"]
    assert open_store(path, unfinished=True).states.tolist() == [0, 0, WHOLE, WHOLE, WHOLE, 0]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single write may write fewer bytes than requested."""
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, position: pwrite(handle, data[:7], position))
    expected = write(tmp_path / "s.h5")
    assert np.array_equal(open_store(tmp_path / "s.h5").pixels("data_10m"), expected["data_10m"])


def test_a_store_that_an_earlier_version_has_begun_is_finished(tmp_path: Path) -> None:
    """It keeps its format, which has no digests."""
    path = tmp_path / "s.h5"
    create_store(path, LAYOUT, table(6), ATTRIBUTES)
    with h5py.File(path, "r+") as file:
        del file["digests"]
    rewrite_attribute(path, "format", 3)
    columns = content(LAYOUT, 6)
    with closing(StoreWriter(path)) as writer:
        writer.put(0, columns)
        assert "is unfinished" not in refused(path)  # no pending patch, but no seals yet
        writer.finish()
    assert np.array_equal(open_store(path).classes, columns["classes"])


# ---- what is refused


def test_unfinished_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    create_store(path, LAYOUT, table(6), ATTRIBUTES)
    writer = StoreWriter(path)
    writer.put(1, {key: values[1:3] for key, values in content(LAYOUT, 6).items()})
    writer.close()
    assert "unfinished: 4 of 6 patches are pending" in refused(path)
    assert len(open_store(path, unfinished=True)) == 2
    path.rename(tmp_path / "t.h5.partial")
    assert "t.h5.partial is unfinished" in refused(tmp_path / "t.h5")


def test_truncated_stores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    write(path)
    for length in reversed(range(0, path.stat().st_size, 173)):
        os.truncate(path, length)
        refused(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.h5") == "no such store"
    (tmp_path / "text.h5").write_text("not a store\n")
    assert "not a complete HDF5 patch store" in refused(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data_10m"] = np.zeros((2, 3))
    assert refused(tmp_path / "other.h5") == "is an HDF5 file but not a patch store: it has no attribute layout"
    with h5py.File(tmp_path / "later.h5", "w") as file:
        file.attrs.update(layout="{}", format=99)
    assert refused(tmp_path / "later.h5") == "has format 99, this program reads 2 to 5; prepare it again"
    (tmp_path / "folder.h5").mkdir()
    assert "is not a file" in refused(tmp_path / "folder.h5")


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
        create_store(tmp_path / "s.h5", LAYOUT, table(6), ATTRIBUTES)
    assert not list(tmp_path.iterdir())


def test_a_store_that_another_process_creates_is_not_touched(tmp_path: Path) -> None:
    held = tmp_path / ".s.h5.new"
    with held.open("wb") as file:
        file.write(b"of another process")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="in use by another process"):
            create_store(tmp_path / "s.h5", LAYOUT, table(6), ATTRIBUTES)
        assert held.read_bytes() == b"of another process"
    write(tmp_path / "s.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_the_temporary_file_of_a_killed_process_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".s.h5.new").write_bytes(b"junk" * 10_000)
    write(tmp_path / "s.h5")
    write(tmp_path / "t.h5")
    assert (tmp_path / "s.h5").read_bytes() == (tmp_path / "t.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.h5", "t.h5"]


# ---- columns, splits and summary


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


# ---- ground


def rewrite_attribute(path: Path, key: str, value: object) -> None:
    with h5py.File(path, "r+") as file:
        del file.attrs[key]
        file.attrs[key] = value


@pytest.mark.parametrize(
    ("keys", "sides", "expected"),
    [
        (("data_10m", "data_20m", "data_60m"), (12, 6, 2), (10, 20, 60)),
        (("data_20m", "data_super"), (6, 6), (20, 20)),
        (("data_s1", "data_10m"), (12, 12), (10, 10)),
        (("data_s1",), (12,), (10,)),
    ],
)
def test_a_store_of_format_2_opens_with_the_gsd_of_its_keys(
    tmp_path: Path, keys: tuple[str, ...], sides: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    planes = tuple(
        Plane(key, (BANDS[k],), side, 120 / side) for k, (key, side) in enumerate(zip(keys, sides, strict=True))
    )
    layout = Layout(planes, CLASSES, "custom", multi_label=True)
    columns = write(tmp_path / "s.h5", layout)
    rewrite_attribute(tmp_path / "s.h5", "layout", np.bytes_(json.dumps(layout.identity())))
    rewrite_attribute(tmp_path / "s.h5", "format", 2)
    store = open_store(tmp_path / "s.h5")
    assert tuple(plane.gsd for plane in store.layout.planes) == expected
    assert store.layout.ground == 12 * 10
    assert ({*store.layout.units().values()}, store.layout.level) == ({"unknown"}, "unknown")
    assert all(np.array_equal(store.pixels(key, np.arange(6)), columns[key]) for key in keys)


def test_the_gsd_of_a_store_is_read_back(tmp_path: Path) -> None:
    layout = Layout((Plane("data_10m", ("B02",), 8, 0.3048, "uint8"),), CLASSES, "custom", multi_label=True)
    write(tmp_path / "s.h5", layout)
    found = open_store(tmp_path / "s.h5").layout
    assert (found.planes[0].gsd, found.ground) == (0.3048, 8 * 0.3048)


def test_units_and_level_are_read_back_and_others_are_refused(tmp_path: Path) -> None:
    radar = Plane("data_s1", ("VV", "VH"), 8, 10, "float32", "dB")
    optical = Plane("data_10m", ("B02",), 8, 10, unit="digital number")
    write(tmp_path / "s.h5", Layout((radar, optical), CLASSES, "custom", True, "L1C"))
    found = open_store(tmp_path / "s.h5")
    assert found.layout.units() == {"VV": "dB", "VH": "dB", "B02": "digital number"}
    assert (found.layout.level, found.summary()["units"]) == ("L1C", {"data_s1": "dB", "data_10m": "digital number"})
    with pytest.raises(ValueError, match="unit is 'volt'"):
        Plane("data_10m", ("B02",), 8, 10, unit="volt")  # type: ignore[arg-type]
    layout = json.dumps(found.layout.to_json() | {"level": "L3"})
    rewrite_attribute(tmp_path / "s.h5", "layout", np.bytes_(layout))
    assert "Invalid enum value 'L3'" in refused(tmp_path / "s.h5")


def test_whole_metres_of_ground_are_an_integer() -> None:
    """They are written into the weights' JSON, whose digest must not depend on `1200` or `1200.0`."""
    ground = Layout((Plane("data_60m", ("B01",), 20, 60.0),), CLASSES, "custom", multi_label=True).ground
    assert json.dumps(ground) == "1200"


def test_planes_that_cover_different_squares_are_refused(tmp_path: Path) -> None:
    planes = (Plane("data_10m", ("B02",), 12, 10), Plane("data_20m", ("B05",), 12, 20))
    with pytest.raises(ValueError, match="data_10m 120 m, data_20m 240 m"):
        Layout(planes, CLASSES, "custom", multi_label=True)
    for gsd in (0, -10, float("nan"), float("inf"), "uint16"):
        with pytest.raises(ValueError, match="expected a positive number of metres"):
            Plane("data_10m", ("B02",), 12, gsd)  # type: ignore[arg-type]
    write(tmp_path / "s.h5")
    content = LAYOUT.to_json()
    content["planes"][0]["gsd"] = 11
    rewrite_attribute(tmp_path / "s.h5", "layout", np.bytes_(json.dumps(content)))
    assert "is not a complete HDF5 patch store" in refused(tmp_path / "s.h5")


def test_digests_of_layouts_do_not_depend_on_gsd() -> None:
    """Plans of preparations and checkpoints that began before stores had `gsd` stay valid."""
    layout = Layout(SENTINEL2 + SENTINEL1, ("lake",), "custom", multi_label=True)
    digest = hashlib.sha256(json.dumps(layout.identity()).encode()).hexdigest()
    assert digest == "f7d5681cf7d966fe99668f965b3cd673f69bb75aad0d703cdd0acbe14c59e521"


def test_paths_may_be_text(tmp_path: Path) -> None:
    path = str(tmp_path / "s.h5")
    create_store(path, LAYOUT, table(6), ATTRIBUTES)
    with closing(StoreWriter(path)) as writer:
        writer.put(0, content(LAYOUT, 6))
        writer.finish()
    assert not is_environment(path)
    assert open_store(path).path == Path(path)
    with pytest.raises(BadStore, match="no such store"):
        open_store("none.h5")


def test_unknown_columns_and_planes_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "s.h5")
    store = open_store(tmp_path / "s.h5")
    with pytest.raises(UnknownName, match="unknown column 'nam'; did you mean name"):
        store.column("nam")
    with pytest.raises(UnknownName, match="unknown column 'checksum'"):
        store.column("checksum")
    with pytest.raises(UnknownName, match="unknown plane 'data_20m'; did you mean"):
        store.pixels("data_20m")
    assert np.array_equal(store.pixels("data_10m", [4, 1]), store.pixels("data_10m")[[4, 1]])
