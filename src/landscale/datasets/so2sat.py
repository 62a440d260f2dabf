"""So2Sat LCZ42 (Zhu et al. 2020, doi 10.1109/MGRS.2020.2964708): 400,673 patches of 32×32 px in 17 local climate zones.

Files: `training.h5` (42 cities), `validation.h5` (the western halves of ten others) and `testing.h5` (their eastern halves).
Arrays:

    sen1    (N, 32, 32, 8)     float64   VH and VV as complex numbers (0 to 3), intensity after Lee's filter of VH (4) and
                                         VV (5), and an element of the covariance matrix (6, 7)
    sen2    (N, 32, 32, 10)    float64   reflectance of B02, B03, B04, B05, B06, B07, B08, B8A, B11, B12, all at 10 m; level 1C
    label   (N, 17)            float64   one-hot, zones 1 to 10 and A to G

Values in the store are as in those of other data sets: digital numbers (10,000 times the reflectance, rounded and clipped to
0…65535), and the filtered intensities in decibels, VV before VH.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.splits import split_code
from landscale.datasets.survey import PatchDetails, Survey, check_names
from landscale.errors import BadInput, LandscaleError, reason
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import LCZ17

SIDE = 32
MAX_PATCHES = 10_000_000  # of a file; the largest has 352,366
_BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
SEN2 = Plane("data_10m", _BANDS, SIDE, 10, unit="digital number")
SEN1 = Plane("data_s1", ("VV", "VH"), SIDE, 10, "float32", "dB")
_INTENSITIES = [5, 4]  # VV, VH
_LEAST_INTENSITY = 1e-5  # −50 dB, below what the radar can measure; an intensity may be 0, which has no logarithm
_SHAPES = {"sen1": (SIDE, SIDE, 8), "sen2": (SIDE, SIDE, 10), "label": (len(LCZ17.classes),)}
_FILES = ("training.h5", "validation.h5", "testing.h5")


@dataclass(frozen=True)
class So2SatReader:
    """Reads patches, given as `file::row`. Consecutive rows of a file are read as one slice."""

    def __call__(
        self,
        locations: Sequence[str],
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey has filled them in
    ) -> Iterator[PatchDetails | LandscaleError]:
        done = 0
        for path, group in itertools.groupby(locations, lambda location: location.rpartition("::")[0]):
            rows = [int(location.rpartition("::")[2]) for location in group]
            yield from _read(path, rows, {key: plane[done : done + len(rows)] for key, plane in planes.items()})
            done += len(rows)


def _read(path: str, rows: list[int], planes: Mapping[str, NDArray[np.generic]]) -> list[PatchDetails | LandscaleError]:
    """Read consecutive rows of a file. If that fails, read row by row, so that only the damaged patches are reported."""
    part = slice(rows[0], rows[-1] + 1)
    try:
        with h5py.File(path, "r", locking=False) as file:  # takes 1 ms; an open handle would not survive a fork
            intensities, reflectance = file["sen1"][part][..., _INTENSITIES], file["sen2"][part]
    except (OSError, KeyError, ValueError) as error:
        if len(rows) == 1:
            return [BadInput(f"{path}::{rows[0]}", f"cannot be read ({reason(error)})")]
        one_by_one = ({key: plane[i : i + 1] for key, plane in planes.items()} for i in range(len(rows)))
        return [found for row, plane in zip(rows, one_by_one, strict=True) for found in _read(path, [row], plane)]
    is_finite = np.isfinite(reflectance).all((1, 2, 3)) & np.isfinite(intensities).all((1, 2, 3))
    numbers = np.rint(reflectance * 10_000.0)
    numbers.clip(0, 65_535, out=numbers)
    with np.errstate(invalid="ignore"):  # casts of pixels that are not finite, which are reported below
        planes[SEN2.key][...] = numbers.transpose(0, 3, 1, 2)
        planes[SEN1.key][...] = 10 * np.log10(np.maximum(intensities, _LEAST_INTENSITY)).transpose(0, 3, 1, 2)
    return [
        PatchDetails() if ok else BadInput(f"{path}::{row}", "has pixels that are not a number, or infinite")
        for row, ok in zip(rows, is_finite, strict=True)
    ]


OPTIONS = ()


def survey(inputs: list[tuple[str | None, Path]]) -> Survey:
    """Survey the folder of the three files, or some of these files.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that in the name of its file.

    Args:
        inputs: split or None, and a folder or file.

    Raises:
        BadInput: no such file, a file without the arrays of So2Sat, or a label that is not one-hot.
    """
    tables, labels = [], []
    for split, path in inputs:
        files = [path / name for name in _FILES if (path / name).is_file()] if path.is_dir() else [path]
        if not files:
            raise BadInput(path, f"has none of {', '.join(_FILES)}")
        for file in files:
            labels.append(_labels(file))
            rows = range(len(labels[-1]))
            table = pd.DataFrame({"name": [f"{file.stem}_{k:06d}" for k in rows]})
            table["location"] = [f"{file}::{k}" for k in rows]
            table["split"] = np.uint8(split_code(split or {"testing": "test"}.get(file.stem, file.stem), file))
            tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    layout = Layout((SEN2, SEN1), LCZ17.names, LCZ17.name, multi_label=False, level="L1C")
    return Survey(layout, table, np.concatenate(labels), So2SatReader(), {"source": "so2sat", "version": "LCZ42"})


def _labels(path: Path) -> NDArray[np.uint8]:
    try:
        with h5py.File(path, "r", locking=False) as file:
            shapes = {key: file[key].shape for key in _SHAPES if key in file}
            found = shapes.get("label", ())
            fits = found[1:] == _SHAPES["label"] and found[0] <= MAX_PATCHES
            labels = file["label"][...] if fits else np.empty((0, 0))
    except OSError as error:
        raise BadInput(path, f"is no HDF5 file of So2Sat ({reason(error)})") from None
    for key, shape in _SHAPES.items():
        expected = (len(labels), *shape)
        if shapes.get(key) != expected:
            raise BadInput(path, f"has the array {key} of shape {shapes.get(key)}, expected {expected}")
    wrong = np.flatnonzero(((labels != 0) & (labels != 1)).any(1) | (labels.sum(1) != 1))
    if len(wrong):
        raise BadInput(f"{path}::{wrong[0]}", "has a label that is not one-hot")
    return labels.astype(np.uint8)
