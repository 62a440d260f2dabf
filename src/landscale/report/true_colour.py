"""Patches of a store in true colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from landscale.store import PatchStore

RGB = ("B04", "B03", "B02")
_BRIGHTENING = 0.7  # exponent of values from 0 to 1; below 1, dark forests stay visible next to bright clouds


def true_colour(store: PatchStore, patches: NDArray[np.int64], bands: Sequence[str] = RGB) -> NDArray[np.uint8]:
    """(n, side, side, 3) uint8. All patches together are stretched from their 2nd to their 98th percentile.

    `bands` are shown as red, green and blue; for a store without those of true colour, others may be given.
    """
    planes = {band: plane for plane in reversed(store.planes_for(bands)) for band in plane.bands}
    pixels = {key: store.pixels(key, patches) for key in {planes[band].key for band in bands}}
    channels = [pixels[planes[band].key][:, planes[band].bands.index(band)].astype(np.float32) for band in bands]
    side = max(channel.shape[-1] for channel in channels)
    nearest = [np.arange(side) * channel.shape[-1] // side for channel in channels]
    same_side = [channel[:, rows][:, :, rows] for channel, rows in zip(channels, nearest, strict=True)]
    values = np.nan_to_num(np.stack(same_side, axis=-1))
    low, high = np.percentile(values, (2, 98), axis=(0, 1, 2))
    stretched: NDArray[np.float32] = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1)
    return (255 * stretched**_BRIGHTENING).astype(np.uint8)
