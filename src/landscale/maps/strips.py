"""Strips of a scene from north to south: bands are decoded in parallel, every block of a file once, ahead of their use.

A damaged block ends the map. Preparation leaves out the patches that it touches, and reads between two columns (`scenes.strips`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.loading import Native
from landscale.runtime.portability import usable_cores
from landscale.scenes.pixels import ScenePixels

Strip = dict[str, NDArray[np.uint16]]


class BandRows:
    """Rows of one band, which must be requested from north to south; a request may begin `back` rows above the last one.

    GDAL's cache does not keep decoded blocks of JPEG 2000 between two reads, so whole rows of blocks are decoded, and those that
    a later request may need stay in memory.
    """

    def __init__(self, pixels: ScenePixels, band: str, back: int) -> None:
        self._pixels, self._band, self._back = pixels, band, back
        self._block = pixels.files[band].block_shape[0]
        self._height = int(pixels.files[band].height)
        self._first, self._values = 0, np.empty((0, pixels.files[band].width), np.uint16)

    def rows(self, top: int, bottom: int) -> NDArray[np.uint16]:
        """Rows `top` to `bottom` as stored: (rows, width); those below the file are missing, but there is always one.

        Raises:
            BadInput: the file is damaged there.
        """
        top, bottom = min(top, self._height - 1), min(max(bottom, top + 1), self._height)
        end = self._first + len(self._values)
        if not self._first <= top <= end:
            self._first, self._values, end = top, self._values[:0], top
        first = max(self._first, min(top, end) - self._back)
        kept = self._values[first - self._first :]
        if bottom > end:
            needed = min(-(-bottom // self._block) * self._block, self._height)
            fresh = self._pixels.read(self._band, end, needed - end)
            kept = np.concatenate([kept, fresh]) if len(kept) else fresh
        self._first, self._values = first, kept
        return kept[top - first : bottom - first]


class EmptyPixels:
    """Which pixels of a scene have no data: those where all bands of its finest grid are 0. One bit for each."""

    def __init__(self, pixels: ScenePixels) -> None:
        self._width, self.rows = pixels.width, 0  # rows that are known
        self._bits = np.zeros((pixels.height, -(-pixels.width // 8)), np.uint8)

    def add(self, empty: NDArray[np.bool_]) -> None:
        """Append rows (n, width)."""
        self._bits[self.rows : self.rows + len(empty)] = np.packbits(empty, axis=1)
        self.rows += len(empty)

    def get(self, top: int, bottom: int) -> NDArray[np.bool_]:
        """Rows `top` to `bottom`: (n, width)."""
        return np.unpackbits(self._bits[top:bottom], axis=1, count=self._width).astype(bool)


def read_strips(
    pixels: ScenePixels, tops: Sequence[int], wanted: Sequence[bool], side: int, across: int, empty: EmptyPixels
) -> Iterator[Strip | None]:
    """The strips of `side` rows that begin at `tops`, or None where a strip is not wanted; `empty` is filled on the way.

    Every band is at its native resolution, without offset, and padded to `side` rows and `across` columns by its border pixels.

    Raises:
        BadInput: a file is damaged.
    """
    readers = {band: BandRows(pixels, band, side // ratio) for band, ratio in pixels.ratios.items()}
    finest = [band for band, ratio in pixels.ratios.items() if ratio == 1]
    with ThreadPoolExecutor(min(len(readers), usable_cores()), "decode") as pool:
        for top, used in zip(tops, wanted, strict=True):
            bottom = pixels.height if top == tops[-1] else top + side
            first = min(top, empty.rows)
            decoded = {}
            for band, ratio in pixels.ratios.items():
                if ratio == 1:
                    decoded[band] = pool.submit(readers[band].rows, first, bottom)
                elif used:
                    decoded[band] = pool.submit(readers[band].rows, top // ratio, (top + side) // ratio)
            raw = {band: rows.result() for band, rows in decoded.items()}
            known = empty.rows - first
            empty.add(np.all([raw[band][known:] == 0 for band in finest], axis=0))
            if not used:
                yield None
                continue
            strip = {}
            for band, ratio in pixels.ratios.items():
                rows = raw[band][top - first :][:side] if ratio == 1 else raw[band]
                rows = pixels.harmonise(rows.copy())
                down, right = side // ratio - rows.shape[0], max(0, across // ratio - rows.shape[1])
                strip[band] = np.pad(rows, ((0, down), (0, right)), mode="edge")
            yield strip


def cut_windows(places: Sequence[tuple[Strip, int]], pixels: ScenePixels, side: int, device: torch.device) -> Native:
    """Windows of strips, each given by its first column, as planes of a batch on the device."""
    groups: dict[int, list[str]] = {}
    for band, ratio in pixels.ratios.items():
        groups.setdefault(ratio, []).append(band)
    planes: Native = {}
    for ratio, bands in groups.items():
        edge = side // ratio
        cut = [[strip[b][:, x // ratio : x // ratio + edge] for b in bands] for strip, x in places]
        planes[tuple(bands)] = torch.from_numpy(np.array(cut)).to(device)
    return planes
