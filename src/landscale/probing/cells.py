"""One cell of a probe: a protocol, an amount of labels and a seed; and the file with its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.errors import LandscaleError, UnknownName
from landscale.probing.drawing import draw_fraction, draw_shots
from landscale.runtime.documents import read_json, typed, write_json

FROZEN = ("knn", "linear")
TRAINED = ("fine-tune", "lora", "scratch")
PROTOCOLS = (*FROZEN, *TRAINED)


@dataclass(frozen=True)
class Amount:
    """How many labels: a fraction of the train split, or shots, patches of each class; the other one is None.

    Raises:
        LandscaleError: the number is out of range.
    """

    fraction: float | None = None
    shots: int | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise LandscaleError(f"--fraction: found {self.fraction:g}, expected above 0 and at most 1")
        if self.shots is not None and self.shots < 1:
            raise LandscaleError(f"--shots: found {self.shots}, expected at least 1")

    @property
    def name(self) -> str:
        if self.fraction is not None:
            return f"{self.fraction:g}"
        return f"{self.shots} {'shot' if self.shots == 1 else 'shots'}"

    def is_whole(self, targets: NDArray[np.uint8]) -> bool:
        """Whether all patches with these targets (n, C) are used, whatever the seed."""
        return self.fraction == 1 if self.shots is None else len(self.draw(targets, 0)) == len(targets)

    def draw(self, targets: NDArray[np.uint8], seed: int) -> NDArray[np.int64]:
        """Positions of the patches that are used, of those with these targets (n, C)."""
        if self.fraction is not None:
            return draw_fraction(targets, self.fraction, seed)
        assert self.shots is not None
        return draw_shots(targets, self.shots, seed)


def amounts_of(fractions: Sequence[float], shots: Sequence[int]) -> tuple[Amount, ...]:
    """The amounts of all shots and fractions; all labels, if there are none.

    Raises:
        LandscaleError: a number is out of range.
    """
    return (*(Amount(shots=k) for k in shots), *(Amount(fraction=f) for f in fractions)) or (Amount(fraction=1.0),)


@dataclass(frozen=True)
class Cell:
    """protocol: one of `PROTOCOLS`. seed: of the drawn patches, and of a training."""

    protocol: str
    amount: Amount
    seed: int

    @property
    def name(self) -> str:
        """The name of its file and of its run."""
        return f"{self.protocol}-{self.amount.name.replace(' ', '-')}-{self.seed}"


@dataclass(frozen=True)
class CellResult:
    """The scores of a cell on the test split.

    Attributes:
        drawn: training patches whose labels were used.
        fitted: patches that the classifier was fitted to; more than `drawn` where val is joined to them.
        c: of the linear probe.
        recipe: of a training.
        test: number of test patches.
        figures: by name.
        samples: figures of bootstrap samples of the patches (`intervals.Resampling.samples`); None for an empty sample.
    """

    drawn: int
    fitted: int
    c: float | None
    recipe: dict[str, Any] | None
    test: int
    figures: dict[str, float]
    samples: dict[str, list[float | None]]

    def sampled(self, figure: str) -> NDArray[np.float64]:
        """A figure of all bootstrap samples; NaN for an empty sample."""
        return np.array(self.samples[figure], np.float64)

    def write(self, file: Path) -> None:
        """Write it as JSON, completely or not at all."""
        write_json(file, vars(self))


def cell_file(folder: Path, cell: Cell) -> Path:
    """The file of a cell's result in the folder of a probe."""
    return folder / "cells" / f"{cell.name}.json"


def read_cell(file: Path) -> CellResult:
    """Raises: BadInput, if it is not the result of a cell."""
    return typed(file, read_json(file), CellResult, "the result of a probe")


def planned_cells(
    protocols: tuple[str, ...], amounts: tuple[Amount, ...], seeds: int, whole: frozenset[Amount]
) -> list[Cell]:
    """All cells. A frozen probe of `whole` amounts, for which nothing is drawn, does not depend on the seed: it has only seed 0.

    Raises:
        UnknownName: no such protocol. LandscaleError: there are no seeds.
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise UnknownName("protocol", protocol, PROTOCOLS)
    if seeds < 1:
        raise LandscaleError(f"--seeds: found {seeds}, expected at least 1")
    return [
        Cell(protocol, amount, seed)
        for amount in dict.fromkeys(amounts)
        for protocol in dict.fromkeys(protocols)
        for seed in range(1 if protocol in FROZEN and amount in whole else seeds)
    ]
