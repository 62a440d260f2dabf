"""Small scenes with random pixels, and a classifier whose probabilities are means of pixels."""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from landscale.maps.predict import predict as write_map
from landscale.models.classifier import Classifier, Description
from landscale.vocabulary.bands import BANDS

NAMES = ("B02", "B04", "B8A", "B01")  # at 10, 10, 20 and 60 m
SIDE = 12  # pixels of a window at 10 m: 120 m of ground
ORIGIN = (399_960.0, 5_300_040.0)


def description_with(bands=NAMES, **changes):
    return replace(
        Description(
            model="wide_resnet",
            bands=bands,
            classes=("dark", "bright"),
            nomenclature="custom",
            multi_label=True,
            statistics=dict.fromkeys(bands, (2000.0, 1000.0)),
            side=SIDE,
            ground=10 * SIDE,
            options={"width": 0.5},
            thresholds=(0.5, 0.5),
        ),
        **changes,
    )


class Stub(Classifier):
    """Returns as probabilities the mean of each window's B02 and of all its bands, both / 10,000."""

    def __init__(self, bands=NAMES, **changes):
        torch.nn.Module.__init__(self)
        self.description = description_with(bands, **changes)
        self.network = torch.nn.Linear(1, 1)
        self.shapes = set()

    def probabilities(self, planes):
        self.shapes |= {(names, tuple(tensor.shape[1:])) for names, tensor in planes.items()}
        first = self.description.bands[0]
        names, tensor = next((names, tensor) for names, tensor in planes.items() if first in names)
        one = tensor.numpy()[:, names.index(first)].astype(np.float64).mean((1, 2))
        every = np.mean([t.numpy().astype(np.float64).mean((1, 2, 3)) for t in planes.values()], axis=0)
        return torch.from_numpy(np.stack([one, every], 1) / 10_000).float()


def write_band(path, values, gsd, origin=ORIGIN, crs="EPSG:32632", **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=from_origin(*origin, gsd, gsd),
        **profile,
    ) as file:
        file.write(values, 1)


def write_scene(folder, bands, file_name="{}.tif", **profile):
    """`bands`: values by name, each at its own resolution."""
    for name, values in bands.items():
        write_band(folder / file_name.format(name), values, BANDS[name].gsd, **profile)
    return folder


def draw_scene(height, width, seed=0, names=NAMES, rounding=ceil):
    rng = np.random.default_rng(seed)
    sizes = {name: BANDS[name].gsd // 10 for name in names}
    return {
        name: rng.integers(1, 9000, (max(1, rounding(height / r)), max(1, rounding(width / r)))).astype(np.uint16)
        for name, r in sizes.items()
    }


def read_raster(path):
    with rasterio.open(path) as file:
        return file.read(), file.profile, file.descriptions


def read_map(path):
    """The probabilities of a map."""
    return read_raster(path.with_name(f"{path.stem}-probabilities.tif"))


def predict(model, scene, out, stride=None, **how):
    """Write a map with its probabilities as they are."""
    return write_map(model, scene, out, stride, **{"probabilities": "float32", **how})


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def files_of(name):
    """Names of the files of a map that is called `name`.tif and has probabilities."""
    return {f"{name}.tif", f"{name}.tif.aux.xml", f"{name}.qml", f"{name}.png", f"{name}-probabilities.tif"}
