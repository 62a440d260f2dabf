"""Write small archives in the layouts of BigEarthNet v1, v2 and EuroSAT, in which all patches, bands and classes differ."""

from __future__ import annotations

import bz2
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from numpy.typing import NDArray
from PIL import Image

from landscale.vocabulary.nomenclatures import BEN19, CLC43, EUROSAT10

GSD = {
    "B01": 60,
    "B02": 10,
    "B03": 10,
    "B04": 10,
    "B05": 20,
    "B06": 20,
    "B07": 20,
    "B08": 10,
    "B8A": 20,
    "B09": 60,
    "B11": 20,
    "B12": 20,
}
PLANES = {"data_10m": 10, "data_20m": 20, "data_60m": 60}
MS_ORDER = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")
SPLITS = ("train", "train", "validation", "test")
CODES = {"none": 0, "train": 1, "val": 2, "validation": 2, "test": 3}


@dataclass(frozen=True)
class Patch:
    """Metadata of patch number k, with the names and labels of v1 and v2."""

    k: int

    @property
    def epsg(self) -> int:
        return (32633, 32629)[self.k % 2]

    @property
    def tile(self) -> str:
        return ("T33UUP", "T29SND")[self.k % 2]

    @property
    def corner(self) -> tuple[int, int]:
        return 300_000 + 1200 * self.k, 5_300_040 - 2400 * self.k

    @property
    def product(self) -> str:
        return ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "S2B_MSIL2A_20171221T093209_N9999_R037_T29SND")[
            self.k % 2
        ]

    @property
    def v1(self) -> str:
        """The name of the patch in v1, with hours without a leading zero, and without orbit and tile."""
        return ("S2A_MSIL2A_20170613T101031", "S2B_MSIL2A_20171221T93209")[self.k % 2] + f"_{self.k}_{2 * self.k}"

    @property
    def v2(self) -> str:
        return f"{self.product}_{self.k:02d}_{2 * self.k:02d}"

    @property
    def date(self) -> str:
        return ("2017-06-13T10:10:31", "2017-12-21T09:32:09")[self.k % 2]

    @property
    def country(self) -> str:
        return ("Austria", "Portugal")[self.k % 2]

    @property
    def split(self) -> str:
        return SPLITS[self.k % 4]

    @property
    def snow(self) -> bool:
        return self.k % 7 == 2

    @property
    def cloud(self) -> bool:
        return self.k % 7 == 5

    @property
    def clc(self) -> list[str]:
        """Labels of the 43 classes. Patch 3 has only a class that has no counterpart among the 19."""
        if self.k == 3:
            return ["Airports"]
        return [CLC43.names[c] for c in sorted({(5 * self.k) % 43, (11 * self.k + 1) % 43}, reverse=True)]

    @property
    def ben(self) -> list[str]:
        return [BEN19.names[c] for c in sorted({self.k % 19, (7 * self.k + 3) % 19}, reverse=True)]


def pixels(k: int, band: str, shape: tuple[int, ...] | None = None) -> NDArray[np.uint16]:
    """Digital numbers of a band of a patch: noise whose level depends on the band, and whose seed depends on patch and band."""
    side = 1200 // GSD.get(band, 10)
    rng = np.random.default_rng([k, zlib.crc32(band.encode())])
    return (rng.integers(0, 3000, shape or (side, side)) + zlib.crc32(band.encode()) % 7000).astype(np.uint16)


def write_band(
    path: Path, values: NDArray[np.generic], corner: tuple[float, float], gsd: float, epsg: int, **how: object
) -> None:
    """Write a GeoTIFF like those of BigEarthNet, with one uncompressed band; `how` overrides its profile."""
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values.dtype.name}
    profile |= {"crs": f"EPSG:{epsg}", "transform": rasterio.Affine(gsd, 0, corner[0], 0, -gsd, corner[1]), **how}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values)


def write_patch(folder: Path, patch: Patch, **how: object) -> None:
    folder.mkdir(parents=True)
    for band, gsd in GSD.items():
        write_band(folder / f"{folder.name}_{band}.tif", pixels(patch.k, band), patch.corner, gsd, patch.epsg, **how)


def write_v1(root: Path, patches: Sequence[Patch], suffix: str = "csv.bz2") -> Path:
    """Write `BigEarthNet-v1.0` and its lists. The lists of splits leave out snow and clouds, as the official ones do."""
    for patch in patches:
        folder = root / "BigEarthNet-v1.0" / patch.v1
        write_patch(folder, patch)
        left, top = patch.corner
        content = {
            "labels": patch.clc,
            "coordinates": {"ulx": left, "uly": top, "lrx": left + 1200, "lry": top - 1200},
            "projection": rasterio.CRS.from_epsg(patch.epsg).to_wkt(),
            "tile_source": f"S2A_MSIL1C_20170613T101031_N0205_R022_{patch.tile}_20170613T101608.SAFE",
            "acquisition_date": patch.date.replace("T", " "),
        }
        (folder / f"{patch.v1}_labels_metadata.json").write_text(json.dumps(content))
    clear = [p for p in patches if not (p.snow or p.cloud)]
    lists = {
        "train": [p for p in clear if p.split == "train"],
        "val": [p for p in clear if p.split == "validation"],
        "test": [p for p in clear if p.split == "test"],
        "patches_with_seasonal_snow": [p for p in patches if p.snow],
        "patches_with_cloud_and_shadow": [p for p in patches if p.cloud],
    }
    write_lists(root / "metadata", {name: [p.v1 for p in listed] for name, listed in lists.items()}, suffix)
    return root


def write_lists(folder: Path, lists: dict[str, list[str]], suffix: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, listed in lists.items():
        text = "".join(f"{line}\n" for line in listed).encode()
        (folder / f"{name}.{suffix}").write_bytes(bz2.compress(text) if suffix.endswith("bz2") else text)
    return folder


def metadata(patches: Sequence[Patch]) -> pd.DataFrame:
    """The table of `metadata.parquet`."""
    return pd.DataFrame(
        {
            "patch_id": [p.v2 for p in patches],
            "labels": [p.ben for p in patches],
            "split": [p.split for p in patches],
            "country": [p.country for p in patches],
            "s1_name": [f"S1B_IW_GRDH_1SDV_20170612T165809_{p.tile[1:]}_{p.k}_{2 * p.k}" for p in patches],
            "s2v1_name": [p.v1 for p in patches],
            "contains_seasonal_snow": [p.snow for p in patches],
            "contains_cloud_or_shadow": [p.cloud for p in patches],
        }
    )


def write_v2(root: Path, patches: Sequence[Patch]) -> Path:
    for patch in patches:
        write_patch(root / "BigEarthNet-S2" / patch.product / patch.v2, patch, nodata=0)
    metadata(patches).to_parquet(root / "metadata.parquet", index=False)
    return root


def link_v2(root: Path, source: Path, count: int) -> Path:
    """Write an archive of many patches whose files are hard links to those of the archive at `source`."""
    models = sorted(source.glob("BigEarthNet-S2/*/*"))
    table = pd.read_parquet(source / "metadata.parquet").set_index("patch_id")
    rows = []
    for k in range(count):
        model = models[k % len(models)]
        name = f"{model.parent.name}_{k:03d}_{k:03d}"
        folder = root / "BigEarthNet-S2" / model.parent.name / name
        folder.mkdir(parents=True)
        for band in GSD:
            (folder / f"{name}_{band}.tif").hardlink_to(model / f"{model.name}_{band}.tif")
        rows.append({**table.loc[model.name].to_dict(), "patch_id": name})
    pd.DataFrame(rows).to_parquet(root / "metadata.parquet", index=False)
    return root


def image(k: int, name: str) -> NDArray[np.uint8]:
    """A smooth image, which still differs from all others after JPEG compression."""
    y, x = np.mgrid[:64, :64]
    level = zlib.crc32(f"{name}{k}".encode())
    planes = [(level >> shift) % 200 + np.sin((x + shift * y) / (9 + k)) * 25 + 25 for shift in (0, 8, 16)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def write_eurosat(root: Path, each: int = 5, classes: Sequence[str] = EUROSAT10.names) -> Path:
    """Write `EuroSAT_RGB/<Class>/<Class>_<n>.jpg`; returns the folder `EuroSAT_RGB`."""
    for name in classes:
        folder = root / "EuroSAT_RGB" / name
        folder.mkdir(parents=True)
        for k in range(1, each + 1):
            Image.fromarray(image(k, name)).save(folder / f"{name}_{k}.jpg", quality=95)
    return root / "EuroSAT_RGB"


def write_eurosat_ms(root: Path, each: int = 2) -> Path:
    for c, name in enumerate(EUROSAT10.names):
        (root / name).mkdir(parents=True)
        for k in range(1, each + 1):
            bands = np.stack([pixels(100 * c + k, band, (64, 64)) for band in MS_ORDER])
            write_band(root / name / f"{name}_{k}.tif", bands, (341_280.39 + k, 5_709_712.74), 9.99910553717879, 32631)
    return root
