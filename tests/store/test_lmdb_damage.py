"""Damage in an LMDB environment is refused, if it changes lengths or headers."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from archives import GSD, metadata, pixels
from conftest import Cli
from landscale.datasets.bigearthnet.lmdb import survey
from landscale.errors import BadInput, BadStore, LandscaleError
from landscale.formats import tables
from landscale.preparation import prepare_survey
from landscale.store import open_store
from landscale.store.lmdb import LmdbEnvironment
from landscale.store.planes import SENTINEL2
from landscale.store.safetensor import SafetensorsDecoder
from lmdbs import PATCHES, WORDS, check_message, put, refused, value


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
    """Values that the safetensors library refuses are refused, others are read alike; twice, as known headers are not parsed."""
    decoder, content = SafetensorsDecoder(SENTINEL2), value(PATCHES[0])
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
    "with a large header": (
        struct.pack("<Q", 2_000_000) + b" " * 2_000_000,
        "has a header of 2,000,000 bytes, expected",
    ),
    "with too few bytes": (header(B02=("U16", [120, 120], [0, 800])) + bytes(800), "B02 in 800 bytes, expected 28800"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_value_is_named(case: str, lmdb_copy: Path, tmp_path: Path, cli: Cli) -> None:
    content, said = DAMAGED[case]
    victim = next(p for p in PATCHES if p.split == "test")
    put(lmdb_copy, {victim.v2: content})
    store = open_store(lmdb_copy)
    with pytest.raises(BadStore) as error:
        store.pixels("data_10m", store.patches("test"))
    check_message(error.value, lmdb_copy, victim.v2, said)
    assert not np.isnan(store.pixels("data_10m", store.patches("train"))).any()
    answer = cli("verify", lmdb_copy)
    assert answer.code == 1
    assert f"damaged: {victim.v2}\n" in answer.out
    with pytest.raises(LandscaleError) as error:
        prepare_survey(survey([(None, lmdb_copy)]), tmp_path / "s.h5")
    check_message(error.value, lmdb_copy, victim.v2, said)
    outcome = prepare_survey(survey([(None, lmdb_copy)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == [victim.v2]


def test_a_truncated_environment_is_refused_before_it_is_mapped(reben_lmdb: Path, lmdb_copy: Path, cli: Cli) -> None:
    """LMDB would map pages beyond the end of the file, and SIGBUS would end the process."""
    whole = (reben_lmdb / "data.mdb").stat().st_size
    for length in (0, 10, 100, 4096, 5000, 8192, whole // 2, whole - 4096, whole - 1):
        (lmdb_copy / "data.mdb").unlink()
        shutil.copy(reben_lmdb / "data.mdb", lmdb_copy)
        os.truncate(lmdb_copy / "data.mdb", length)
        answer = cli("verify", lmdb_copy)
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert str(lmdb_copy) in answer.lines[0]
        assert ("is truncated" if length >= 100 else "is not an LMDB environment") in answer.lines[0]


def test_damaged_pages(reben_lmdb: Path, lmdb_copy: Path) -> None:
    """A flipped bit in a page of the tree is refused or has no effect. Each is tried in a process of its own, as LMDB is in C."""
    raw = (reben_lmdb / "data.mdb").read_bytes()
    starts = range(0, len(raw), 4096)
    tree = [s for s in starts if raw[s : s + 8] == struct.pack("<Q", s // 4096) and raw[s + 10] in (1, 2, 8)]
    assert len(tree) >= 3
    rng = random.Random(1)
    codes = []
    for _ in range(40):
        data = bytearray(raw)
        data[rng.choice(tree) + rng.randrange(128)] ^= 1 << rng.randrange(8)
        (lmdb_copy / "data.mdb").unlink()
        (lmdb_copy / "data.mdb").write_bytes(data)
        child = os.fork()
        if not child:
            try:
                os._exit(int(any(bad for _, bad in open_store(lmdb_copy).damaged())))
            except LandscaleError:
                os._exit(2)
            except BaseException:
                os._exit(3)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert set(codes) <= {0, 1, 2}
    assert codes.count(2) > 5


def test_pages_are_checked_before_lmdb_reads_them(reben_lmdb: Path, lmdb_copy: Path) -> None:
    """Nothing but an error comes from a tree of which bytes were changed; the keys of one that is taken lie inside the file."""
    environment = LmdbEnvironment(lmdb_copy)
    with environment.reading() as transaction:
        expected = {bytes(key) for key in transaction.cursor().iternext(keys=True, values=False)}
    assert environment.keys() == expected
    raw = (reben_lmdb / "data.mdb").read_bytes()
    tree = [s for s in range(8192, len(raw), 4096) if raw[s + 10] in (1, 2) and not raw[s + 11]]
    rng = random.Random(2)
    refusals = 0
    for _ in range(150):
        data = bytearray(raw)
        at = rng.choice(tree) + rng.randrange(60)
        data[at] = rng.choice([data[at] ^ 1 << rng.randrange(8), 0, 255])
        (lmdb_copy / "data.mdb").write_bytes(data)
        try:
            LmdbEnvironment(lmdb_copy).keys()
        except BadStore as error:
            assert "is a damaged LMDB environment: it has a damaged" in str(error)  # noqa: PT017
            refusals += 1
    assert 30 < refusals < 150


CRAFTED = {  # by name: the change of a page, from its byte 8 on
    "a value beyond the file": ("leaf", lambda page, node: struct.pack_into("<Q", page, _value(page, node), 10**6)),
    "a value that ends beyond the file": ("leaf", lambda page, node: struct.pack_into("<HH", page, node, 0, 60000)),
    "a value inside a page beyond its end": ("leaf", lambda page, node: struct.pack_into("<H", page, node + 4, 0)),
    "a table in a value": ("leaf", lambda page, node: struct.pack_into("<H", page, node + 4, 2)),
    "a long key": ("leaf", lambda page, node: struct.pack_into("<H", page, node + 6, 65535)),
    "a node outside the page": ("leaf", lambda page, node: struct.pack_into("<H", page, 16, 65000)),
    "many nodes": ("leaf", lambda page, node: struct.pack_into("<H", page, 12, 65000)),
    "a page of another kind": ("leaf", lambda page, node: struct.pack_into("<H", page, 10, 0x22)),
    "a child beyond the file": ("branch", lambda page, node: struct.pack_into("<HHH", page, node, 0, 9, 9)),
    "a circle": ("branch", lambda page, node: struct.pack_into("<HHH", page, node, *_number(page), 0)),
}


def _value(page: bytearray, node: int) -> int:
    return node + 8 + struct.unpack_from("<H", page, node + 6)[0]


def _number(page: bytearray) -> tuple[int, int]:
    return struct.unpack_from("<HH", page)


@pytest.fixture(scope="module")
def two_levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment whose tree has a branch page, and values in pages of their own."""
    path = tmp_path_factory.mktemp("levels") / "lmdb"
    put(path, {f"{k:0100d}": bytes(3000) for k in range(100)})
    return path


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted_pages_are_refused(case: str, two_levels: Path, tmp_path: Path) -> None:
    kind, change = CRAFTED[case]
    shutil.copytree(two_levels, tmp_path / "lmdb")
    assert len(LmdbEnvironment(two_levels).keys()) == 100
    data = bytearray((two_levels / "data.mdb").read_bytes())
    root = LmdbEnvironment(two_levels)._pages.root
    (first,) = struct.unpack_from("<H", data, root * 4096 + 16)
    (leaf,) = struct.unpack_from("<H", data, root * 4096 + first)
    start = 4096 * (root if kind == "branch" else leaf)
    page = data[start : start + 4096]
    change(page, struct.unpack_from("<H", page, 16)[0])
    assert page != data[start : start + 4096]
    data[start : start + 4096] = page
    (tmp_path / "lmdb" / "data.mdb").write_bytes(data)
    with pytest.raises(BadStore, match="is a damaged LMDB environment: it"):
        LmdbEnvironment(tmp_path / "lmdb").keys()


def test_an_environment_that_changes_while_it_is_read_is_refused(lmdb_copy: Path) -> None:
    store = open_store(lmdb_copy)
    rows = store.patches("train")
    store.pixels("data_10m", rows)
    with (lmdb_copy / "data.mdb").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) // 2)
    with pytest.raises(BadStore, match="was changed or replaced while it was being read; start again"):
        store.pixels("data_10m", rows)


def test_metadata_that_would_fill_the_memory_are_refused(lmdb_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROWS", 10)
    refused(lmdb_copy, lmdb_copy / "metadata.parquet", "has 16 rows and", "expected at most 10 rows")
    (lmdb_copy / "metadata.parquet").unlink()
    os.mkfifo(lmdb_copy / "metadata.parquet")
    refused(lmdb_copy, "is an LMDB environment without metadata.parquet")


def test_bad_input(lmdb_copy: Path, tmp_path: Path, cli: Cli) -> None:
    assert cli("train", "--store", lmdb_copy, "--labels=clc43", "--run", tmp_path / "r", *WORDS).code == 2
    with pytest.raises(BadInput, match="unknown class of clc43"):
        survey([(None, lmdb_copy)], "clc43")
    metadata(PATCHES).iloc[:0].to_parquet(lmdb_copy / "metadata.parquet")
    refused(lmdb_copy, lmdb_copy, "holds none of the 0 patches")
    (lmdb_copy / "metadata.parquet").write_bytes(b"PAR1")
    refused(lmdb_copy, lmdb_copy / "metadata.parquet", "is not the metadata of BigEarthNet v2")
    (lmdb_copy / "metadata.parquet").unlink()
    for words in (("verify", lmdb_copy), ("train", "--store", lmdb_copy, "--run", tmp_path / "r", *WORDS)):
        answer = cli(*words)
        assert answer.code == 2
        assert len(answer.lines) == 1
        assert answer.lines[0].startswith(f"landscale: {lmdb_copy}: is an LMDB environment without metadata.parquet")
    assert not (tmp_path / "r").exists()
    (lmdb_copy / "data.mdb").write_bytes(b"text " * 2000)
    refused(lmdb_copy, lmdb_copy, "is not an LMDB environment in the byte order of this machine")
    (lmdb_copy / "data.mdb").unlink()
    refused(lmdb_copy, lmdb_copy, "is not a file, expected a patch store")
    with pytest.raises(BadInput, match=r"is no LMDB environment: expected a folder that contains data\.mdb"):
        survey([(None, lmdb_copy)])
