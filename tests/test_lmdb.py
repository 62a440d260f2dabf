"""The published LMDB of BigEarthNet v2: read as a store it is what the prepared store is, and nothing damaged passes."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from archives import GSD, Patch, metadata, pixels, write_v2
from conftest import Cli
from landscale.batches import batches
from landscale.errors import BadInput, BadStore, LandscaleError
from landscale.prepare import prepare
from landscale.sources import bigearthnet
from landscale.sources.lmdb import survey
from landscale.store import PatchStore, open_store
from landscale.store import lmdb as room
from landscale.store.planes import SENTINEL2
from landscale.store.safetensor import Decoder
from landscale.store.statistics import TrainStatistics

PATCHES = [Patch(k) for k in range(16)]
CPU = torch.device("cpu")
S1 = ("VV", "VH")


def radar(k: int, band: str) -> NDArray[np.float32]:
    rng = np.random.default_rng([k, zlib.crc32(band.encode())])
    return (rng.standard_normal((120, 120)) * 5 - 15).astype(np.float32)


def s1_name(patch: Patch) -> str:
    return str(metadata([patch])["s1_name"][0])


def value(patch: Patch) -> bytes:
    return safetensors.numpy.save({band: pixels(patch.k, band) for band in GSD})


def s1_value(patch: Patch) -> bytes:
    return safetensors.numpy.save({band: radar(patch.k, band) for band in S1})


def put(path: Path, values: dict[str, bytes], *, subdir: bool = True) -> None:
    room._OPEN.close()  # LMDB opens an environment once in a process
    try:
        with lmdb.open(str(path), map_size=1 << 28, subdir=subdir) as environment, environment.begin(write=True) as t:
            for key, content in values.items():
                t.put(key.encode(), content)
    finally:
        room._OPEN.resume()


def write(path: Path, s2: Sequence[Patch] = PATCHES, s1: Sequence[Patch] = (), *, subdir: bool = True) -> Path:
    """An environment as rico-hdl writes it, and the metadata of all PATCHES beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, {p.v2: value(p) for p in s2} | {s1_name(p): s1_value(p) for p in s1}, subdir=subdir)
    metadata(PATCHES).to_parquet((path if subdir else path.parent) / "metadata.parquet", index=False)
    return path


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lmdb") / "Encoded-BigEarthNet")


@pytest.fixture
def copy(encoded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoded, tmp_path / "copy"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lmdb") / "both", PATCHES, PATCHES)


def prepared(path: Path, store: Path) -> PatchStore:
    prepare(survey([(None, path)]), store)
    return open_store(store)


def same(store: PatchStore, other: PatchStore) -> None:
    """Demand that two stores hold the same patches, in the same order, bit by bit."""
    assert store.layout == other.layout
    assert store.split_sizes() == other.split_sizes()
    for key in ("name", "split", "tile", "date", "country", "snow", "cloud", "state", "crs", "nodata_share"):
        assert np.array_equal(store.column(key), other.column(key), equal_nan=key.endswith("share")), key
    assert np.array_equal(store.classes, other.classes)
    rows = np.arange(len(store.states))
    for plane in store.layout.planes:
        assert np.array_equal(store.pixels(plane.key, rows), other.pixels(plane.key, rows))
    assert dict(store.statistics) == dict(other.statistics)
    assert len(store.statistics) == len(store.layout.bands)


def refused(path: Path, *said: object) -> str:
    with pytest.raises(LandscaleError) as error:
        open_store(path)
    return tells(error.value, *said)


def tells(error: LandscaleError, *said: object) -> str:
    text = str(error)
    assert "\n" not in text
    for part in said:
        assert str(part) in text, text
    return text


# ---- what it holds


def test_it_is_the_store_that_is_prepared_from_it(encoded: Path, tmp_path: Path) -> None:
    same(open_store(encoded), prepared(encoded, tmp_path / "s.h5"))


def test_it_is_the_archive(encoded: Path, tmp_path: Path) -> None:
    """The same patches as GeoTIFFs, by the reader of those: the road here shares nothing with it."""
    prepare(bigearthnet.survey([(None, write_v2(tmp_path / "v2", PATCHES))]), tmp_path / "v2.h5")
    archive, store = open_store(tmp_path / "v2.h5"), open_store(encoded)
    order = np.argsort(archive.column("name"))
    assert list(store.column("name")) == sorted(p.v2 for p in PATCHES)
    for key in ("name", "split", "tile", "date", "country", "snow", "cloud"):
        assert np.array_equal(store.column(key), archive.column(key)[order]), key
    assert np.array_equal(store.classes, archive.classes[order])
    for plane in store.layout.planes:
        assert np.array_equal(store.pixels(plane.key, np.arange(16)), archive.pixels(plane.key, order))
    assert dict(store.statistics) == archive.statistics


@given(rows=st.lists(st.integers(0, 15), max_size=24), bands=st.sets(st.sampled_from(sorted(GSD)), min_size=1))
@settings(max_examples=40)
def test_batches_are_the_pixels(encoded: Path, rows: list[int], bands: set[str]) -> None:
    store = open_store(encoded)
    numbers = [int(name.rsplit("_", 2)[1]) for name in store.column("name")]
    for batch in batches(store, tuple(bands), store.classes, [np.array(rows, np.int64)], CPU):
        assert bands <= {band for names in batch.planes for band in names}
        assert all(set(names) & bands for names in batch.planes)
        for names, tensor in batch.planes.items():
            expected = [[pixels(numbers[row], band) for band in names] for row in rows]
            assert np.array_equal(tensor.numpy(), np.array(expected, np.uint16).reshape(tensor.shape))
        assert np.array_equal(batch.targets.numpy(), store.classes[rows])


def test_sentinel_1_and_2(both: Path, tmp_path: Path) -> None:
    store = open_store(both)
    assert [p.key for p in store.layout.planes] == ["data_10m", "data_20m", "data_60m", "data_s1"]
    numbers = [int(name.rsplit("_", 2)[1]) for name in store.column("name")]
    expected = np.array([[radar(k, band) for band in S1] for k in numbers])
    assert np.array_equal(store.pixels("data_s1", np.arange(16)), expected)
    assert store.statistics["VV"][0] == pytest.approx(expected[store.patches("train"), 0].mean(dtype=float))
    same(store, prepared(both, tmp_path / "s.h5"))
    assert not any(bad for _, bad in store.damaged())


def test_sentinel_1_alone(tmp_path: Path) -> None:
    store = open_store(write(tmp_path / "s1", [], PATCHES[:5]))
    assert store.layout.bands == S1
    assert list(store.column("name")) == sorted(p.v2 for p in PATCHES[:5])
    same(store, prepared(tmp_path / "s1", tmp_path / "s.h5"))


def test_metadata_that_tells_no_partners(copy: Path) -> None:
    metadata(PATCHES).drop(columns="s1_name").to_parquet(copy / "metadata.parquet")
    assert len(open_store(copy)) == 16


def test_subsets_and_strangers(tmp_path: Path) -> None:
    """Patches that only one side knows are left out; so is one without its partner, where there are both instruments."""
    path = write(tmp_path / "some", PATCHES[2:9], PATCHES[5:12])
    put(path, {"S2A_MSIL2A_20200101T000000_N9999_R000_T33UUP_00_00": b"no tensors", "reference": b""})
    assert list(open_store(path).column("name")) == sorted(p.v2 for p in PATCHES[5:9])
    refused(write(tmp_path / "apart", PATCHES[:4], PATCHES[4:]), tmp_path / "apart", "holds none of the 16 patches")


def test_a_file_without_folder_and_metadata_above(tmp_path: Path, encoded: Path) -> None:
    path = write(tmp_path / "ben.mdb", subdir=False)
    names = sorted(p.v2 for p in PATCHES)
    assert list(open_store(path).column("name")) == names
    folder = tmp_path / "moved"
    folder.mkdir()
    shutil.copy(encoded / "data.mdb", folder)
    assert list(open_store(folder).column("name")) == names


# ---- training and evaluating


WORDS = ["--model=wide_resnet", "--options={width: 0.5}", "--side=12", "--epochs=2", "--batch=4", "--precision=fp32"]
WORDS += ["--bands=B02,B8A,B09", "--warmup-epochs=0.5", "--scale=both", "--select=last"]


def test_a_training_on_it_is_that_on_the_prepared_store(encoded: Path, tmp_path: Path, cli: Cli) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        prepared(encoded, tmp_path / "s.h5")
        found = []
        for store, run in ((encoded, tmp_path / "run-lmdb"), (tmp_path / "s.h5", tmp_path / "run-h5")):
            answer = cli("train", "--store", store, "--run", run, *WORDS)
            assert answer.code == 0, answer.lines
            scored = cli("evaluate", run, store, "--split", "test", "--json")
            assert scored.code == 0, scored.lines
            weights = safetensors.numpy.load_file(run / "weights" / "model.safetensors")
            found.append((weights, scored.json, json.loads((run / "scores.json").read_text())))
    finally:
        torch.set_num_threads(threads)
    (ours, scores, val), (theirs, their_scores, their_val) = found
    assert list(ours) == list(theirs)
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert (scores, val) == (their_scores, their_val)
    assert scores["patches"] == 4


def test_it_goes_on_where_it_was_left_and_knows_its_environment(encoded: Path, copy: Path, both: Path) -> None:
    plans = [open_store(path).attributes["plan"] for path in (encoded, copy, both)]
    assert plans[0] == plans[1] != plans[2]  # an environment may be moved


# ---- statistics


def test_statistics_are_measured_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_store(copy)
    assert first.summary()["statistics"] == {}  # info reads no pixels
    train = first.pixels("data_10m", first.patches("train")).astype(float)
    assert first.statistics["B02"] == pytest.approx((train[:, 0].mean(), train[:, 0].std()))
    kept = copy.with_name("copy.statistics.json")
    assert kept.is_file()
    with monkeypatch.context() as patch:
        patch.setattr(TrainStatistics, "_measure", lambda _: pytest.fail("measured again"))
        assert open_store(copy).statistics == dict(first.statistics)
        assert set(open_store(copy).summary()["statistics"]) == set(GSD)
    put(copy, {PATCHES[0].v2: value(PATCHES[1])})  # of the train split: they no longer hold
    second = open_store(copy)
    assert second.summary()["statistics"] == {}
    assert second.statistics["B02"] != first.statistics["B02"]
    for text in ("", "{}", "[1]", '{"plan": 3', kept.read_text().replace("]", "", 1), '{"plan": "x", "statistics": 3}'):
        kept.write_text(text)
        assert open_store(copy).statistics == second.statistics


def test_where_nothing_can_be_written(copy: Path) -> None:
    (copy.parent / "copy.statistics.json").mkdir()
    for file in copy.iterdir():
        file.chmod(0o444)
    copy.chmod(0o555)
    before = sorted(copy.parent.rglob("*"))
    store = open_store(copy)
    assert len(store.statistics) == 12
    assert store.statistics["B02"][1] > 0
    assert sorted(copy.parent.rglob("*")) == before  # neither lock nor leftovers
    copy.chmod(0o755)


# ---- processes and threads


def test_threads_and_forks(encoded: Path) -> None:
    """Forks while threads read: neither side waits for ever, uses the other's environment, or sees wrong pixels."""
    store = open_store(encoded)
    expected = store.pixels("data_20m", np.arange(16))
    ended, wrong = threading.Event(), []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not ended.is_set():
            rows = rng.integers(0, 16, 8)
            if not np.array_equal(store.pixels("data_20m", rows), expected[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    codes = []
    try:
        for _ in range(10):
            child = os.fork()
            if not child:
                opened = len(room._OPEN._by_file)
                right = np.array_equal(store.pixels("data_20m", np.arange(16)), expected)
                os._exit(0 if right and not opened else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert codes == [0] * 10
    assert not wrong
    assert room._OPEN._readers == 0


def test_it_crosses_to_other_processes_closed(encoded: Path) -> None:
    store = open_store(encoded)
    store.pixels("data_60m", np.arange(3))
    content = pickle.dumps(store)
    assert len(content) < 100_000
    same(pickle.loads(content), store)
    reader = survey([(None, encoded)]).read
    assert len(pickle.dumps(reader)) < 10_000


# ---- damage


def mutated(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content)
    header = 8 + struct.unpack_from("<Q", data)[0]
    match rng.randrange(8):
        case 0:
            return bytes(data[: rng.randrange(len(data))])
        case 1:
            return bytes(data + rng.randbytes(rng.randrange(1, 9)))
        case 2:
            at = rng.randrange(header)
            del data[at : at + rng.randrange(1, 9)]
        case 3:
            at = rng.randrange(header)
            data[at:at] = rng.randbytes(rng.randrange(1, 4))
        case 4:
            struct.pack_into(
                "<Q", data, 0, rng.choice([0, 1, header, 2**63, 2**64 - 1, len(data), rng.randrange(3000)])
            )
        case 5:
            at = rng.randrange(len(data))
            data[at] ^= 1 << rng.randrange(8)
        case 6:
            at = rng.randrange(header)
            data[at] = rng.choice(b'0123456789[]{},:"')
        case _:
            at = rng.randrange(header)
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_2000_mutated_values_against_safetensors() -> None:
    """What safetensors refuses is refused; what both read is the same. Twice, as a header that is known is not parsed."""
    decoder, content = Decoder(SENTINEL2), value(PATCHES[0])
    rng = random.Random(0)
    into = {p.key: np.zeros((2, *p.shape), p.dtype) for p in SENTINEL2}
    flat = {key: plane.data.cast("B") for key, plane in into.items()}
    refusals = 0
    for k in range(2000):
        bad = mutated(rng, content)
        try:
            expected = safetensors.numpy.load(bad)
        except Exception:
            expected = None
        for row in range(2):
            try:
                decoder.copy(memoryview(bad), flat, row)
            except ValueError:
                refusals += not row
                continue
            assert expected is not None, f"mutation {k} was taken"
            for plane in SENTINEL2:
                for b, band in enumerate(plane.bands):
                    assert np.array_equal(into[plane.key][row, b], expected[band]), f"mutation {k}"
        decoder.copy(memoryview(content), flat, 0)
    assert 1500 < refusals < 2000


def header(**tensors: tuple[str, list[int], list[int]]) -> bytes:
    content = {band: {"dtype": d, "shape": s, "data_offsets": o} for band, (d, s, o) in tensors.items()}
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def without(band: str, **instead: NDArray[np.generic]) -> bytes:
    bands = {b: pixels(0, b) for b in GSD if b != band}
    return safetensors.numpy.save({**bands, **instead})


DAMAGED = {
    "empty": (b"", "has 0 bytes, too few for a header"),
    "truncated": (value(PATCHES[0])[:-2], "bytes, its header announces"),
    "too long": (value(PATCHES[0]) + b"\0", "bytes, its header announces"),
    "text": (b"not a patch at all, but text", "too few for a header of safetensors"),
    "a header without end": (struct.pack("<Q", 2**64 - 1) + b"{}", "too few for a header"),
    "no JSON": (struct.pack("<Q", 4) + b"{{{{", "its header is damaged"),
    "a deep header": (struct.pack("<Q", 90_000) + b"[" * 90_000, "its header is damaged"),
    "a list": (struct.pack("<Q", 2) + b"[]", "its header is damaged"),
    "nothing": (struct.pack("<Q", 2) + b"{}", "lacks B02; it has nothing"),
    "without a band": (without("B8A"), "lacks B8A; it has"),
    "of another size": (without("B05", B05=pixels(0, "B02")), "has B05 of U16 [120, 120], expected U16 [60, 60]"),
    "of another type": (without("B05", B05=pixels(0, "B05").astype(np.int16)), "has B05 of I16 [60, 60], expected U16"),
    "overlapping": (header(B02=("U16", [120, 120], [0, 28800]), B03=("U16", [120, 120], [0, 28800])), "overlap"),
    "with a gap": (header(B02=("U16", [120, 120], [8, 28808])) + bytes(28808), "leave a gap"),
    "with too few bytes": (header(B02=("U16", [120, 120], [0, 800])) + bytes(800), "B02 in 800 bytes, expected 28800"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_value_is_named(case: str, copy: Path, tmp_path: Path, cli: Cli) -> None:
    content, said = DAMAGED[case]
    victim = next(p for p in PATCHES if p.split == "test")
    put(copy, {victim.v2: content})
    store = open_store(copy)
    with pytest.raises(BadStore) as error:
        store.pixels("data_10m", store.patches("test"))
    tells(error.value, copy, victim.v2, said)
    assert not np.isnan(store.pixels("data_10m", store.patches("train"))).any()
    answer = cli("verify", copy)
    assert answer.code == 1
    assert f"damaged: {victim.v2}\n" in answer.out
    with pytest.raises(LandscaleError) as error:
        prepare(survey([(None, copy)]), tmp_path / "s.h5")
    tells(error.value, copy, victim.v2, said)
    outcome = prepare(survey([(None, copy)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == [victim.v2]


def test_a_truncated_environment_is_refused_before_it_is_mapped(encoded: Path, copy: Path, cli: Cli) -> None:
    """LMDB would map what is not there, and the process would die of it."""
    whole = (encoded / "data.mdb").stat().st_size
    for length in (0, 10, 100, 4096, 5000, 8192, whole // 2, whole - 4096, whole - 1):
        (copy / "data.mdb").unlink()
        shutil.copy(encoded / "data.mdb", copy)
        os.truncate(copy / "data.mdb", length)
        answer = cli("verify", copy)
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert str(copy) in answer.lines[0]
        assert ("is truncated" if length >= 100 else "is no LMDB environment") in answer.lines[0]


def test_pages_that_are_damaged(encoded: Path, copy: Path) -> None:
    """Bits flipped in the tree's pages are refused or in what is not used, each in a process of its own: LMDB is in C.

    It has assertions of its own, which abort after 3 of 1,500 flips there; none of these 40 is one.
    """
    raw = (encoded / "data.mdb").read_bytes()
    starts = range(0, len(raw), 4096)
    tree = [s for s in starts if raw[s : s + 8] == struct.pack("<Q", s // 4096) and raw[s + 10] in (1, 2, 8)]
    assert len(tree) >= 3
    rng = random.Random(1)
    codes = []
    for _ in range(40):
        data = bytearray(raw)
        data[rng.choice(tree) + rng.randrange(128)] ^= 1 << rng.randrange(8)
        (copy / "data.mdb").unlink()
        (copy / "data.mdb").write_bytes(data)
        child = os.fork()
        if not child:
            try:
                os._exit(int(any(bad for _, bad in open_store(copy).damaged())))
            except LandscaleError:
                os._exit(2)
            except BaseException:
                os._exit(3)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert set(codes) <= {0, 1, 2}
    assert codes.count(2) > 5


def test_bad_input(copy: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("train", "--store", copy, "--labels=clc43", "--run", tmp_path / "r", *WORDS).code == 2
    with pytest.raises(BadInput, match="unknown class of clc43"):
        survey([(None, copy)], "clc43")
    metadata(PATCHES).iloc[:0].to_parquet(copy / "metadata.parquet")
    refused(copy, copy, "holds none of the 0 patches")
    (copy / "metadata.parquet").write_bytes(b"PAR1")
    refused(copy, copy / "metadata.parquet", "is not the metadata of BigEarthNet v2")
    (copy / "metadata.parquet").unlink()
    for words in (("verify", copy), ("train", "--store", copy, "--run", tmp_path / "r", *WORDS)):
        answer = cli(*words)
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert answer.lines[0].startswith(f"landscale: {copy}: is an LMDB environment without metadata.parquet")
    assert not (tmp_path / "r").exists()
    (copy / "data.mdb").write_bytes(b"text " * 2000)
    refused(copy, copy, "is no LMDB environment of this machine's byte order")
    (copy / "data.mdb").unlink()
    refused(copy, copy, "is no file, expected a patch store")
    with pytest.raises(BadInput, match=r"is no LMDB environment: expected a folder with data\.mdb"):
        survey([(None, copy)])


# ---- importing


def test_inputs_with_a_split_and_several(tmp_path: Path, both: Path, encoded: Path) -> None:
    a, b = write(tmp_path / "a", PATCHES[:5]), write(tmp_path / "b", PATCHES[5:9])
    found = survey([(None, a), ("test", b)])
    prepare(found, tmp_path / "s.h5", workers=2)
    store = open_store(tmp_path / "s.h5")
    assert store.split_sizes() == {"train": 3, "val": 1, "test": 5}
    for path in (a, b):
        part = open_store(path)
        rows = np.flatnonzero(np.isin(store.column("name"), part.column("name")))
        for plane in store.layout.planes:
            assert np.array_equal(store.pixels(plane.key, rows), part.pixels(plane.key, np.arange(len(rows))))
    with pytest.raises(BadInput, match="more than once"):
        survey([(None, a), (None, a)])
    with pytest.raises(BadInput, match="has other instruments than"):
        survey([(None, encoded), (None, both)])


def test_prepare_by_the_command(encoded: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("prepare", "lmdb", encoded, tmp_path / "s.h5", "--workers", 2).code == 0
    same(open_store(encoded), open_store(tmp_path / "s.h5"))
    answer = cli("prepare", "lmdb", encoded, tmp_path / "t.h5", "--labels", "clc43")
    assert answer.code == 2
    assert "unknown class of clc43" in answer.lines[0]


def test_info_and_verify_by_the_command(encoded: Path, tmp_path: Path, cli: Cli) -> None:
    prepared(encoded, tmp_path / "s.h5")
    ours, theirs = (cli("info", path, "--json").json for path in (encoded, tmp_path / "s.h5"))
    for key in ("kind", "patches", "splits", "bands", "classes", "side", "planes", "counts", "nomenclature"):
        assert ours[key] == theirs[key], key
    assert "no checksums" in cli("verify", encoded).out


def test_a_summary_is_that_of_the_prepared_store(encoded: Path, tmp_path: Path) -> None:
    ours, theirs = open_store(encoded).summary(), prepared(encoded, tmp_path / "s.h5").summary()
    for key in ("kind", "patches", "splits", "bands", "classes", "side", "planes", "counts", "nomenclature"):
        assert ours[key] == theirs[key], key
    assert list(ours) == list(theirs)
