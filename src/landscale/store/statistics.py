"""Mean and standard deviation of bands over a split, from the sum and sum of squares of each patch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import xxhash
from msgspec import Meta
from numpy.typing import NDArray

from landscale.errors import BadInput
from landscale.runtime.documents import read_json, typed, write_json
from landscale.runtime.portability import usable_cores
from landscale.runtime.progress import progress_bar
from landscale.store.band_sums import moments
from landscale.store.layout import Layout

Gather = Callable[[NDArray[np.int64], Mapping[str, NDArray[np.generic]]], None]
PART = 4096  # patches whose moments are added at once
_CHUNK = 64  # patches read at once


@dataclass(frozen=True)
class _Cached:
    """The content of `NAME.statistics.json`. digest: xxh3-64 of `statistics`, in hexadecimal."""

    plan: str
    statistics: dict[str, tuple[Annotated[float, Meta(ge=-1e12, le=1e12)], Annotated[float, Meta(ge=0, le=1e12)]]]
    digest: str


def _digest(statistics: Mapping[str, tuple[float, float]]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(statistics, sort_keys=True).encode())


def mean_and_deviation(parts: Iterable[NDArray[np.float64]], pixels: Sequence[int]) -> NDArray[np.float64]:
    """Mean and standard deviation of each band (bands, 2) over the patches of all `parts`; NaN without patches.

    Args:
        parts: `moments` (n, bands, 2), each of PART patches, the last one of the remaining patches.
        pixels: pixels of each band in one patch (bands,).
    """
    total: list[list[float]] = [[0, 0] for _ in pixels]
    patches = 0
    for part in parts:
        patches += len(part)
        for b in range(len(pixels)):
            for k in range(2):
                total[b][k] += _sum(part[:, b, k])
    result = np.full((len(pixels), 2), np.nan)
    for b, (first, second) in enumerate(total if patches else []):
        count = pixels[b] * patches
        # Dividing last keeps integers exact up to this point; a difference of squared means would lose small deviations.
        result[b] = first / count, max((count * second - first * first) / count**2, 0.0) ** 0.5
    return result


def _sum(numbers: NDArray[np.float64]) -> float:
    """The sum: exact for integers, so that it does not depend on the order of patches; floats (radar) are added in order."""
    if (numbers % 1 == 0).all() and (abs(numbers) < 2**53).all():
        few = 512  # numbers below 2⁵³ have a sum that fits an int64
        return sum(int(numbers[k : k + few].astype(np.int64).sum()) for k in range(0, len(numbers), few))
    return float(numbers.sum())


class TrainStatistics(Mapping[str, tuple[float, float]]):
    """Mean and standard deviation of each band over the train split of a store, computed on first access.

    They are cached next to the store in `NAME.statistics.json`, if that can be written, and are valid for the same `plan`.

    Args:
        path: the store. plan: digest of its content. layout: its planes. train: rows of the train split (n,). gather: reads
            pixels, as `PatchStore.gather`.
    """

    def __init__(self, path: Path, plan: str, layout: Layout, train: NDArray[np.int64], gather: Gather) -> None:
        path = path.absolute()
        self._file = path.with_name(path.name + ".statistics.json")
        self._plan, self._layout, self._train, self._gather = plan, layout, train, gather
        self._values: dict[str, tuple[float, float]] | None = None

    def __getitem__(self, band: str) -> tuple[float, float]:
        return self._all()[band]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def cached(self) -> dict[str, tuple[float, float]]:
        """The statistics if they are cached, else nothing."""
        if self._values is not None:
            return self._values
        try:
            content = typed(self._file, read_json(self._file), _Cached, "statistics of a store")
        except BadInput:
            return {}  # missing, damaged or of another version: computed again
        known = content.plan == self._plan and content.digest == _digest(content.statistics)
        return content.statistics if known and set(content.statistics) <= set(self._layout.bands) else {}

    def _all(self) -> dict[str, tuple[float, float]]:
        if self._values is None:
            self._values = self.cached() or self._compute()
        return self._values

    def _compute(self) -> dict[str, tuple[float, float]]:
        pixels = [plane.side**2 for plane in self._layout.planes for _ in plane.bands]
        pairs = zip(self._layout.bands, mean_and_deviation(self._parts(), pixels).tolist(), strict=True)
        values = {band: (m, s) for band, (m, s) in pairs if np.isfinite(m) and (m, s) != (0, 0)}
        with suppress(OSError):
            write_json(self._file, {"plan": self._plan, "statistics": values, "digest": _digest(values)})
        return values

    def _parts(self) -> Iterator[NDArray[np.float64]]:
        """The moments of the patches of the train split, in order."""
        chunks = [self._train[k : k + _CHUNK] for k in range(0, len(self._train), _CHUNK)]
        found: list[NDArray[np.float64]] = []
        with (
            progress_bar("statistics", len(self._train)) as advance,
            ThreadPoolExecutor(usable_cores()) as pool,
        ):
            for part in pool.map(self._moments, chunks):
                found.append(part)
                advance(len(part))
                if len(found) * _CHUNK == PART:
                    yield np.concatenate(found)
                    found = []
        if found:
            yield np.concatenate(found)

    def _moments(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        planes = self._layout.buffers(len(rows))
        self._gather(rows, planes)
        return moments([planes[p.key] for p in self._layout.planes])
