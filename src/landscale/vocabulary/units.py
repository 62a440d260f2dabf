"""Units of pixels, and the processing levels of Sentinel-2 products.

A digital number is the reflectance × 10,000, as in ESA's products once their offset is subtracted. 8-bit values are those of
pictures, which map the digital numbers from 0 to some number, the picture's stretch, linearly to 0…255 and clip larger ones to
255. Most pictures do not record their stretch, so they cannot be converted into any other unit. A class is the number of a class
of the store, from 0, or 255 for none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Unit = Literal["digital number", "reflectance", "8-bit", "dB", "class", "unknown"]
Level = Literal["L1C", "L2A", "not applicable", "unknown"]
UNITS: tuple[Unit, ...] = get_args(Unit)
LEVELS: tuple[Level, ...] = get_args(Level)
PER_REFLECTANCE = 10_000.0  # digital numbers of reflectance 1

# Smallest and largest values that pixels of a unit can have. Clouds in the sun reflect more than 1; dB are those of radar.
RANGES: dict[Unit, tuple[float, float]] = {
    "digital number": (-10_000, 65_535),
    "reflectance": (-1, 6.5535),
    "8-bit": (0, 255),
    "dB": (-100, 60),
    "class": (0, 255),
}
_NAMES: dict[Unit, str] = {
    "digital number": "digital numbers",
    "reflectance": "reflectance (0 to 1)",
    "8-bit": "8-bit picture values",
    "dB": "dB",
    "class": "numbers of classes",
    "unknown": "numbers of unknown unit",
}


def unit_name(unit: Unit, stretch: float | None = None) -> str:
    """A unit in a sentence: "digital numbers", or "8-bit picture values (255 is digital number 2750)"."""
    return _NAMES[unit] + (f" (255 is digital number {stretch:g})" if unit == "8-bit" and stretch else "")


def conversion(
    found: Unit, expected: Unit, stretch: float | None = None, expected_stretch: float | None = None
) -> float | None:
    """The factor by which values of one unit become those of another; 1 if either is unknown; None if there is none.

    Values that become 8-bit must be clipped to 0…255 afterwards, as those of a picture.

    Args:
        found, expected: the units.
        stretch, expected_stretch: of `found` and `expected` if they are 8-bit, the digital number that 255 stands for; None: not
            known. Two pictures of which one has an unknown stretch are taken for equal.
    """
    if "unknown" in (found, expected):
        return 1.0
    if found == expected:
        return stretch / expected_stretch if stretch and expected_stretch and found == "8-bit" else 1.0
    numbers, expected_numbers = _digital_numbers(found, stretch), _digital_numbers(expected, expected_stretch)
    return numbers / expected_numbers if numbers and expected_numbers else None


def _digital_numbers(unit: Unit, stretch: float | None) -> float | None:
    """The digital numbers of a value of 1 in a unit; None if they are not known."""
    if unit == "8-bit":
        return stretch and stretch / RANGES["8-bit"][1]
    return {"digital number": 1.0, "reflectance": PER_REFLECTANCE}.get(unit)


def differ(one: object, other: object) -> bool:
    """Whether two levels are recorded and differ; pictures and radar have none."""
    return (one, other) in (("L1C", "L2A"), ("L2A", "L1C"))


def common_level(levels: Iterable[Level]) -> Level:
    """The level that all have, or `unknown` if they differ."""
    found = set(levels)
    return found.pop() if len(found) == 1 else "unknown"


def contradicts(unit: Unit, low: float, high: float, *, whole: bool) -> bool:
    """Whether pixels from `low` to `high` cannot be in a unit. whole: whether all of them are integers."""
    if unit == "unknown":
        return False
    least, largest = RANGES[unit]
    fractions = unit == "digital number" and not whole and high <= RANGES["reflectance"][1]
    return not least <= low <= high <= largest or fractions
