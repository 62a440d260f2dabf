"""BigEarthNet v2 (reBEN) as it is published in LMDB, opened as a store without conversion or copy.

Each key is the name of a patch, each value is in safetensors format with one tensor per band at native resolution. Sentinel-1
patches have keys of their own. `metadata.parquet`, in the environment's folder or the one above, has labels, splits, and the
Sentinel-1 patch of each Sentinel-2 patch. rico-hdl (https://github.com/kai-tub/rico-hdl) writes such environments. (Clasen et
al. 2024, arXiv:2407.03653.)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lmdb import verify as structure
from numpy.typing import NDArray

from landscale.errors import BadStore
from landscale.store.layout import SHARES, SPLITS, WHOLE, Layout, Plane
from landscale.store.lmdb import LmdbEnvironment
from landscale.store.patches import PatchStore
from landscale.store.planes import LEVEL, SENTINEL1, SENTINEL2
from landscale.store.reben_metadata import read_metadata
from landscale.store.safetensor import SafetensorsDecoder
from landscale.store.statistics import TrainStatistics
from landscale.vocabulary.nomenclatures import nomenclature


class Instrument:
    """The values of one instrument (Sentinel-1 or -2) in an environment; all have the same planes."""

    def __init__(self, environment: LmdbEnvironment, planes: tuple[Plane, ...]) -> None:
        self.planes = planes
        self._environment, self._decoder = environment, SafetensorsDecoder(planes)

    def gather(self, keys: Sequence[bytes], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Copy pixels of the patches `keys` into those of the instrument's planes that `arrays` has; see `PatchStore.gather`.

        Raises:
            BadStore: a value is missing or damaged; the message has its key.
        """
        buffers = {p.key: arrays[p.key].data.cast("B") for p in self.planes if p.key in arrays and keys}
        if not buffers:
            return
        with self._environment.reading() as transaction:
            for row, key in enumerate(keys):
                value = transaction.get(key)  # reads its pages from the disk while other threads run
                try:
                    if value is None:
                        raise ValueError("is missing")
                    self._decoder.copy(memoryview(value), buffers, row)
                except ValueError as error:
                    raise BadStore(self._environment.path, f"the value of {key.decode()} {error}") from None


@dataclass(frozen=True)
class PatchValues:
    """The values of all instruments, and for each instrument the keys of all patches (N,)."""

    instruments: tuple[Instrument, ...]
    keys: tuple[NDArray[np.bytes_], ...]

    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        for instrument, keys in zip(self.instruments, self.keys, strict=True):
            instrument.gather(keys[rows].tolist(), arrays)


@dataclass(frozen=True)
class RebenStore(PatchStore):
    """The patches of an environment that are listed in its metadata, sorted by the name of the Sentinel-2 patch.

    If the environment holds both instruments, only patches with both are included.
    """

    proof = "headers and lengths: LMDB has no checksums"

    _environment: LmdbEnvironment
    _values: PatchValues
    _columns: dict[str, NDArray[Any]]

    @property
    def size(self) -> int:
        return self._environment.data.stat().st_size

    def gather(self, rows: NDArray[np.int64], arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self._values.gather(rows, arrays)

    def column(self, key: str) -> NDArray[Any]:
        self._check_column(key)
        return self._columns[key]

    def damaged(self) -> Iterator[tuple[int, bool]]:
        """Check the pages of the environment, and the header and length of every value; LMDB has no checksums of pixels."""
        try:
            problems = structure.verify(str(self._environment.data))  # type: ignore[no-untyped-call]
        except structure.VerifyError as error:
            problems = [str(error)]
        if problems:
            raise BadStore(self.path, f"is a damaged LMDB environment: {problems[0]}")
        arrays = self.layout.buffers(1)
        for row in range(len(self.states)):
            try:
                self.gather(np.array([row]), arrays)
            except BadStore:
                yield row, True
            else:
                yield row, False

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.layout.nomenclature, self.attributes["plan"])

    def known_statistics(self) -> Mapping[str, tuple[float, float]]:
        assert isinstance(self.statistics, TrainStatistics)
        return self.statistics.cached()


def open_reben(path: str | Path, labels: str | None = None) -> RebenStore:
    """Open an environment of BigEarthNet v2.

    Args:
        path: a folder with `data.mdb`, or such a file.
        labels: nomenclature of the classes, by default `ben19`.

    Raises:
        BadInput: the environment is missing, damaged, has no metadata, or holds none of the patches that these list.
    """
    path = Path(path)
    environment = LmdbEnvironment(path)
    target = nomenclature(labels or "ben19")
    metadata = find_beside(path, "metadata.parquet")
    if metadata is None:
        raise BadStore(
            path,
            "is an LMDB environment without metadata.parquet, which has the labels and splits of BigEarthNet v2;"
            " copy it to the same folder or the one above",
        )
    table, classes = read_metadata(metadata, target)
    if twice := table["name"][table["name"].duplicated()].tolist():
        raise BadStore(metadata, f"lists the patch {twice[0]} more than once")
    stored = environment.keys()
    found = {key: _is_in(table[key], stored) for key in ("name", "partner")}
    instrument_keys = [
        (key, planes) for key, planes in (("name", SENTINEL2), ("partner", SENTINEL1)) if found[key].any()
    ]
    whole = (
        np.logical_and.reduce([found[key] for key, _ in instrument_keys])
        if instrument_keys
        else np.zeros(len(table), bool)
    )
    if not whole.any():
        raise BadStore(path, f"holds none of the {len(table)} patches that {metadata} lists")
    order = np.argsort(table["name"].to_numpy(str), kind="stable")
    order = order[whole[order]]
    table, classes = table.iloc[order], classes[order]

    layout = Layout(
        tuple(p for _, planes in instrument_keys for p in planes),
        target.names,
        target.name,
        multi_label=True,
        level=LEVEL,
    )
    instruments = tuple(Instrument(environment, planes) for _, planes in instrument_keys)
    values = PatchValues(
        instruments, tuple(np.char.encode(table[key].to_numpy(str), "utf-8") for key, _ in instrument_keys)
    )
    columns = _columns(table)
    plan = _digest(json.dumps(layout.identity()), environment.transaction, *columns["name"], columns["split"], classes)
    train = np.flatnonzero(columns["split"] == SPLITS.index("train"))
    provenance: dict[str, Any] = {"source": "bigearthnet", "version": "v2", "container": "lmdb"}
    if find_beside(path, "synthetic.json"):
        provenance["synthetic"] = True
    return RebenStore(
        path=path,
        layout=layout,
        classes=classes,
        splits=columns["split"],
        states=columns["state"],
        statistics=TrainStatistics(path, plan, layout, train, values.gather),
        attributes={"plan": plan, "provenance": provenance},
        _environment=environment,
        _values=values,
        _columns=columns,
    )


def _reopen(path: Path, labels: str, plan: str) -> RebenStore:
    """The store of another process, whose content had the digest `plan`."""
    store = open_reben(path, labels)
    if store.attributes["plan"] != plan:
        raise BadStore(path, "was changed or replaced while it was being read; start again")
    return store


def patch_values(store: RebenStore) -> PatchValues:
    """The values of all patches of an environment, for readers that copy single patches."""
    return store._values


def find_beside(path: Path, name: str) -> Path | None:
    """The file called `name` in the folder of an environment or in the one above."""
    folder = path.absolute() if path.is_dir() else path.absolute().parent
    return next((f / name for f in (folder, folder.parent) if (f / name).is_file()), None)


def _is_in(names: pd.Series[str], keys: set[bytes]) -> NDArray[np.bool_]:
    return np.fromiter((name.encode() in keys for name in names), bool, len(names))


def _columns(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """The columns of an HDF5 store of these patches; those that require reading pixels are empty or NaN."""
    n = len(table)
    return {
        **{key: table[key].to_numpy(str) for key in ("name", "tile", "date", "country")},
        **{key: table[key].to_numpy(np.uint8) for key in ("split", "snow", "cloud")},
        "state": np.full(n, WHOLE, np.uint8),
        "crs": np.full(n, ""),
        "origin": np.full((n, 2), np.nan),
        **{key: np.full(n, np.nan, np.float32) for key in SHARES},
    }


def _digest(*parts: str | int | NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else f"{part}\n".encode())
    return digest.hexdigest()
