"""Data sets with the interface of TorchGeo: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from archives import pixels
from landscale.datasets import torchgeo
from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.preparation import prepare_survey
from surveys import Stored, band_of, labels, refused, row_of


class Fake:
    """A data set with the interface of TorchGeo, whose samples are arrays instead of tensors."""

    classes = ("sea", "land", "ice")
    all_band_names = ("B02", "B8A")
    sizes = MappingProxyType({"train": 9, "val": 3, "test": 2})

    def __init__(self, root: str = "data", split: str = "train", download: bool = False) -> None:
        assert split in self.sizes
        if not Path(root).is_dir():
            raise FileNotFoundError(f"Dataset not found in `root={root!r}`")
        assert not download
        self.split, self.size = split, self.sizes[split]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k), "label": np.array(k % 3)}

    def image(self, k: int) -> np.ndarray:
        seed = 100 * list(self.sizes).index(self.split) + k
        return np.stack([pixels(seed, band, (8, 8)) for band in self.all_band_names]).astype(np.float32)


class FakeMulti(Fake):
    """A data set without splits, with multi-hot labels, reflectances, and three bands without names."""

    all_band_names = ("x", "y", "z")

    def __init__(self, root: str = "data") -> None:
        super().__init__(root)

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k) / 10_000, "label": np.array([k % 2, 1, k == 4])}


class FakeMasks(Fake):
    """A data set for segmentation, which has masks instead of labels."""

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        return {"image": self.image(k), "mask": self.image(k)[0]}


class FakeBad(Fake):
    """The pixels of all but the first images of val and test are not whole numbers."""

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if self.split == "train" or k == 0:
            return super().__getitem__(k)
        return {"image": self.image(k) + 0.5, "label": np.array(k % 3)}


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    package, datasets = types.ModuleType("torchgeo"), types.ModuleType("torchgeo.datasets")
    package.__version__, package.datasets = "0.0", datasets  # type: ignore[attr-defined]
    kinds = (Fake, FakeMulti, FakeMasks, FakeBad)
    datasets.__all__ = [kind.__name__ for kind in kinds]  # type: ignore[attr-defined]
    for kind in kinds:
        setattr(datasets, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "torchgeo", package)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", datasets)
    torchgeo._dataset.cache_clear()


@pytest.mark.usefixtures("fakes")
def test_pixels_labels_and_splits(tmp_path: Path, stored: Stored) -> None:
    store = stored(torchgeo.survey([(None, Path("Fake")), (None, tmp_path)]))
    assert (store.layout.classes, store.layout.multi_label) == (("sea", "land", "ice"), False)
    assert (store.layout.bands, store.layout.planes[0].dtype) == (("B02", "B8A"), "uint16")
    assert (store.layout.planes[0].unit, store.layout.level) == ("unknown", "unknown")
    assert store.split_sizes() == Fake.sizes
    for name, row in row_of(store).items():
        split, _, k = name.partition("_")
        assert labels(store, row) == {Fake.classes[int(k) % 3]}
        for band in ("B02", "B8A"):
            expected = pixels(100 * list(Fake.sizes).index(split) + int(k), band, (8, 8))
            assert np.array_equal(band_of(store, row, band), expected)


@pytest.mark.usefixtures("fakes")
def test_a_multi_label_data_set_without_splits(tmp_path: Path, stored: Stored) -> None:
    store = stored(torchgeo.survey([(None, Path("FakeMulti")), (None, tmp_path)], bands="B11,B12,B8A"))
    assert (store.layout.bands, store.layout.planes[0].dtype) == (("B11", "B12", "B8A"), "float32")
    assert store.layout.multi_label
    assert store.split_sizes() == {"train": 5, "val": 2, "test": 2}
    for k in range(9):
        row = row_of(store)[f"{k}"]
        assert labels(store, row) == {"land"} | ({"sea"} if k % 2 else set()) | ({"ice"} if k == 4 else set())
        assert np.array_equal(band_of(store, row, "B12"), pixels(k, "y", (8, 8)).astype(np.float32) / 10_000)


@pytest.mark.usefixtures("fakes")
def test_metres_per_pixel_are_those_of_the_data_set_or_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torchgeo.GSDS, "Fake", 0.5)
    monkeypatch.setitem(torchgeo.CONTENTS, "Fake", ("digital number", "L1C"))
    known, assumed = (torchgeo.survey([(None, Path(name)), (None, tmp_path)]) for name in ("Fake", "FakeMulti"))
    assert [(plane.key, plane.gsd) for plane in known.layout.planes] == [("data_0.5m", 0.5)]
    assert "gsd" not in known.provenance
    assert (known.layout.planes[0].unit, known.layout.level) == ("digital number", "L1C")
    assert [(plane.key, plane.gsd) for plane in assumed.layout.planes] == [("data_10m", 10)]
    assert assumed.provenance["gsd"] == "not in the files; 10 m a pixel are assumed"


@pytest.mark.usefixtures("fakes")
def test_whole_numbers_up_to_255_are_those_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [np.full((2, 8, 8), value, np.float32) for value in (0, 255)]
    monkeypatch.setattr(Fake, "image", lambda _, k: pictures[k % 2])
    (plane,) = torchgeo.survey([(None, Path("Fake")), (None, tmp_path)]).layout.planes
    assert (plane.dtype, plane.unit) == ("uint16", "8-bit")


@pytest.mark.usefixtures("fakes")
def test_unusable_data_sets_are_refused(tmp_path: Path) -> None:
    def surveying(name: str, root: Path = tmp_path) -> Callable[[], object]:
        return lambda: prepare_survey(torchgeo.survey([(None, Path(name)), (None, root)]), tmp_path / "s.h5")

    refused(surveying("Fakes"), UnknownName, "data set of TorchGeo 'Fakes'", "Fake")
    refused(surveying("Fake", tmp_path / "nowhere"), BadInput, "nowhere: TorchGeo does not find Fake in this folder")
    refused(surveying("FakeMasks"), BadInput, "FakeMasks train[0]: has image, mask")
    refused(surveying("FakeBad"), LandscaleError, "FakeBad val[1]: has pixels that are not whole numbers")
    refused(lambda: torchgeo.survey([(None, Path("Fake"))]), LandscaleError, "the name of a data set and its folder")


def test_a_missing_torchgeo_is_reported_with_its_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", None)
    inputs = [(None, Path("EuroSAT")), (None, tmp_path)]
    refused(lambda: torchgeo.survey(inputs), LandscaleError, "pip install torchgeo")


class FakeOdd(Fake):
    """A data set whose first sample has another size, or cannot be read."""

    damaged = False

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        if k == 0 and self.damaged:
            raise OSError("damaged")
        image = self.image(k)
        return {"image": image[:, :4, :4] if k == 0 else image, "label": np.array(k % 3)}


@pytest.mark.parametrize("damaged", [False, True])
def test_the_first_sample_does_not_decide(damaged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeOdd, "damaged", damaged)
    monkeypatch.setitem(sys.modules, "torchgeo.datasets", types.SimpleNamespace(FakeOdd=FakeOdd, __all__=["FakeOdd"]))
    monkeypatch.setitem(sys.modules, "torchgeo", types.SimpleNamespace(__version__="0"))
    torchgeo._dataset.cache_clear()
    survey = torchgeo.survey([(None, Path("FakeOdd")), (None, tmp_path)])
    assert survey.layout.planes[0].side == 8
    result = prepare_survey(survey, tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in result.skipped] == ["test_0", "train_0", "val_0"]
