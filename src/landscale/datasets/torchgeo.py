"""Any classification dataset of TorchGeo (Stewart et al. 2022, doi 10.1145/3557915.3560953), read by TorchGeo itself.

Requirements: a class in `torchgeo.datasets` that has a parameter `root` and an attribute `classes`, and whose samples have an
`image`, a tensor (bands, side, side), and a `label`, the number of a class or a vector of 0 and 1. If the class has a parameter
`split`, its own splits are kept. TorchGeo returns images as floats: they are stored as uint16 if the pixels of eight samples are
whole numbers from 0 to 65535, as digital numbers are, and as float32 otherwise. Nothing is downloaded. TorchGeo is not a
dependency of landscale: pip install torchgeo.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections import Counter
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
from landscale.vocabulary.units import Level, Unit

GSDS = {  # metres per pixel, by data set
    "BigEarthNet": 10.0,
    "EuroSAT": 10.0,
    "EuroSAT100": 10.0,
    "EuroSATSpatial": 10.0,
    "So2Sat": 10.0,
    "UCMerced": 0.3048,
}
# Unit of the pixels and processing level, by data set. The unit of images with bands of both radar and Sentinel-2 is unknown,
# because a plane has one unit.
CONTENTS: dict[str, tuple[Unit, Level]] = {
    "BigEarthNet": ("unknown", "L2A"),
    "EuroSAT": ("digital number", "L1C"),
    "EuroSAT100": ("digital number", "L1C"),
    "EuroSATSpatial": ("digital number", "L1C"),
    "So2Sat": ("unknown", "L1C"),
    "UCMerced": ("8-bit", "not applicable"),
}
_SPLITS = ("train", "val", "validation", "test")
_BAND_NAMES = ("bands", "all_bands", "all_band_names", "band_names", "rgb_bands")  # attributes of data sets
_CHECKED_SAMPLES = 8  # checked for whole numbers


@dataclass(frozen=True)
class TorchGeoReader:
    """Reads the sample `split::index`."""

    name: str
    root: str
    key: str  # key of the plane

    def __call__(
        self, location: str, planes: Mapping[str, NDArray[np.generic]], classes: NDArray[np.uint8]
    ) -> PatchDetails:
        split, _, index = location.partition("::")
        place = f"{self.root}: {self.name} {split}[{index}]"
        image, label = _sample(self.name, self.root, split, int(index))
        out = planes[self.key]
        if image.shape != out.shape:
            raise BadInput(place, f"is {_by(image.shape)}, expected {_by(out.shape)} (bands, height, width)")
        if out.dtype == np.uint16 and not _is_whole(image):
            raise BadInput(
                place,
                "has pixels that are not whole numbers from 0 to 65535, unlike the samples by which the dtype was chosen",
            )
        if not np.isfinite(image).all():
            raise BadInput(place, "has pixels that are not a number, or infinite")
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
    """Survey a data set: the first input is its name in `torchgeo.datasets`, the second its root folder.

    Args:
        inputs: name and root; with SPLIT=ROOT all samples get that split.
        bands: names of the bands in their order, as a band set or a list. By default the names that the data set has; otherwise
            red, green and blue if there are three bands.
        seed: seed of the splits, which are drawn 60/20/20 if the data set has none.

    Raises:
        LandscaleError: TorchGeo is not installed, or there are not two inputs.
        UnknownName: TorchGeo has no such data set.
        BadInput: the data set is not in the folder, or does not meet the requirements above.
    """
    if len(inputs) != 2:
        raise LandscaleError(
            "torchgeo needs the name of a data set and its folder: landscale prepare torchgeo EuroSAT FOLDER STORE.h5"
        )
    (_, name), (split, root) = inputs
    sizes = _splits(str(name), root)
    first = next(iter(sizes))
    dataset = _dataset(str(name), str(root), first)
    classes = tuple(str(c) for c in getattr(dataset, "classes", ()))
    if not classes:
        raise BadInput(root, f"{name} of TorchGeo has no attribute `classes`, so it cannot be used")
    table = pd.DataFrame({"location": [f"{s}::{k}" for s, size in sizes.items() for k in range(size)]})
    table["name"] = table["location"].str.replace("::", "_").str.lstrip("_")
    if split is not None:
        table["split"] = np.uint8(split_code(split, root))
    elif first:
        table["split"] = np.repeat([split_code(s, root) for s in sizes], list(sizes.values())).astype(np.uint8)
    else:
        table["split"] = draw_splits(np.zeros(len(table), np.int64), seed)
    check_names(table, root)
    plane, multi_label = _inspect_samples(str(name), root, first, sizes[first], bands)
    known = with_classes(classes)
    nomenclature = known.name if known and known.names == classes else "custom"
    layout = Layout((plane,), classes, nomenclature, multi_label, CONTENTS.get(str(name), ("unknown", "unknown"))[1])
    version = f"{name} by torchgeo {_torchgeo('torchgeo').__version__}"
    reader = OneByOne(TorchGeoReader(str(name), str(root), plane.key))
    provenance = {"source": "torchgeo", "version": version}
    if str(name) not in GSDS:
        provenance["gsd"] = GSD_IS_ASSUMED
    return Survey(layout, table, None, reader, provenance)


def _inspect_samples(name: str, root: Path, split: str, size: int, bands: str | None) -> tuple[Plane, bool]:
    """The plane of a data set's images, and whether it is multi-label, from some of its samples; damaged ones do not count."""
    images, labels = [], []
    problem: BadInput | None = None
    for index in sorted({*np.linspace(0, size - 1, min(_CHECKED_SAMPLES, size)).astype(int).tolist()}):
        try:
            image, label = _sample(name, str(root), split, index)
        except BadInput as error:
            problem = problem or error
        else:
            images.append(image)
            labels.append(label)
    if not images:
        assert problem is not None
        raise problem
    (shape, often), *others = Counter(image.shape for image in images).most_common()
    if 2 * often <= len(images):
        sizes = f"{_by(shape)} and {_by(others[0][0])}"
        raise BadInput(root, f"{name} has images of {sizes} (bands, height, width), expected one size")
    images = [image for image in images if image.shape == shape]
    count, height, width = shape
    if height != width:
        raise BadInput(root, f"{name} has images of {width}×{height}, expected squares")
    dtype = "uint16" if all(_is_whole(image) for image in images) else "float32"
    names = name_bands(root, count, _band_names(_dataset(name, str(root), split), count), bands)
    gsd = GSDS.get(name, ASSUMED_GSD)
    pictures = dtype == "uint16" and max(image.max() for image in images) <= 255
    unit = CONTENTS[name][0] if name in CONTENTS else "8-bit" if pictures else "unknown"
    return Plane(plane_key(gsd), names, height, gsd, dtype, unit), labels[0].ndim == 1


def _band_names(dataset: Any, count: int) -> Sequence[str]:
    """The names that a data set has for the bands of its images; empty where it has none."""
    for attribute in _BAND_NAMES:
        names = getattr(dataset, attribute, None)
        if isinstance(names, (tuple, list)) and len(names) == count:
            return [str(name) for name in names]
    return []


def _torchgeo(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LandscaleError(f"the data set torchgeo needs TorchGeo: pip install torchgeo ({reason(error)})") from None


def _splits(name: str, root: Path) -> dict[str, int]:
    """The splits of a data set and their sizes; a data set without splits has one called ""."""
    datasets = _torchgeo("torchgeo.datasets")
    dataset_class = getattr(datasets, name, None)
    if not inspect.isclass(dataset_class):
        raise UnknownName("data set of TorchGeo", name, datasets.__all__)
    parameters = inspect.signature(dataset_class).parameters
    if "root" not in parameters:
        raise BadInput(root, f"{name} of TorchGeo cannot be used: it has no parameter `root`")
    found: dict[str, int] = {}
    for split in _SPLITS if "split" in parameters else ("",):
        try:
            found[split] = len(_dataset(name, str(root), split))
        except (AssertionError, KeyError, ValueError):  # raised by data sets that do not have the split
            continue
        except FileNotFoundError:
            raise BadInput(root, f"TorchGeo does not find {name} in this folder") from None
        except Exception as error:  # of any class: TorchGeo uses many libraries
            raise BadInput(root, f"TorchGeo cannot open {name} in this folder ({reason(error)})") from None
    if not sum(found.values()):
        raise BadInput(root, f"TorchGeo finds no sample of {name} in this folder")
    return {split: size for split, size in found.items() if size}


@functools.cache
def _dataset(name: str, root: str, split: str) -> Any:
    """A data set of TorchGeo; opened once in each process."""
    dataset_class = getattr(_torchgeo("torchgeo.datasets"), name)
    return dataset_class(root=root, split=split) if split else dataset_class(root=root)


def _sample(name: str, root: str, split: str, index: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Image and label of a sample, as arrays."""
    place = f"{root}: {name} {split}[{index}]"
    try:
        sample = _dataset(name, root, split)[index]
    except Exception as error:  # of any class: TorchGeo uses many libraries
        raise BadInput(place, f"cannot be read ({reason(error)})") from None
    if not {"image", "label"} <= {*sample} or np.ndim(sample["image"]) != 3:
        raise BadInput(place, f"has {', '.join(map(str, sample))}, expected an image (bands, side, side) and a label")
    return np.asarray(sample["image"]), np.asarray(sample["label"])


def _is_whole(image: NDArray[np.float64]) -> bool:
    return bool((image == np.rint(image)).all() and image.min() >= 0 and image.max() <= 65_535)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
