"""The patch store: one HDF5 file that many processes write at once and training maps into memory.

Datasets. N is the number of patches, C the number of classes, "bands" counts all bands of all planes:

    data_10m, data_20m, data_60m   (N, bands, side, side)  pixels of one plane, in the unit and dtype of the source
    data_s1                        (N, 2, side, side)      where present: Sentinel-1's VV and VH in dB, float32
    data_super                     (N, 12, 120, 120)       where requested: all bands of level 2A, upsampled to 10 m
    reference_map                  (N, 1, side, side) uint8  where present: the class of every pixel of the finest plane, as its
                                                           number in `classes` from 0; 255 where it has none of them
    classes                        (N, C) uint8            1 for each class of a patch, else 0
    name, tile, crs, date, country (N,) fixed-length text  UTF-8; `crs` as EPSG:n, `date` in ISO 8601; empty where unknown
    split, state                   (N,) uint8              HDF5 enumerations, `SPLITS` and `STATES`
    origin                         (N, 2) float64          x, y of the outer upper left corner, in units of the CRS; or NaN
    snow, cloud                    (N,) uint8              1 where the source flags seasonal snow, or cloud or its shadow
    nodata_share, cloud_share, shadow_share, snow_share    (N,) float32: fraction of the patch's area in 0…1; or NaN
    moments                        (N, bands, 2) float64   sum and sum of squares of the pixels of every band
    checksum                       (N,) uint64             xxh3-64 of the pixels, plane by plane, then of the row of `classes`
    seal                           (N + 1,) uint64         xxh3-64 of the columns in `SEALED`, patch by patch; the last one
                                                           is that of `statistics`
    statistics                     (bands, 2) float64      mean and standard deviation over the whole patches of the train
                                                           split; NaN without any
    digests                        (columns + 1,) uint64   xxh3-64 of each dataset in `DIGESTED`, and of the attributes

A patch has the state `pending` until all its bytes are on the disk, then `whole`; or `bad` if its source is damaged, in which
case its pixels are 0.

Attributes of the file:

    format      4, or 5 with a reference map (this program also reads 3, which lacks `digests`, and `unit` and `level` in
                `layout`; and 2, which also lacks `gsd`)
    layout      JSON of `Layout`: by plane the key, bands, side in pixels, gsd in metres per pixel, dtype, unit and, only where it
                is known, stretch; class names, nomenclature, multi_label, level
    classes     class names again, as text; each plane has its `bands` in the same form
    plan        digest of the source and layout: a preparation that was interrupted resumes only with the same plan
    provenance  JSON: source, version, and whether the data are synthetic

Every dataset is contiguous, uncompressed and allocated when the file is created. So it is a plain range of bytes of the file,
which processes write with `pwrite`, without locks and without HDF5, and which training maps into memory. Text has a fixed
length, because HDF5 stores it in headers that have checksums; text of variable length would be stored in a heap that has none.

Everything but the pixels is compared with `digests` whenever a store is opened. `seal` and `checksum` name the patch of a damage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from landscale.vocabulary.units import LEVELS, UNITS, Level, Unit

FORMAT = 4
FORMAT_WITH_MAPS = 5  # of stores with reference maps, so that earlier versions refuse them by their number
READABLE = (2, 3, 4, 5)  # formats that can be opened
SPLITS = ("none", "train", "val", "test")
STATES = ("pending", "whole", "bad")
PENDING, WHOLE, BAD = range(3)
SHARES = ("nodata_share", "cloud_share", "shadow_share", "snow_share")  # columns: fractions of the patch's area
COLUMNS = ("name", "split", "state", "tile", "crs", "origin", "date", "country", "snow", "cloud", *SHARES)
SUPER = "data_super"  # key of the plane with all bands at 10 m, which a store may have besides the native planes
REFERENCE = "reference_map"  # key, and name of the only band, of the plane with the class of every pixel
NO_CLASS = 255  # value of pixels of it that have none of the classes
_GSD_IN_KEY = re.compile(r"data_(\d+)m")

# Of a band or class. Without control characters, with which a name could change a terminal.
Name = Annotated[str, Meta(min_length=1, max_length=20_000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]


@dataclass(frozen=True)
class Plane:
    """One dataset of pixels: bands that share a sampling distance, a side in pixels and a dtype.

    key: name of the dataset. side: side of a patch in pixels. gsd: ground sampling distance in metres per pixel. unit: that of
    the pixels, one of `vocabulary.units.UNITS`. stretch: of 8-bit pixels, the digital number that 255 stands for; None: unknown.

    Raises:
        ValueError: gsd or stretch is not a positive number, a band occurs more than once, there is no such unit, pixels of
            another unit than 8-bit have a stretch, or only one of key, band and unit is that of a reference map.
    """

    key: Annotated[str, Meta(pattern=r"^(data_[\w.]{1,60}|reference_map)$")]
    bands: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=4096)]
    side: Annotated[int, Meta(ge=1, le=1 << 16)]
    gsd: int | float
    dtype: Annotated[str, Meta(pattern=r"^(u?int(8|16|32|64)|float(16|32|64))$")] = "uint16"
    unit: Unit = "unknown"
    stretch: int | float | None = None

    def __post_init__(self) -> None:
        if len(set(self.bands)) < len(self.bands):
            raise ValueError(f"plane {self.key}: a band occurs more than once")
        if self.unit not in UNITS:
            raise ValueError(f"plane {self.key}: unit is {self.unit!r}, expected {', '.join(UNITS)}")
        if not (isinstance(self.gsd, int | float) and 0 < self.gsd < math.inf):
            raise ValueError(f"plane {self.key}: gsd is {self.gsd!r}, expected a positive number of metres per pixel")
        if self.stretch is not None and not (self.unit == "8-bit" and 0 < self.stretch < math.inf):
            raise ValueError(
                f"plane {self.key}: stretch is {self.stretch!r} and unit {self.unit}, expected a positive number and 8-bit"
            )
        marks = self.key == REFERENCE, REFERENCE in self.bands, self.unit == "class"
        if any(marks) and not (all(marks) and self.bands == (REFERENCE,) and self.dtype == "uint8"):
            raise ValueError(
                f"plane {self.key}: has bands {', '.join(self.bands)}, unit {self.unit} and dtype {self.dtype}; a reference map"
                f" has the key and band {REFERENCE}, the unit class and the dtype uint8"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return (len(self.bands), self.side, self.side)

    @property
    def nbytes(self) -> int:
        """Bytes of one patch."""
        return len(self.bands) * self.side**2 * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Layout:
    """Planes and classes: everything that determines the shape of a store, except its number of patches.

    level: processing level of the Sentinel-2 products that the patches come from, one of `vocabulary.units.LEVELS`.

    Raises:
        ValueError: the planes cover squares of ground of different sizes, a plane or class occurs more than once, or there is no
            such level.
    """

    planes: tuple[Plane, ...]
    classes: Annotated[tuple[Name, ...], Meta(max_length=1 << 16)]
    nomenclature: str
    multi_label: bool
    level: Level = "unknown"

    def __post_init__(self) -> None:
        for kind, names in (("plane", [plane.key for plane in self.planes]), ("class", self.classes)):
            if len(set(names)) < len(names):
                raise ValueError(f"a {kind} occurs more than once")
        if self.level not in LEVELS:
            raise ValueError(f"the level is {self.level!r}, expected {', '.join(LEVELS)}")
        sizes = {plane.key: plane.side * plane.gsd for plane in self.planes}
        if any(not math.isclose(size, self.ground, rel_tol=1e-6) for size in sizes.values()):
            found = ", ".join(f"{key} {size:g} m" for key, size in sizes.items())
            raise ValueError(f"the planes of a patch cover squares of different sides: {found}")

    @property
    def ground(self) -> float:
        """Side of a patch in metres, the same for all planes; an `int` if it is a whole number; 0 without planes."""
        plane = max(self.planes, key=lambda plane: plane.side, default=None)
        side = plane.side * plane.gsd if plane else 0
        return int(side) if side == int(side) else side

    def to_json(self) -> dict[str, Any]:
        """The attribute `layout` of a store. Planes without a known stretch do not mention it, as in earlier stores."""
        fields = asdict(self)
        for plane in fields["planes"]:
            if plane["stretch"] is None:
                del plane["stretch"]
        return fields

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Read what `to_json` returned, in any format.

        Planes without `gsd`, as format 2 has them, get it from their keys. Before format 4, units and level are unknown.

        Raises:
            ValueError: fields are missing, of another type, out of range, or contradict each other.
        """
        try:
            planes = msgspec.convert(content.get("planes"), list[dict[str, Any]])
            known = [_GSD_IN_KEY.fullmatch(str(p.get("key"))) for p in planes]
            finest = min((int(match[1]) for match in known if match), default=10)  # the grid of data_super and data_s1
            filled = [{"gsd": int(match[1]) if match else finest, **p} for p, match in zip(planes, known, strict=True)]
            return msgspec.convert({**content, "planes": filled}, cls)
        except msgspec.ValidationError as error:
            raise ValueError(str(error).replace("`", "")) from None

    def identity(self) -> dict[str, Any]:
        """The fields of format 2, for digests of a store's content, which are then the same in every format."""
        fields = asdict(self)
        del fields["level"]
        for plane in fields["planes"]:
            del plane["gsd"], plane["unit"], plane["stretch"]
        return fields

    @property
    def bands(self) -> tuple[str, ...]:
        """All bands, plane by plane: the order of `moments` and `statistics`."""
        return tuple(band for plane in self.planes for band in plane.bands)

    def units(self) -> dict[str, Unit]:
        """The unit of each band; of a band in several planes that of the first."""
        return {band: plane.unit for plane in reversed(self.planes) for band in plane.bands}

    def stretches(self) -> dict[str, float]:
        """By key of a plane, the digital number that 255 stands for in it; only where it is known."""
        return {plane.key: plane.stretch for plane in self.planes if plane.stretch is not None}

    @property
    def has_reference(self) -> bool:
        """Whether the store has the class of every pixel."""
        return any(plane.key == REFERENCE for plane in self.planes)

    @property
    def image_bands(self) -> tuple[str, ...]:
        """All bands but the reference map, plane by plane."""
        return tuple(band for band in self.bands if band != REFERENCE)

    @property
    def side(self) -> int:
        """Side of a patch in pixels of the finest plane."""
        return max(plane.side for plane in self.planes)

    def buffers(self, patches: int) -> dict[str, NDArray[np.generic]]:
        """Uninitialised arrays (patches, bands, side, side) by key of a plane."""
        return {p.key: np.empty((patches, *p.shape), p.dtype) for p in self.planes}
