"""Stores: the HDF5 files that `landscale prepare` writes, and published LMDB environments.

Whatever is altered in an HDF5 store must be refused or change no result, with one exception: `info`, `evaluate` and `train` do
not compute the checksums of all pixels, so changed pixels are counted as `valid` there, and must be found by `verify`. An LMDB
has no checksums.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import damage
from archives import Patch
from checkpoints import _weights
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.testing import make_store, rgbn_plane
from landscale.training.recipe import as_yaml
from landscale.vocabulary.nomenclatures import BEN19
from lmdbs import write
from outcomes import Case
from trainings import TINY
from watched import Bait, run
from weights import DESCRIPTION


@dataclass(frozen=True)
class Made:
    stores: dict[str, Path]
    commands: dict[str, list[list[str]]]
    results: dict[str, str]
    pixels: range  # bytes of the HDF5 store that are pixels
    bait: Bait


def make(root: Path, bait: Bait) -> Made:
    stores = {"hdf5": root / "store.h5", "lmdb": root / "lmdb"}
    make_store(stores["hdf5"], planes=rgbn_plane(12), splits={"train": 32, "val": 8, "test": 8}, seed=1)
    write(stores["lmdb"], [Patch(k) for k in range(4)])
    torch.manual_seed(0)
    save_weights(root / "weights", Classifier(DESCRIPTION), {"recipe": "tiny", "scores": {}})
    other = replace(DESCRIPTION, classes=tuple(BEN19.names), nomenclature="ben19", ground=1200, thresholds=(0.5,) * 19)
    save_weights(root / "weights19", Classifier(other), {"recipe": "tiny", "scores": {}})
    (root / "recipe.yaml").write_text(as_yaml(replace(TINY, epochs=1)))
    train = ["train", "--recipe", str(root / "recipe.yaml"), "--store", "store", "--run", "run", "--json"]
    commands = {
        "hdf5": [
            ["info", "store", "--json"],
            *[["verify", "store", "--json"]] * 2,
            *[["evaluate", str(root / "weights"), "store", "--json"]] * 2,
            *[train] * 2,
        ],
        "lmdb": [
            ["info", "store", "--json"],
            ["verify", "store", "--json"],
            ["evaluate", str(root / "weights19"), "store", "--json"],
        ],
    }
    with h5py.File(stores["hdf5"]) as file:
        plane = file["data_10m"]
        start = plane.id.get_offset()
        pixels = range(start, start + plane.size * plane.dtype.itemsize)
    shutil.copy(stores["hdf5"], bait.folder / "store.h5")
    results = {}
    for kind, some in commands.items():
        for words in some:
            if (name := f"{kind} {words[0]}") not in results:
                here = root / "first"
                here.mkdir()
                _copy(stores[kind], here / "store")
                ended = run(words, here, bait)
                assert ended.code == 0, ended
                results[name] = _result(here, ended.out)
                shutil.rmtree(here)
    return Made(stores, commands, results, pixels, bait)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _result(folder: Path, out: str) -> str:
    if (folder / "run").exists():
        return _weights(folder / "run")
    printed = {key: value for key, value in json.loads(out).items() if key != "bytes"}  # of the file
    return json.dumps(printed, sort_keys=True)


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    kind = rng.choice(("hdf5",) * 5 + ("lmdb",))
    words = rng.choice(made.commands[kind])
    store = folder / "store"
    _copy(made.stores[kind], store)
    if kind == "lmdb":
        way = rng.choice((_lmdb_bytes, _lmdb_bytes, _lmdb_file))
    else:
        way = rng.choice((_bytes,) * 5 + (_column,) * 3 + (_layout,) * 2 + (_crafted,) * 3 + (_attribute, _file))
    what, judged = way(rng, store, made)
    if judged == "pixels":
        judged = "forbidden" if words[0] == "verify" else "allowed"

    def accepted(out: str) -> str:
        try:
            same = _result(folder, out) == made.results[f"{kind} {words[0]}"]
        except (OSError, ValueError, KeyError):
            return "silent"
        return "same" if same else "valid" if judged == "allowed" else "silent"

    return Case(f"{kind} {words[0]}: {way.__name__[1:]}: {what}", words, accepted)


Judged = tuple[str, str]  # what was done; `forbidden`: the same result or a refusal; `allowed`: others too; `pixels`


def _bytes(rng: random.Random, store: Path, made: Made) -> Judged:
    content = store.read_bytes()
    if rng.random() < 0.5:
        altered, what = damage.of_bytes(rng, content)
    else:  # outside of the pixels, which are most of the file
        data = bytearray(content)
        places = [
            rng.choice((rng.randrange(made.pixels.start), rng.randrange(made.pixels.stop, len(data)))) for _ in range(2)
        ]
        for place in places:
            data[place] ^= 1 << rng.randrange(8)
        altered, what = bytes(data), f"bits at {places}"
    store.write_bytes(altered)
    changed = (
        np.flatnonzero(np.frombuffer(content, "u1") != np.frombuffer(altered, "u1"))
        if len(content) == len(altered)
        else None
    )
    only_pixels = changed is not None and all(place in made.pixels for place in changed)
    return what, "pixels" if only_pixels else "forbidden"


def _column(rng: random.Random, store: Path, made: Made) -> Judged:
    """Another value in one row of a column."""
    with h5py.File(store, "r+") as file:
        name = rng.choice(sorted(key for key in file if not key.startswith("data_")))
        data = file[name]
        at = tuple(rng.randrange(size) for size in data.shape)
        before = data[at]
        kind = data.dtype.kind
        odd: tuple[Any, ...] = (np.nan, np.inf, -1.0, 1e300, 0.0, float(np.float64(before) * 2)) if kind == "f" else ()
        odd = odd or ((b"", b"x", b"\xff\xfe", b"../../x") if kind == "S" else (0, 1, 2, 3, 7, 255))
        value = rng.choice(odd)
        data[at] = value
        same = data[at] == before
    return f"{name} {at} becomes {value!r}{' (as before)' if same else ''}", "forbidden"


def _layout(rng: random.Random, store: Path, made: Made) -> Judged:
    with h5py.File(store, "r+") as file:
        key = rng.choice(("layout", "layout", "provenance"))
        content = json.loads(file.attrs[key])
        what = damage.of_values(rng, content)
        file.attrs[key] = np.bytes_(json.dumps(content).encode(errors="replace")[:60_000])
    return f"{key}: {what}", "forbidden"


def _attribute(rng: random.Random, store: Path, made: Made) -> Judged:
    with h5py.File(store, "r+") as file:
        key = rng.choice(sorted(file.attrs))
        ways: dict[str, Callable[[], Any]] = {
            "removed": lambda: file.attrs.__delitem__(key),
            "text of variable length": lambda: file.attrs.create(key, "x" * 100, dtype=h5py.string_dtype()),
            "a number": lambda: file.attrs.create(key, rng.choice((-1, 0, 2, 4, 2**62))),
            "a list": lambda: file.attrs.create(key, [1, 2, 3]),
            "nothing": lambda: file.attrs.create(key, h5py.Empty("f")),
            "deep": lambda: file.attrs.create(key, np.bytes_(b"[" * 30_000)),
            "no JSON": lambda: file.attrs.create(key, np.bytes_(b"\xff{")),
            "a reference": lambda: file.attrs.create(key, file.ref, dtype=h5py.ref_dtype),
        }
        name = rng.choice(sorted(ways))
        ways[name]()
    return f"{key} is {name}", "forbidden"


def _crafted(rng: random.Random, store: Path, made: Made) -> Judged:
    """A dataset of another make: of variable length, elsewhere, or far too large."""
    bait = made.bait.folder / "store.h5"
    with h5py.File(store, "r+") as file:
        key = rng.choice(
            ("data_10m", "data_10m", "classes", "split", "state", "statistics", "name", "checksum", "seal")
        )
        values = file[key][...]
        shape, dtype = values.shape, values.dtype
        del file[key]
        huge = (2**40, *shape[1:])
        ways: dict[str, Callable[[], Any]] = {
            "missing": lambda: None,
            "a group": lambda: file.create_group(key),
            "of variable length": lambda: file.create_dataset(key, shape, h5py.vlen_dtype(np.uint16)),
            "texts of variable length": lambda: file.create_dataset(key, shape, h5py.string_dtype()),
            "an external link": lambda: file.__setitem__(key, h5py.ExternalLink(str(bait), key)),
            "a link to itself": lambda: file.__setitem__(key, h5py.SoftLink(f"/{key}")),
            "in an external file": lambda: file.create_dataset(
                key, shape, dtype, external=[(str(bait), 0, h5py.h5f.UNLIMITED)]
            ),
            "virtual": lambda: file.create_virtual_dataset(key, _virtual(bait, key, shape, dtype)),
            "compressed": lambda: file.create_dataset(key, data=values, compression="gzip"),
            "chunked": lambda: file.create_dataset(key, data=values, chunks=True),
            "of 2⁴⁰ rows": lambda: file.create_dataset(key, huge, dtype, chunks=(1, *shape[1:])),
            "of 2⁴⁰ contiguous rows": lambda: file.create_dataset(key, huge, dtype),
            "one row short": lambda: file.create_dataset(key, data=values[:-1]),
            "one row more": lambda: file.create_dataset(key, data=np.concatenate([values, values[:1]])),
            "float64": lambda: file.create_dataset(key, shape, np.float64),
            "big-endian": lambda: file.create_dataset(key, data=values.astype(dtype.newbyteorder(">"))),
            "of records": lambda: file.create_dataset(key, shape, [("a", "u1"), ("b", "u1")]),
            "a scalar": lambda: file.create_dataset(key, data=7),
            "empty": lambda: file.create_dataset(key, (0, *shape[1:]), dtype),
            "without a shape": lambda: file.create_dataset(key, data=h5py.Empty(dtype)),
            "flat": lambda: file.create_dataset(key, data=values.reshape(-1)),
            "references": lambda: file.create_dataset(key, shape, h5py.ref_dtype),
            "turned": lambda: file.create_dataset(key, data=np.ascontiguousarray(values[::-1])),
        }
        name = rng.choice(sorted(ways))
        ways[name]()
    pixels = key == "data_10m" and name == "turned"
    return f"{key} is {name}", "pixels" if pixels else "forbidden"


def _virtual(bait: Path, key: str, shape: tuple[int, ...], dtype: Any) -> h5py.VirtualLayout:
    layout = h5py.VirtualLayout(shape, dtype)
    layout[...] = h5py.VirtualSource(str(bait), key, shape)
    return layout


def _file(rng: random.Random, store: Path, made: Made) -> Judged:
    return damage.of_file(rng, store), "forbidden"


def _lmdb_bytes(rng: random.Random, store: Path, made: Made) -> Judged:
    file = rng.choice([store / "data.mdb", store / "data.mdb", store / "metadata.parquet"])
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return f"{file.name}: {what}", "allowed"


def _lmdb_file(rng: random.Random, store: Path, made: Made) -> Judged:
    return damage.of_file(
        rng, rng.choice([store / "data.mdb", store / "metadata.parquet", store / "lock.mdb"])
    ), "forbidden"
