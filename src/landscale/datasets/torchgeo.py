"""Any classification dataset of TorchGeo (Stewart et al. 2022, doi 10.1145/3557915.3560953), read by TorchGeo itself.

What it needs: a class in `torchgeo.datasets` that takes `root`, has `classes`, and whose samples hold `image`, a tensor
(bands, side, side), and `label`, a class's number or a vector of 0 and 1. If it takes `split`, its own splits are kept.
TorchGeo hands out every image as floats: they are stored as uint16 if those of some samples are whole numbers from 0 to 65535,
as digital numbers are, and as float32 otherwise. Nothing is downloaded. TorchGeo is no dependency: pip install torchgeo.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from landscale.datasets.images import ASSUMED_GSD, GSD_IS_ASSUMED, name_bands, plane_key
from landscale.datasets.options import BANDS, SEED
from landscale.datasets.splits import draw_splits, split_code
from landscale.datasets.survey import OneByOne, PatchDetails, Survey, check_names
from landscale.errors import BadInput, LandscaleError, UnknownName, reason
from landscale.store import Layout, Plane
from landscale.vocabulary.nomenclatures import with_classes

GSDS = {  # metres a pixel, by data set
    "BigEarthNet": 10.0,
    "EuroSAT": 10.0,
    "EuroSAT100": 10.0,
    "EuroSATSpatial": 10.0,
    "So2Sat": 10.0,
    "UCMerced": 0.3048,
}
_SPLITS = ("train", "val", "validation", "test")
_BAND_NAMES = (
    "bands",
    "all_bands",
    "all_band_names",
    "band_names",
    "rgb_bands",
)  # attributes by which datasets tell them
_LOOKED_AT = 8  # samples that tell whether pixels are whole numbers


@dataclass(frozen=True)
class TorchGeoReader:
    """Reads the sample `split::index`."""

    name: str
    root: str
    key: str  # of the plane

    def __call__(
        self, where: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails:
        split, _, index = where.partition("::")
        place = f"{self.root}: {self.name} {split}[{index}]"
        image, label = _sample(self.name, self.root, split, int(index))
        out = planes[self.key]
        if image.shape != out.shape:
            raise BadInput(place, f"is {_by(image.shape)}, expected {_by(out.shape)} (bands, height, width)")
        if out.dtype == np.uint16 and not _is_whole(image):
            raise BadInput(place, "holds pixels that are no whole numbers from 0 to 65535, as those of other samples")
        if not np.isfinite(image).all():
            raise BadInput(place, "holds pixels that are not a number, or infinite")
        out[...] = image
        if label.ndim == 0 and 0 <= label < len(classes):
            classes[int(label)] = 1
        elif label.shape == classes.shape:
            classes[...] = label != 0
        else:
            raise BadInput(
                place, f"has the label {label.tolist()}, expected one of {len(classes)} classes, or 0 and 1 for each"
            )
        return PatchDetails()


OPTIONS = (BANDS, SEED)


def survey(inputs: list[tuple[str | None, Path]], bands: str | None = None, seed: int = 0) -> Survey:
    """Survey a dataset: the first input is its name in `torchgeo.datasets`, the second its root folder.

    Args:
        inputs: name and root; with SPLIT=ROOT all samples go into one split.
        bands: what the bands are, in their order: a band set or a list. By default what the dataset calls them, else red,
            green and blue if there are three.
        seed: of the split, drawn 60/20/20, of a dataset that has none.

    Raises:
        LandscaleError: TorchGeo is not installed, or there are not two inputs.
        UnknownName: TorchGeo has no such dataset.
        BadInput: it is not in the folder, or is of another kind than described above.
    """
    if len(inputs) != 2:
        raise LandscaleError(
            "torchgeo takes a dataset and its folder: landscale prepare torchgeo EuroSAT FOLDER STORE.h5"
        )
    (_, name), (split, root) = inputs
    sizes = _splits(str(name), root)
    first = next(iter(sizes))
    dataset = _dataset(str(name), str(root), first)
    classes = tuple(str(c) for c in getattr(dataset, "classes", ()))
    if not classes:
        raise BadInput(root, f"{name} of TorchGeo does not name its classes")
    table = pd.DataFrame({"location": [f"{s}::{k}" for s, size in sizes.items() for k in range(size)]})
    table["name"] = table["location"].str.replace("::", "_").str.lstrip("_")
    if split is not None:
        table["split"] = np.uint8(split_code(split, root))
    elif first:
        table["split"] = np.repeat([split_code(s, root) for s in sizes], list(sizes.values())).astype(np.uint8)
    else:
        table["split"] = draw_splits(np.zeros(len(table), np.int64), seed)
    check_names(table, root)
    plane, multi_label = _look(str(name), root, first, sizes[first], bands)
    known = with_classes(classes)
    layout = Layout((plane,), classes, known.name if known and known.names == classes else "custom", multi_label)
    version = f"{name} by torchgeo {_torchgeo('torchgeo').__version__}"
    reader = OneByOne(TorchGeoReader(str(name), str(root), plane.key))
    provenance = {"source": "torchgeo", "version": version}
    if str(name) not in GSDS:
        provenance["gsd"] = GSD_IS_ASSUMED
    return Survey(layout, table, None, reader, provenance)


def _look(name: str, root: Path, split: str, size: int, bands: str | None) -> tuple[Plane, bool]:
    """The plane of a dataset's images, and whether it is multi-label, from some of its samples."""
    images = []
    for index in sorted({*np.linspace(0, size - 1, min(_LOOKED_AT, size)).astype(int).tolist()}):
        image, label = _sample(name, str(root), split, index)
        images.append(image)
    count, height, width = images[0].shape
    if height != width:
        raise BadInput(root, f"{name} has images of {width}×{height}, expected squares")
    dtype = "uint16" if all(_is_whole(image) for image in images) else "float32"
    names = name_bands(root, count, _band_names(_dataset(name, str(root), split), count), bands)
    gsd = GSDS.get(name, ASSUMED_GSD)
    return Plane(plane_key(gsd), names, height, gsd, dtype), label.ndim == 1


def _band_names(dataset: Any, count: int) -> Sequence[str]:
    for attribute in _BAND_NAMES:
        names = getattr(dataset, attribute, None)
        if isinstance(names, (tuple, list)) and len(names) == count:
            return [str(name) for name in names]
    return []


def _torchgeo(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LandscaleError(f"the source torchgeo needs TorchGeo: pip install torchgeo ({reason(error)})") from None


def _splits(name: str, root: Path) -> dict[str, int]:
    """The splits of a dataset and their sizes; of one without, the split "" that has all."""
    datasets = _torchgeo("torchgeo.datasets")
    kind = getattr(datasets, name, None)
    if not inspect.isclass(kind):
        raise UnknownName("dataset of TorchGeo", name, datasets.__all__)
    parameters = inspect.signature(kind).parameters
    if "root" not in parameters:
        raise BadInput(root, f"{name} of TorchGeo is no classification dataset: it takes no root")
    found: dict[str, int] = {}
    for split in _SPLITS if "split" in parameters else ("",):
        try:
            found[split] = len(_dataset(name, str(root), split))
        except (AssertionError, KeyError, ValueError):  # by which datasets refuse a split that they have not
            continue
        except FileNotFoundError:
            raise BadInput(root, f"TorchGeo does not find {name} there") from None
        except Exception as error:  # those of many libraries
            raise BadInput(root, f"TorchGeo cannot open {name} there ({reason(error)})") from None
    if not sum(found.values()):
        raise BadInput(root, f"TorchGeo finds nothing of {name} there")
    return {split: size for split, size in found.items() if size}


@functools.cache
def _dataset(name: str, root: str, split: str) -> Any:
    """One dataset a process and split."""
    kind = getattr(_torchgeo("torchgeo.datasets"), name)
    return kind(root=root, split=split) if split else kind(root=root)


def _sample(name: str, root: str, split: str, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Image and label of a sample, as arrays."""
    place = f"{root}: {name} {split}[{index}]"
    try:
        sample = _dataset(name, root, split)[index]
    except Exception as error:  # those of many libraries
        raise BadInput(place, f"cannot be read ({reason(error)})") from None
    if not {"image", "label"} <= {*sample} or np.ndim(sample["image"]) != 3:
        raise BadInput(
            place, f"holds {', '.join(map(str, sample))}, expected an image (bands, side, side) and its label"
        )
    return np.asarray(sample["image"]), np.asarray(sample["label"])


def _is_whole(image: NDArray[np.float64]) -> bool:
    return bool((image == np.rint(image)).all() and image.min() >= 0 and image.max() <= 65_535)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
