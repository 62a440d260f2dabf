"""Nomenclatures: ordered classes with codes and official colours, and mappings between nomenclatures by class name.

Names, codes and colours are in `legends`.
`ben19` is the nomenclature of BigEarthNet-19 (Sumbul et al. 2021, "BigEarthNet-MM"), in CORINE order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from landscale.errors import UnknownName
from landscale.vocabulary import legends


@dataclass(frozen=True)
class LandClass:
    """One class. `code` is the CORINE code or a number from 1, `colour` is red, green, blue in 0…255."""

    name: str
    code: int
    colour: tuple[int, int, int]

    @property
    def hex(self) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


@dataclass(frozen=True)
class Nomenclature:
    """An ordered list of classes.

    sources: by class name of a finer nomenclature, the class of this one that contains it, or None.
    """

    name: str
    classes: tuple[LandClass, ...]
    multi_label: bool = True
    sources: Mapping[str, str | None] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    @cached_property
    def _column(self) -> dict[str, int | None]:
        """The column of every known class name; None for finer classes that no class contains."""
        own: dict[str, int | None] = {name: k for k, name in enumerate(self.names)}
        return {name: None if target is None else own[target] for name, target in self.sources.items()} | own

    def columns(self, labels: Iterable[str]) -> list[int]:
        """The columns of `labels`, sorted and unique; labels of a finer nomenclature are mapped, those mapped to None omitted.

        Raises:
            UnknownName: a label is neither in this nomenclature nor in `sources`.
        """
        try:
            found = {self._column[label] for label in labels}
        except KeyError as unknown:
            raise UnknownName(f"class of {self.name}", unknown.args[0], [*self.names, *self.sources]) from None
        return sorted(column for column in found if column is not None)


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)


def _classes(table: str) -> tuple[LandClass, ...]:
    rows = (line.split(" ", 2) for line in table.strip().splitlines())
    return tuple(LandClass(name, int(code), _rgb(colour)) for code, colour, name in rows)


CLC43 = Nomenclature("clc43", _classes(legends.CORINE))

# The classes of ben19 and the CORINE codes that each contains; code and colour are those of the first. The other codes (122,
# 123, 124, 131, 132, 133, 141, 142, 332, 334, 423) belong to none of the 19 classes.
_BEN19 = {
    "Urban fabric": (111, 112),
    "Industrial or commercial units": (121,),
    "Arable land": (211, 212, 213),
    "Permanent crops": (221, 222, 223, 241),
    "Pastures": (231,),
    "Complex cultivation patterns": (242,),
    "Land principally occupied by agriculture, with significant areas of natural vegetation": (243,),
    "Agro-forestry areas": (244,),
    "Broad-leaved forest": (311,),
    "Coniferous forest": (312,),
    "Mixed forest": (313,),
    "Natural grassland and sparsely vegetated areas": (321, 333),
    "Moors, heathland and sclerophyllous vegetation": (322, 323),
    "Transitional woodland, shrub": (324,),
    "Beaches, dunes, sands": (331,),
    "Inland wetlands": (411, 412),
    "Coastal wetlands": (421, 422),
    "Inland waters": (511, 512),
    "Marine waters": (521, 522, 523),
}


def _ben19() -> Nomenclature:
    by_code = {c.code: c for c in CLC43.classes}
    target = {code: name for name, codes in _BEN19.items() for code in codes}
    classes = tuple(LandClass(name, codes[0], by_code[codes[0]].colour) for name, codes in _BEN19.items())
    return Nomenclature("ben19", classes, sources={c.name: target.get(c.code) for c in CLC43.classes})


BEN19 = _ben19()

EUROSAT10 = Nomenclature("eurosat10", _classes(legends.EUROSAT), multi_label=False)
UCMERCED21 = Nomenclature("ucmerced21", _classes(legends.UC_MERCED), multi_label=False)
UCMERCED17 = Nomenclature("ucmerced17", _classes(legends.UC_MERCED_MULTI))
IGBP10 = Nomenclature("igbp10", _classes(legends.IGBP))
LCZ17 = Nomenclature("lcz17", _classes(legends.LCZ), multi_label=False)

UNLABELLED = Nomenclature("none", ())  # of a store without labels, for training without them

NOMENCLATURES = {n.name: n for n in (CLC43, BEN19, EUROSAT10, UCMERCED21, UCMERCED17, IGBP10, LCZ17)}


def nomenclature(name: str) -> Nomenclature:
    """The nomenclature called `name`.

    Raises:
        UnknownName: there is no such nomenclature.
    """
    try:
        return NOMENCLATURES[name.lower()]
    except KeyError:
        raise UnknownName("nomenclature", name, NOMENCLATURES) from None


def with_classes(names: Iterable[str]) -> Nomenclature | None:
    """The nomenclature that has exactly these classes, in any order; None if there is none."""
    names = {*names}
    return next((n for n in NOMENCLATURES.values() if {*n.names} == names), None)


def colours(names: Iterable[str]) -> list[str]:
    """A colour `#rrggbb` for each class name: the official one if a nomenclature has the name, else grey.

    If several nomenclatures have a name, such as "Water", the one that has most of the given names decides.
    """
    names = list(names)
    nearest_last = sorted(NOMENCLATURES.values(), key=lambda n: len({*names} & {*n.names}))
    known = {c.name: c.hex for n in nearest_last for c in n.classes}
    return [known.get(name, "#888888") for name in names]


def columns_by_name(names: Sequence[str], available: Sequence[str]) -> list[list[int]]:
    """For each class of `names`, its columns in `available`: the class itself, or all finer classes that it contains.

    Raises:
        UnknownName: `available` has neither a class nor a part of it.
    """
    finer = next((n.sources for n in NOMENCLATURES.values() if n.sources and {*names} <= {*n.names}), {})
    found = []
    for name in names:
        columns = [
            k for k, have in enumerate(available) if name == have or (name not in available and finer.get(have) == name)
        ]
        if not columns:
            raise UnknownName("class", name, available)
        found.append(columns)
    return found
