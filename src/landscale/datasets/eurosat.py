"""EuroSAT (Helber et al. 2019): 27,000 patches of 64×64 px of 10 m in ten classes, one folder per class.

RGB: 8-bit JPEGs. MS: 16-bit GeoTIFFs of 13 bands, digital numbers, which the authors resampled to 10 m. Both are of
level 1C, and are read from a folder or the published zip.

The JPEGs show the digital numbers 0…2750, mapped linearly to 1…255; larger numbers are clipped to 255. This was measured on 198
patches that exist in both forms: after this map they differ by 1.6 grey levels on average, the loss of JPEG. A stretch maps 0 to
0 (`vocabulary.units`), which differs by at most one grey level.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from landscale.datasets.images import ImageReader
from landscale.datasets.options import LISTS, SEED
from landscale.datasets.splits import choose_splits
from landscale.datasets.survey import OneByOne, Survey, check_names
from landscale.errors import BadInput, UnknownName
from landscale.formats.zip_or_folder import list_members
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import EUROSAT10

OPTIONS = (LISTS, SEED)
SIDE = 64
RGB = Plane("data_10m", ("B04", "B03", "B02"), SIDE, 10, "uint8", "8-bit", stretch=2750)
# B8A is the last band of the published files, although its wavelength lies between those of B08 and B09.
MS = Plane(
    "data_10m",
    ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"),
    SIDE,
    10,
    unit="digital number",
)
_PLANES = {".jpg": RGB, ".tif": MS}


def survey(inputs: list[tuple[str | None, Path]], lists: Path | None = None, seed: int = 0) -> Survey:
    """Survey folders or zips of EuroSAT.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that of the list in `lists` which
    contains its name. Without lists, splits are drawn at random, 60/20/20 in each class.

    Args:
        inputs: split or None, and a folder or zip.
        lists: a folder of split lists.
        seed: seed of the drawn splits.

    Raises:
        BadInput: no images, both JPEGs and GeoTIFFs, or a folder whose name is no class of EuroSAT.
    """
    tables = []
    for split, path in inputs:
        table = pd.DataFrame(_find_images(path), columns=["name", "location", "class", "suffix"])
        table["split"] = choose_splits(table["name"], table["class"].to_numpy(), (split, path), lists, seed)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    if table["suffix"].nunique() > 1:
        raise BadInput(inputs[-1][1], "has both JPEGs and GeoTIFFs; prepare a store from each")
    classes = np.zeros((len(table), len(EUROSAT10.classes)), np.uint8)
    classes[np.arange(len(table)), table["class"]] = 1
    plane = _PLANES[table["suffix"].iloc[0]]
    layout = Layout((plane,), EUROSAT10.names, EUROSAT10.name, multi_label=False, level="L1C")
    provenance = {"source": "eurosat", "version": "RGB" if plane is RGB else "MS"}
    return Survey(layout, table[["name", "location", "split"]], classes, OneByOne(ImageReader(plane.key)), provenance)


def _find_images(path: Path) -> list[tuple[str, str, int, str]]:
    """Name, path, class and suffix of every image of a folder or zip, sorted."""
    found = []
    for member, location in list_members(path, _PLANES):
        try:
            (column,) = EUROSAT10.columns([member.parent.name or path.name])
        except UnknownName as error:
            raise BadInput(location, str(error)) from None
        found.append((member.stem, location, column, member.suffix.lower()))
    if not found:
        raise BadInput(path, "has no .jpg or .tif in folders named after classes")
    return sorted(found)
