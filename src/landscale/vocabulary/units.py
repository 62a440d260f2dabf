"""Units of pixels, and the processing levels of Sentinel-2 products.

A digital number is the reflectance × 10,000, as in ESA's products once their offset is subtracted. 8-bit values are those of
pictures: how a picture was stretched is not recorded, so they cannot be converted into any other unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

Unit = Literal["digital number", "reflectance", "8-bit", "dB", "unknown"]
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
}
_NAMES: dict[Unit, str] = {
    "digital number": "digital numbers",
    "reflectance": "reflectance (0 to 1)",
    "8-bit": "8-bit picture values",
    "dB": "dB",
    "unknown": "numbers of unknown unit",
}


def unit_name(unit: Unit) -> str:
    """A unit in a sentence: "digital numbers"."""
    return _NAMES[unit]


def conversion(found: Unit, expected: Unit) -> float | None:
    """The factor by which values of one unit become those of another; 1 if either is unknown; None if there is none."""
    if found == expected or "unknown" in (found, expected):
        return 1.0
    if (found, expected) == ("reflectance", "digital number"):
        return PER_REFLECTANCE
    if (found, expected) == ("digital number", "reflectance"):
        return 1 / PER_REFLECTANCE
    return None


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
