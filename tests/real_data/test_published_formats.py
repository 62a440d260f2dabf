"""What the package writes or lists beside what was published: the synthetic archive's files, the download catalogue."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import rasterio

from archives import GSD
from badserver import digest
from landscale.datasets.synthetic.bigearthnet_archive import write_archive
from landscale.download.catalogue import find_archive

pytestmark = pytest.mark.real_data
Published = Callable[[str], Path]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_synthetic_files_have_the_published_format(version: str, published: Published, tmp_path: Path) -> None:
    root = published(f"bigearthnet-{version}")
    original = sorted(root.glob("BigEarthNet-[Sv]*/**/S2*_B11.tif"))[0]
    write_archive(tmp_path / "made", patches=2, layout=version)
    made = sorted((tmp_path / "made").glob("BigEarthNet-[Sv]*/**/*_B11.tif"))[0]
    for band in GSD:
        with (
            rasterio.open(str(original).replace("_B11", f"_{band}")) as expected,
            rasterio.open(str(made).replace("_B11", f"_{band}")) as found,
        ):
            profiles = [
                {k: v for k, v in f.profile.items() if k not in ("transform", "crs")} for f in (found, expected)
            ]
            assert profiles[0] == profiles[1]
            assert found.tags(ns="IMAGE_STRUCTURE") == expected.tags(ns="IMAGE_STRUCTURE")
    if version == "v2":
        columns = pd.read_parquet(root / "metadata.parquet").dtypes
        assert pd.read_parquet(tmp_path / "made" / "metadata.parquet").dtypes.equals(columns)


@pytest.mark.parametrize("name", ["bigearthnet-v2", "bigearthnet-v1-lists"])
def test_the_catalogue_has_the_official_digests(name: str, published: Published) -> None:
    checked = 0
    for file in find_archive(name).files:
        plain = published("bigearthnet-v2-metadata") / file.path
        packed = published("bigearthnet-v1") / f"{file.path}.bz2"
        if plain.exists():
            content = plain.read_bytes()
        elif packed.exists() and "patches_with" in packed.name:  # the lists of the splits have another form there
            content = bz2.decompress(packed.read_bytes())
        else:
            continue
        assert (digest(content), len(content)) == (file.digest, file.size)
        checked += 1
    assert checked == 2
