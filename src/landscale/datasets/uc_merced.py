"""UC Merced Land Use (Yang and Newsam 2010, doi 10.1145/1869790.1869829): 2,100 aerial images of 256×256 px, 100 per class.

8-bit RGB TIFFs of one foot (0.3048 m) per pixel (USGS National Map), `UCMerced_LandUse/Images/<class>/<class>NN.tif`, as a
folder or the zip as published. 44 images have sides of 242 to 257 px: they are cut at the right and lower edge, or filled there
with copies of their last row and column. The bands are red, green and blue, and get the names B04, B03 and B02.

Single-label with 21 classes, or multi-label with the 17 of Chaudhuri et al. 2018 (doi 10.1109/TGRS.2017.2760909). The latter
are in a table next to the images: `LandUse_Multilabeled.txt`, separated by tabs: one row per image, one column (0, 1) per class.
Splits: lists, such as those of Neumann et al. 2019 (`uc_merced-train.txt` …), or drawn at random.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.images import plane_key, read_image
from landscale.datasets.options import LISTS, SEED, labels_option
from landscale.datasets.splits import choose_splits
from landscale.datasets.survey import OneByOne, PatchDetails, Survey, check_names
from landscale.errors import BadInput, UnknownName, reason
from landscale.formats.content import read_text
from landscale.formats.zip_or_folder import list_members
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import UCMERCED17, UCMERCED21

SIDE = 256
_TOLERANCE = 16  # px by which a side may differ from SIDE
GSD = 0.3048  # metres per pixel: one foot
PLANE = Plane(plane_key(GSD), ("B04", "B03", "B02"), SIDE, GSD, "uint8", "8-bit")
MULTI_LABELS = "LandUse_Multilabeled.txt"


@dataclass(frozen=True)
class UCMercedReader:
    """Reads one image and cuts or fills it to 256×256."""

    def __call__(
        self,
        location: str,
        planes: Mapping[str, NDArray[np.generic]],
        classes: NDArray[np.uint8],  # noqa: ARG002  the survey has filled them in
    ) -> PatchDetails:
        image, _ = read_image(location)
        bands, height, width = image.shape
        if (bands, image.dtype.name) != (3, "uint8") or max(abs(height - SIDE), abs(width - SIDE)) > _TOLERANCE:
            raise BadInput(location, f"is {width}×{height}×{bands} {image.dtype}, expected about 256×256×3 uint8")
        missing = [(0, 0), (0, max(0, SIDE - height)), (0, max(0, SIDE - width))]
        planes[PLANE.key][...] = np.pad(image[:, :SIDE, :SIDE], missing, mode="edge")
        return PatchDetails()


OPTIONS = (labels_option("ucmerced21 (default) or ucmerced17"), LISTS, SEED)


def survey(
    inputs: list[tuple[str | None, Path]], labels: str | None = None, lists: Path | None = None, seed: int = 0
) -> Survey:
    """Survey folders or zips of UC Merced.

    The split of a patch is the SPLIT of its input, if that is given as SPLIT=INPUT; otherwise that of the list in `lists` which
    contains its name. Without lists, splits are drawn at random, 60/20/20 in each of the 21 folders.

    Args:
        inputs: split or None, and a folder or zip.
        labels: `ucmerced21` (the default) or `ucmerced17`. The latter needs the table of multi-labels in the folder, or next to
            the zip or folder, or in a folder `multilabels` there.
        lists: a folder of split lists.
        seed: seed of the drawn splits.

    Raises:
        BadInput: no images, a folder whose name is no class, or an image that the table of multi-labels lacks.
    """
    target = {n.name: n for n in (UCMERCED21, UCMERCED17)}.get(labels or UCMERCED21.name)
    if target is None:
        raise UnknownName("nomenclature of UC Merced", str(labels), (UCMERCED21.name, UCMERCED17.name))
    tables, classes = [], []
    for split, path in inputs:
        table = pd.DataFrame(_find_images(path), columns=["name", "location", "class"])
        column = table["class"].to_numpy()
        table["split"] = choose_splits(table["name"], column, (split, path), lists, seed)
        tables.append(table[["name", "location", "split"]])
        one_hot = np.eye(len(UCMERCED21.classes), dtype=np.uint8)[column]
        classes.append(one_hot if target is UCMERCED21 else _multi_labels(path, table["name"]))
    table = pd.concat(tables, ignore_index=True)
    check_names(table, inputs[-1][1])
    layout = Layout((PLANE,), target.names, target.name, target.multi_label, "not applicable")
    provenance = {"source": "uc_merced", "version": target.name}
    return Survey(layout, table, np.concatenate(classes), OneByOne(UCMercedReader()), provenance)


def _find_images(path: Path) -> list[tuple[str, str, int]]:
    """Name, path and class of every image of a folder or zip."""
    found = []
    for member, location in list_members(path, (".tif",)):
        try:
            (column,) = UCMERCED21.columns([member.parent.name or path.name])
        except UnknownName as error:
            raise BadInput(location, str(error)) from None
        found.append((member.stem, location, column))
    if not found:
        raise BadInput(path, "has no .tif in folders named after classes")
    return found


def _multi_labels(path: Path, names: pd.Series[str]) -> NDArray[np.uint8]:
    """The multi-labels (N, 17) of the images called `names`."""
    candidates = [folder / inner / MULTI_LABELS for folder in (path, path.parent) for inner in ("", "multilabels")]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise BadInput(
            path, f"has no {MULTI_LABELS} in it or next to it; the labels of {UCMERCED17.name} are in that file"
        )
    try:
        table = pd.read_csv(io.StringIO(read_text(file)), sep="\t", index_col=0).dropna(axis="columns", how="all")
    except ValueError as error:
        raise BadInput(file, f"is no table of labels ({reason(error)})") from None
    table.columns = table.columns.str.strip()
    if lacking := [name for name in UCMERCED17.names if name not in table]:
        raise BadInput(file, f"has no column {', '.join(lacking)}")
    if not table.index.is_unique or len(unlisted := names[~names.isin(table.index)]):
        problem = "lists an image more than once" if not table.index.is_unique else f"does not list {unlisted.iloc[0]}"
        raise BadInput(file, problem)
    values = table.loc[names.tolist(), list(UCMERCED17.names)].to_numpy()
    if not np.isin(values, (0, 1)).all():
        raise BadInput(file, "has labels other than 0 and 1")
    return np.ascontiguousarray(values, np.uint8)
