"""Whether an exported network has the probabilities that PyTorch computes in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from landscale.inference.exported import InputPlane, Run
from landscale.loading import Native
from landscale.models.classifier import Description
from landscale.models.input_stage import LOG_FLOOR
from landscale.models.input_units import compare_units, convert, store_source
from landscale.runtime.progress import print_notes
from landscale.store import PatchStore

TOLERANCE = 1e-4  # of a probability
_PATCHES = 8  # of a store


def random_patches(d: Description, planes: Sequence[InputPlane], n: int) -> list[Tensor]:
    """Planes (n, bands, side, side) float32 of noise in the range of the training's pixels, and somewhat beyond it."""
    generator = torch.Generator().manual_seed(n)
    found = []
    for plane in planes:
        values = torch.rand((n, len(plane.bands), plane.side, plane.side), generator=generator) * 6 - 2
        for k, band in enumerate(plane.bands):
            if band in d.statistics:
                mean, std = d.statistics[band]
                values[:, k] = mean + std * values[:, k]
            else:
                mean, std = d.statistics[f"log {band}"]
                values[:, k] = (mean + std * values[:, k]).clamp(max=11).exp() - LOG_FLOOR
            if d.units.get(band) in ("digital number", "8-bit"):
                values[:, k] = values[:, k].round().clamp(min=0)
        found.append(values)
    return found


def patches_of(store: PatchStore, d: Description, planes: Sequence[InputPlane]) -> list[Tensor]:
    """Planes (n, bands, side, side) float32 of patches of a store, spread evenly over the test split, or else val or train.

    Raises:
        BadInput: the unit of the store cannot be converted into that of the classifier.
    """
    split = next((name for name in ("test", "val", "train") if store.has_split(name)), "test")
    whole = store.patches(split)
    rows = whole[np.unique(np.linspace(0, len(whole) - 1, _PATCHES).astype(np.int64))]
    compared = compare_units(d, store_source(store, d.bands, rows, stored=d.stored))
    print_notes(compared.notes)
    by_key = {plane.key: plane for plane in store.planes_for(d.bands, d.stored)}
    found = []
    for plane in planes:
        stored = by_key[plane.name]
        pixels = store.pixels(stored.key, rows)[:, [stored.bands.index(band) for band in plane.bands]]
        native: Native = {plane.bands: torch.from_numpy(pixels.astype(np.float32))}
        found.append(convert(native, compared.factors)[plane.bands])
    return found


def largest_difference(network: nn.Module, run: Run, planes: list[Tensor]) -> float:
    """The largest absolute difference of a probability between PyTorch in float32 and an exported network; NaN if one is."""
    with torch.no_grad():
        expected = network(*planes).numpy()
    found = run([plane.numpy() for plane in planes])
    return float(np.abs(found - expected).max()) if found.shape == expected.shape else float("inf")
