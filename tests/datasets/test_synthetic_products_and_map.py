"""The synthetic country: reproducible, and one landscape across its tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from landscale.datasets.synthetic.products_and_map import write_country
from landscale.errors import BadInput
from landscale.scenes.tile import open_tiles
from products import image, read


def test_the_same_arguments_give_the_same_bytes(country: Path, tmp_path: Path) -> None:
    write_country(tmp_path / "again", tiles=3, side=600)
    files = sorted(p.relative_to(country) for p in country.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file())
    for path in files:
        assert (country / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path
    assert [p.name for p in tmp_path.iterdir()] == ["again"]


def test_an_existing_country_is_kept_and_other_folders_and_arguments_are_refused(country: Path, tmp_path: Path) -> None:
    write_country(country, tiles=3, side=600)
    with pytest.raises(BadInput, match="expected"):
        write_country(country, tiles=2, side=600)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(BadInput, match="no synthetic country"):
        write_country(tmp_path / "else")
    with pytest.raises(BadInput, match="of 700 px"):
        write_country(tmp_path / "odd", side=700)
    assert [p.name for p in tmp_path.iterdir()] == ["else"]


def test_neighbouring_tiles_continue_one_landscape(country: Path) -> None:
    """Also: digital numbers have the offset, nodata has none."""
    one, two, below = open_tiles(country)
    assert (two.left - one.left, one.top - below.top) == (6000, 6000)
    assert [tile.mgrs for tile in (one, two, below)] == ["T33XAA", "T33XAB", "T33XAC"]
    for tile in (one, two, below):
        assert tile.scene.offset == 1000
        b02, scl = read(tile.scene.files["B02"]), read(image(tile.scene.folder, "SCL"))
        assert ((b02 == 0) == (scl == 0).repeat(2, 0).repeat(2, 1)).all()
        assert b02[b02 > 0].min() > 1000
    west, east = (read(tile.scene.files["B08"]).astype(float) for tile in (one, two))
    seam = np.abs(west[:, -1] - east[:, 0]).mean()
    assert seam < 1.5 * np.abs(np.diff(west[:, -100:], axis=1)).mean()
