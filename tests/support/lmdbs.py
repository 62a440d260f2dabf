"""LMDB environments as rico-hdl writes them, and helpers for errors."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from archives import GSD, Patch, metadata, pixels
from landscale.errors import LandscaleError
from landscale.store import lmdb as lmdb_environments
from landscale.store import open_store

PATCHES = [Patch(k) for k in range(16)]
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
    lmdb_environments._ENVIRONMENTS.close()  # LMDB allows one open environment of a file per process
    try:
        with lmdb.open(str(path), map_size=1 << 28, subdir=subdir) as environment, environment.begin(write=True) as t:
            for key, content in values.items():
                t.put(key.encode(), content)
    finally:
        lmdb_environments._ENVIRONMENTS.resume()


def write(path: Path, s2: Sequence[Patch] = PATCHES, s1: Sequence[Patch] = (), *, subdir: bool = True) -> Path:
    """Write an environment as rico-hdl does, and the metadata of all PATCHES in the same folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, {p.v2: value(p) for p in s2} | {s1_name(p): s1_value(p) for p in s1}, subdir=subdir)
    metadata(PATCHES).to_parquet((path if subdir else path.parent) / "metadata.parquet", index=False)
    return path


@pytest.fixture(scope="session")
def reben_lmdb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lmdb") / "Encoded-BigEarthNet")


@pytest.fixture
def lmdb_copy(reben_lmdb: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reben_lmdb, tmp_path / "copy"))


@pytest.fixture(scope="session")
def lmdb_of_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("lmdb") / "both", PATCHES, PATCHES)


WORDS = ["--model=wide_resnet", "--options={width: 0.5}", "--side=12", "--epochs=2", "--batch=4", "--precision=fp32"]


def refused(path: Path, *parts: object) -> str:
    """Assert that a store cannot be opened, with a one-line message that contains the parts; returns it."""
    with pytest.raises(LandscaleError) as error:
        open_store(path)
    return check_message(error.value, *parts)


def check_message(error: LandscaleError, *parts: object) -> str:
    """Assert that an error's message is one line that contains the parts; returns it."""
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text
    return text
