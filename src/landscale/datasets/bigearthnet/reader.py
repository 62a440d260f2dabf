"""Reads patches from BigEarthNet's folders. A module of its own, so that worker processes need not import pandas."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.datasets.bigearthnet.sentinel1 import RADAR
from landscale.datasets.corine_codes import reference_map
from landscale.datasets.survey import PatchDetails
from landscale.errors import BadInput, UnknownName
from landscale.formats.geotiff import Place, read_band
from landscale.runtime.documents import read_json
from landscale.store import REFERENCE, Plane
from landscale.store.planes import SENTINEL2
from landscale.vocabulary.nomenclatures import Nomenclature

SEPARATOR = (
    "\0"  # in a location, between the folders of the Sentinel-2 patch, of its Sentinel-1 patch and of its reference map
)


@dataclass(frozen=True)
class BigEarthNetReader:
    """Reads the twelve files of a patch folder; for v1 also its labels; also its Sentinel-1 patch and reference map if wanted.

    nomenclature: nomenclature of the labels. labels_in_json: whether each patch has its labels in a JSON file (v1).
    """

    nomenclature: Nomenclature
    labels_in_json: bool

    def __call__(
        self, location: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails:
        optical, radar, reference, *_ = (*location.split(SEPARATOR), "", "")
        place = None
        for plane in SENTINEL2:
            place = _read_plane(optical, plane, planes[plane.key], place)
        if RADAR.key in planes:
            if not radar:
                raise BadInput(optical, "has no Sentinel-1 partner in the archive")
            place = _read_plane(radar, RADAR, planes[RADAR.key], place)
        if REFERENCE in planes:
            place = _read_reference(reference, planes[REFERENCE], place, self.nomenclature)
        assert place is not None
        if not self.labels_in_json:
            return PatchDetails(place)
        path = f"{optical}/{os.path.basename(optical)}_labels_metadata.json"  # noqa: PTH119
        return PatchDetails(place, read_labels(path, read_json(Path(path)), self.nomenclature, classes))


def _read_plane(folder: str, plane: Plane, out: NDArray[np.generic], first: Place | None) -> Place:
    stem = f"{folder}/{os.path.basename(folder)}"  # noqa: PTH119  creating twelve Path objects a patch takes noticeable time
    for band, pixels in zip(plane.bands, out, strict=True):
        path = f"{stem}_{band}.tif"
        first = same_place(path, read_band(path, pixels), first)
    assert first is not None
    return first


def _read_reference(folder: str, out: NDArray[np.generic], first: Place | None, target: Nomenclature) -> Place:
    """Read the map of a patch, uint16 codes of CORINE, as numbers of classes into `out` (1, side, side)."""
    path = f"{folder}/{os.path.basename(folder)}_reference_map.tif"  # noqa: PTH119
    codes = np.empty(out.shape[1:], np.uint16)
    place = same_place(path, read_band(path, codes), first)
    try:
        out[0] = reference_map(codes, target)
    except ValueError as error:
        raise BadInput(path, f"holds a wrong number: {error}") from None
    return place


def same_place(path: str, place: Place, first: Place | None) -> Place:
    """`place`, the place of the band at `path`.

    Raises:
        BadInput: it differs from that of the patch's first band.
    """
    if first is not None and place != first:
        raise BadInput(path, f"lies at {place}, the patch's other bands at {first}")
    return place


def read_labels(path: str, content: Any, target: Nomenclature, classes: NDArray[np.uint8]) -> str:
    """Set the classes (C,) of a patch of v1 by the content of its JSON file. Returns its tile ("T33UUP"), or "" if unknown.

    Raises:
        BadInput: no labels, a label outside the nomenclature, or a tile of another form.
    """
    try:
        labels = content["labels"]
        parts = str(content.get("tile_source", "")).split("_")
    except (KeyError, TypeError, AttributeError):
        raise BadInput(path, "has no 'labels'") from None
    try:
        classes[target.columns(labels)] = 1
    except (UnknownName, TypeError) as error:
        raise BadInput(path, str(error)) from None
    tile = parts[5] if len(parts) > 5 else ""
    if tile and not re.fullmatch(r"T\d{2}[A-Z]{3}", tile):
        raise BadInput(path, f"has the tile {tile!r}, expected one such as T33UUP")
    return tile
