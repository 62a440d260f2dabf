"""`PatchDataset` returns the patches of the store, also in DataLoader workers that are forked or spawned."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from landscale.errors import BadStore, UnknownName
from landscale.loading import PatchDataset
from landscale.store import open_store
from landscale.testing import CLASSES, make_store, rgbn_plane, sentinel_planes
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from lmdbs import put
from lmdbs import write as write_lmdb

SPLITS = {"val": 5, "train": 11, "test": 3}
BANDS = ("B12", "B04", "B01")  # from three planes, in another order than in the store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("dataset") / "s.h5", planes=sentinel_planes(12), splits=SPLITS, bad=(7,), seed=3
    )


def band_of(store, name, rows):
    """One band (n, side, side) float32 from `store.pixels`."""
    plane = next(p for p in store.layout.planes if name in p.bands)
    return store.pixels(plane.key, rows)[:, plane.bands.index(name)].astype(np.float32)


@pytest.mark.parametrize("workers", [(0, None), (2, "fork"), (2, "spawn")], ids=str)
def test_a_data_loader_returns_every_patch_of_the_split(store, workers):
    number, start = workers
    dataset = PatchDataset(store, "train", bands=BANDS, upsample="nearest")
    loader = DataLoader(dataset, batch_size=4, num_workers=number, multiprocessing_context=start)
    batches = list(loader)
    rows = store.patches("train")
    assert len(rows) == 10  # all patches of the split but the bad one
    assert [len(batch["image"]) for batch in batches] == [4, 4, 2]
    images = torch.cat([batch["image"] for batch in batches])
    labels = torch.cat([batch["label"] for batch in batches])
    assert (images.dtype, tuple(images.shape)) == (torch.float32, (10, 3, 12, 12))
    assert (labels.dtype, tuple(labels.shape)) == (torch.float32, (10, len(CLASSES)))
    for channel, (band, factor) in enumerate(zip(BANDS, (2, 1, 6), strict=True)):
        expected = band_of(store, band, rows).repeat(factor, axis=1).repeat(factor, axis=2)
        assert np.array_equal(images[:, channel].numpy(), expected), band
    assert np.array_equal(labels.numpy(), store.classes[rows])


def test_coarser_bands_are_resampled_to_the_requested_side(store):
    rows = store.patches("val")
    item = PatchDataset(store, "val", bands=["B02", "B05"], side=6)[2]
    blocks = band_of(store, "B02", rows)[2].reshape(6, 2, 6, 2).mean((1, 3))
    assert np.allclose(item["image"][0].numpy(), blocks)
    assert np.array_equal(item["image"][1].numpy(), band_of(store, "B05", rows)[2])
    larger = PatchDataset(store, "val", bands=["B05"], side=24)[2]["image"]
    coarse = torch.from_numpy(band_of(store, "B05", rows)[2])[None, None]
    assert torch.equal(larger, F.interpolate(coarse, size=(24, 24), mode="bilinear", align_corners=False)[0])


def test_single_items_equal_those_of_a_batch(store):
    dataset = PatchDataset(store, "train")
    assert len(dataset) == 10
    assert dataset.bands == store.layout.bands
    together = dataset.__getitems__([3, 0, 3])
    for item, index in zip(together, (3, 0, 3), strict=True):
        assert torch.equal(item["image"], dataset[index]["image"])
        assert torch.equal(item["label"], dataset[index]["label"])
    assert not torch.equal(together[0]["image"], together[1]["image"])
    assert torch.equal(dataset[-1]["image"], dataset[9]["image"])
    with pytest.raises(IndexError):
        dataset[10]


def test_a_single_label_store_gives_class_indices(tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(6), splits={"train": 9}, multi_label=False)
    batch = next(iter(DataLoader(PatchDataset(store, "train"), batch_size=9)))
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == store.classes.argmax(1).tolist()
    assert len(set(batch["label"].tolist())) > 1


def test_labels_are_converted_to_a_coarser_nomenclature(tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(6), classes=CLC43.names, splits={"train": 9})
    dataset = PatchDataset(store.path, "train", labels="ben19")
    assert dataset.classes == BEN19.names
    expected = store.classes[:, CLC43.names.index("Pastures")]
    assert [int(dataset[k]["label"][BEN19.names.index("Pastures")]) for k in range(9)] == expected.tolist()
    chosen = PatchDataset(store, "train", labels=["Pastures", "Airports"])
    assert chosen[0]["label"].shape == (2,)


def test_a_pickled_dataset_holds_no_pixels(store):
    dataset = PatchDataset(store, "train", bands=BANDS, side=6, labels=CLASSES[:2], upsample="bicubic")
    packed = pickle.dumps(dataset)
    assert len(packed) < 2000
    copy = pickle.loads(packed)
    assert (copy.bands, copy.side, copy.classes, copy.upsample) == (BANDS, 6, CLASSES[:2], "bicubic")
    assert torch.equal(copy[4]["image"], dataset[4]["image"])
    assert torch.equal(copy[4]["label"], dataset[4]["label"])


def test_a_pickled_store_holds_its_path_and_refuses_another_file(tmp_path):
    store = make_store(tmp_path / "s.h5", splits={"train": 400}, seed=1)
    packed = pickle.dumps([store, PatchDataset(store, "train")])
    assert len(packed) < 2000
    assert np.array_equal(pickle.loads(packed)[0].classes, store.classes)
    make_store(tmp_path / "other.h5", splits={"train": 400}, seed=2)
    (tmp_path / "other.h5").replace(store.path)
    with pytest.raises(BadStore, match="was changed or replaced while it was being read"):
        pickle.loads(packed)


def test_a_pickled_lmdb_holds_its_path_and_refuses_another_content(lmdb_copy):
    store = open_store(lmdb_copy)
    packed = pickle.dumps(PatchDataset(store, "train", bands=("B02",)))
    assert len(packed) < 2000
    assert torch.equal(pickle.loads(packed)[0]["image"], PatchDataset(store, "train", bands=("B02",))[0]["image"])
    put(lmdb_copy, {"another": b""})
    with pytest.raises(BadStore, match="was changed or replaced while it was being read"):
        pickle.loads(packed)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_an_lmdb_read_before_workers_start_can_be_read_by_the_workers(tmp_path, start):
    """Each process opens the LMDB environments itself, because LMDB forbids using inherited ones."""
    store = open_store(write_lmdb(tmp_path / "Encoded"))
    dataset = PatchDataset(store, "train", bands=("B02",))
    first = dataset[0]["image"]
    loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=start)
    images = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(images[0], first)
    assert np.array_equal(images[:, 0].numpy(), band_of(store, "B02", store.patches("train")))


def test_a_missing_split_band_or_class_is_refused(store, tmp_path):
    with pytest.raises(UnknownName, match="split 'training'"):
        PatchDataset(store, "training")
    with pytest.raises(BadStore, match="lacks VV"):
        PatchDataset(store, "train", bands=("VV",))
    with pytest.raises(BadStore, match="Urban fabric"):
        PatchDataset(store, "train", labels="ben19")
    with pytest.raises(BadStore, match=r"no\.h5"):
        PatchDataset(tmp_path / "no.h5", "train")
