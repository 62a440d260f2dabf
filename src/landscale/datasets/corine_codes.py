"""The 44 classes of CORINE Land Cover at level 3, their codes in maps, and labels from the area that they cover.

A class has a code (111…523) and a grid code (1…44), which is its rank among the codes and the value of a pixel of the official
raster. Grid codes and codes do not overlap. Land without a class (codes 990, 995, 999; grid codes 48, 49, 50)
counts as not covered.

Source: Copernicus Land Monitoring Service, CLC nomenclature and the legend of the official raster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from landscale.store.layout import NO_CLASS as PIXEL_WITHOUT_CLASS
from landscale.vocabulary.nomenclatures import CLC43, Nomenclature

GLACIERS = 335  # the only one of the 44 classes that is not in CLC43
CODES = (*(c.code for c in CLC43.classes), GLACIERS)

NO_CLASS, UNKNOWN = 0, 255  # cells that are not covered; values that are not in CORINE's legend
_UNCLASSIFIED = (990, 995, 999)
_CELL_BY_VALUE = np.full(1001, UNKNOWN, np.uint8)  # the last entry is for all values that are negative or above 999
_CELL_BY_VALUE[[0, 48, 49, 50, 128, 255, *_UNCLASSIFIED]] = (
    NO_CLASS  # 128: nodata of the official raster, -128, as uint8
)
for _rank, _code in enumerate(sorted(CODES), start=1):
    _CELL_BY_VALUE[[_rank, _code]] = CODES.index(_code) + 1
CODE_TEXTS = frozenset(str(code) for code in (*CODES, *_UNCLASSIFIED))


def cells_by_values(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """For codes or grid codes of any shape: 1 + the position in `CODES`; or NO_CLASS, or UNKNOWN."""
    return _CELL_BY_VALUE[np.clip(values.astype(np.int64), -1, 1000)]


def coarser_level(values: NDArray[np.integer]) -> int | None:
    """The level, 1 or 2, whose codes all of these values seem to be, though they are grid codes of level 3 too; None: neither.

    Level 1 has the codes 1…5, level 2 some of 11…52. So many different values that happen to be codes of one level, without any
    other grid code between them, do not occur in a map of level 3.
    """
    found = set(range(1, len(CODES) + 1)) & set(np.unique(values).tolist())
    for level, divisor, least in ((1, 100, 4), (2, 10, 7)):
        if len(found) >= least and found <= {code // divisor for code in CODES}:
            return level
    return None


def corine_labels(fractions: NDArray[np.float64], nomenclature: Nomenclature, min_share: float) -> NDArray[np.uint8]:
    """The classes of each patch, (n, C) 0 or 1: those whose fraction is at least `min_share`, and above 0.

    The fractions of classes that `nomenclature` merges into one are summed first.

    Args:
        fractions: fraction of each patch that each class covers, (n, 44) in the order of `CODES`.
        nomenclature: with C classes.
        min_share: 0…1.

    Raises:
        UnknownName: CORINE's classes have no place in the nomenclature.
    """
    summed = np.zeros((len(fractions), len(nomenclature.classes)))
    for column, name in enumerate(CLC43.names):
        for target in nomenclature.columns([name]):
            summed[:, target] += fractions[:, column]
    return ((summed > 0) & (summed >= min_share - 1e-9)).astype(np.uint8)  # a sum that should be 0.1 may be less


def reference_map(codes: NDArray[np.integer], nomenclature: Nomenclature) -> NDArray[np.uint8]:
    """The classes of pixels whose CORINE codes of level 3 are `codes`, of any shape.

    Returns:
        Numbers of classes of the nomenclature from 0, `store.NO_CLASS` for land that belongs to none of them and for codes that
        stand for none (0, 990, 995, 999).

    Raises:
        ValueError: a number is none of these codes; grid codes are not.
        UnknownName: CORINE's classes have no place in the nomenclature.
    """
    known = np.array([0, *CODES, *_UNCLASSIFIED])
    if not np.isin(codes, known).all():
        raise ValueError(f"{codes[~np.isin(codes, known)][0]} is no code of CORINE Land Cover, expected 111…523")
    table = np.full(1000, PIXEL_WITHOUT_CLASS, np.uint8)
    for land in CLC43.classes:
        for column in nomenclature.columns([land.name]):
            table[land.code] = column
    found: NDArray[np.uint8] = table[codes]
    return found
