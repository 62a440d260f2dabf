"""EuroSAT as published: every pixel and label in the store is that of the files."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from archives import MS_ORDER
from conftest import Cli
from landscale.store import open_store
from landscale.vocabulary.nomenclatures import EUROSAT10

pytestmark = pytest.mark.real_data
Published = Callable[[str], Path]


def test_all_thirteen_bands(published: Published, tmp_path: Path, cli: Cli) -> None:
    root = published("EuroSAT_MS")
    assert cli("prepare", "eurosat", root, tmp_path / "s.h5", "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    assert len(store) == 216
    names = store.column("name").tolist()
    (plane,) = store.layout.planes
    for row in range(0, 216, 27):
        name = names[row]
        assert [EUROSAT10.names[c] for c in np.flatnonzero(store.classes[row])] == [name.split("_")[0]]
        with rasterio.open(root / name.split("_")[0] / f"{name}.tif") as file:
            expected = dict(zip(MS_ORDER, file.read(), strict=True))
            assert store.column("origin")[row].tolist() == [file.transform.c, file.transform.f]
        for b, band in enumerate(plane.bands):
            assert np.array_equal(store.pixels("data_10m", [row])[0, b], expected[band])
    # B8A comes last in the files but lies beside B08 in the spectrum: no other band correlates with it as much as B07 and B08.
    values = store.pixels("data_10m").astype(np.float64).transpose(1, 0, 2, 3).reshape(13, -1)
    b8a = plane.bands.index("B8A")
    correlation = np.corrcoef(values)[b8a]
    correlation[b8a] = 0
    assert plane.bands[int(correlation.argmax())] in {"B07", "B08"}


def test_rgb_from_a_zip(published: Published, tmp_path: Path, cli: Cli) -> None:
    source = published("EuroSAT_RGB_validation.zip")
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(tmp_path / "sample.zip", "w") as sample:
        members = [m for m in archive.namelist() if m.endswith(".jpg")]
        assert len(members) == 5400
        for member in members[::50]:
            sample.writestr(member, archive.read(member))
    assert cli("prepare", "eurosat", f"val={tmp_path / 'sample.zip'}", tmp_path / "s.h5", "--workers", 1).code == 0
    store = open_store(tmp_path / "s.h5")
    assert store.split_sizes() == {"val": 108}
    rows = {name: k for k, name in enumerate(store.column("name").tolist())}
    with zipfile.ZipFile(source) as archive:
        for member in members[::500]:
            with Image.open(archive.open(member)) as image:
                expected = np.asarray(image).transpose(2, 0, 1)
            assert np.array_equal(store.pixels("data_10m", [rows[Path(member).stem]])[0], expected)
