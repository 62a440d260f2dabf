"""A split of a store as a torch `Dataset`, for training loops other than landscale's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from landscale.loading.order import labelled_patches, targets_by_name
from landscale.loading.resize import resize
from landscale.store import PatchStore, open_store
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.nomenclatures import nomenclature

PatchItem = dict[str, Tensor]


class PatchDataset(Dataset[PatchItem]):
    """The patches of a split, each as `{"image": …, "label": …}`.

    image: float32 (C, side, side), raw digital numbers of the bands in the order of `bands`, all resampled to one side.
    Normalise it by `store.statistics`. label: of a multi-label store float32 (classes,) of 0 and 1; of a single-label store the
    class's index, int64.

        from torch.utils.data import DataLoader
        from landscale.loading import PatchDataset

        dataset = PatchDataset("ben.h5", "train", bands="s2-10")
        loader = DataLoader(dataset, batch_size=256, shuffle=True, num_workers=4)
        for batch in loader:
            batch["image"], batch["label"]  # (256, 10, 120, 120) and (256, 19)

    Worker processes may be forked or spawned: a pickled dataset holds the store's path, not its content, and a worker refuses a
    store that has changed since. A DataLoader reads a whole batch at once through `__getitems__`.

    Args:
        store: an open store, or its path.
        split: train, val or test.
        bands: a band set such as `s2-10`, or bands by name; None: all bands of the store.
        side: pixels a side of the image; None: that of the finest plane.
        labels: a nomenclature that is coarser than the store's, such as `ben19`, or names of classes; patches with none of these
            classes are left out. None: the store's own.
        upsample: how coarser bands are brought to that side: bilinear, bicubic or nearest.

    Attributes:
        bands, classes: names in the order of the image's channels and of the labels. rows: (n,) the patches' rows in the store.

    Raises:
        BadStore: no store, or it lacks the split, a band or a class. UnknownName: no such split, band set or nomenclature.
    """

    def __init__(
        self,
        store: PatchStore | str | Path,
        split: str,
        bands: str | Sequence[str] | None = None,
        side: int | None = None,
        labels: str | Sequence[str] | None = None,
        upsample: str = "bilinear",
    ) -> None:
        self.store = store if isinstance(store, PatchStore) else open_store(store)
        self._arguments = (split, bands, side, labels, upsample)
        layout = self.store.layout
        self.bands = layout.image_bands if bands is None else band_set(bands).names
        self._planes = self.store.planes_for(self.bands)
        self.side = layout.side if side is None else side
        self.upsample = upsample
        names = nomenclature(labels).names if isinstance(labels, str) else labels
        self.classes = layout.classes if names is None else tuple(names)
        self.rows = labelled_patches(self.store, split, self.classes)
        self._targets = targets_by_name(self.store, self.classes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> PatchItem:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[PatchItem]:
        """The items of a batch, read at once.

        Raises:
            IndexError: an index outside the split.
        """
        rows = self.rows[np.asarray(indices, np.int64)]
        images = torch.empty(len(rows), len(self.bands), self.side, self.side)
        for plane in self._planes:
            pixels = torch.from_numpy(self.store.pixels(plane.key, rows).astype(np.float32))
            for k, band in enumerate(plane.bands):
                if band in self.bands:
                    images[:, self.bands.index(band)] = resize(pixels[:, k : k + 1], self.side, self.upsample)[:, 0]
        targets = torch.from_numpy(self._targets[rows])
        labels = targets.float() if self.store.layout.multi_label else targets.argmax(1)
        return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.store, *self._arguments)
