"""A small So2Sat LCZ42 in its published layout: every pixel, label and split is stored under the name of its patch."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from landscale.datasets import so2sat
from landscale.errors import BadInput
from landscale.preparation import prepare_survey
from landscale.vocabulary.nomenclatures import LCZ17
from surveys import Stored, band_of, refused, row_of


def write_so2sat(root: Path, sizes: dict[str, int]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for stem, size in sizes.items():
        rng = np.random.default_rng(len(stem))
        with h5py.File(root / f"{stem}.h5", "w") as file:
            sen1 = rng.normal(0, 0.3, (size, 32, 32, 8))
            sen1[..., 4:6] = rng.uniform(0.001, [0.1, 0.9], (size, 32, 32, 2))
            file["sen1"] = sen1
            file["sen2"] = rng.uniform(0.01, np.linspace(0.2, 2.8, 10), (size, 32, 32, 10))
            file["label"] = np.eye(17)[(np.arange(size) * 5 + len(stem)) % 17]
    return root


def test_pixels_labels_and_splits(tmp_path: Path, stored: Stored) -> None:
    """Slices cross chunks and files. VH comes before VV in the files. Intensities become decibels."""
    sizes = {"training": 150, "validation": 20, "testing": 7}
    root = write_so2sat(tmp_path / "so2sat", sizes)
    store = stored(so2sat.survey([(None, root)]))
    assert (store.layout.classes, store.layout.multi_label) == (LCZ17.names, False)
    assert {plane.key: plane.unit for plane in store.layout.planes} == {"data_10m": "digital number", "data_s1": "dB"}
    assert store.layout.level == "L1C"
    assert store.split_sizes() == {"train": 150, "val": 20, "test": 7}
    names = row_of(store)
    for stem, size in sizes.items():
        with h5py.File(root / f"{stem}.h5") as file:
            sen1, sen2, label = (file[key][...] for key in ("sen1", "sen2", "label"))
        row = [names[f"{stem}_{k:06d}"] for k in range(size)]
        assert np.array_equal(store.classes[row], label)
        numbers, decibels = (store.pixels(key, row) for key in ("data_10m", "data_s1"))
        for plane, band in enumerate(("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")):
            found = numbers[:, store.layout.planes[0].bands.index(band)]
            assert np.array_equal(found, np.round(sen2[..., plane] * 10_000))
        for plane, band in ((4, "VH"), (5, "VV")):
            found = decibels[:, store.layout.planes[1].bands.index(band)]
            assert np.allclose(found, 10 * np.log10(sen1[..., plane]), atol=1e-5)
    whole = store.path.read_bytes()
    files = [("train", root / "training.h5"), ("val", root / "validation.h5"), (None, root / "testing.h5")]
    assert stored(so2sat.survey(files), name="files.h5").path.read_bytes() == whole


def test_extreme_and_invalid_pixels(tmp_path: Path, stored: Stored) -> None:
    """An intensity of 0 becomes −50 dB, a reflectance above 6.5535 65535; only patches with NaN are damaged."""
    root = write_so2sat(tmp_path, {"training": 5})
    with h5py.File(root / "training.h5", "r+") as file:
        file["sen1"][0, 3, 4, 5] = 0
        file["sen2"][1, 0, 0, 2] = 7
        file["sen2"][1, 0, 1, 2] = -0.01
    store = stored(so2sat.survey([(None, root)]))
    assert band_of(store, 0, "VV")[3, 4] == -50
    assert band_of(store, 1, "B04")[0, :2].tolist() == [65535, 0]
    with h5py.File(root / "training.h5", "r+") as file:
        file["sen2"][2, 0, 0, 2] = np.nan
        file["sen1"][4, 0, 0, 4] = np.inf
    outcome = prepare_survey(so2sat.survey([(None, root)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == ["training_000002", "training_000004"]
    assert all("training.h5::" in problem and "not a number" in problem for _, problem in outcome.skipped)


def test_only_the_damaged_patches_of_a_damaged_file_are_reported(tmp_path: Path) -> None:
    root = write_so2sat(tmp_path, {"training": 6})
    path = root / "training.h5"
    with h5py.File(path, "r+") as file:
        values = file["sen2"][...]
        del file["sen2"]
        file.create_dataset("sen2", data=values, chunks=(1, 32, 32, 10), fletcher32=True)
        offset = file["sen2"].id.get_chunk_info(3).byte_offset
    with path.open("r+b") as file:
        file.seek(offset + 100)
        file.write(b"\xff\xff\xff")
    outcome = prepare_survey(so2sat.survey([(None, root)]), tmp_path / "s.h5", skip_bad=True)
    assert [name for name, _ in outcome.skipped] == ["training_000003"]
    assert "training.h5::3: cannot be read" in outcome.skipped[0][1]


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    refused(lambda: so2sat.survey([(None, tmp_path)]), BadInput, "has none of training.h5")
    refused(lambda: so2sat.survey([(None, tmp_path / "training.h5")]), BadInput, "training.h5: is no HDF5 file")
    write_so2sat(tmp_path, {"training": 3, "other": 2})
    refused(lambda: so2sat.survey([(None, tmp_path / "other.h5")]), BadInput, "split 'other'")
    with h5py.File(tmp_path / "training.h5", "r+") as file:
        file["label"][1] = 0
    refused(lambda: so2sat.survey([(None, tmp_path)]), BadInput, "training.h5::1: has a label that is not one-hot")
    with h5py.File(tmp_path / "training.h5", "r+") as file:
        del file["sen2"]
    refused(
        lambda: so2sat.survey([(None, tmp_path)]),
        BadInput,
        "training.h5: has the array sen2 of shape None, expected (3, 32, 32, 10)",
    )
