"""Nomenclatures: ordered classes with codes and official colours, and the mapping from one to another, by name.

CORINE codes, names and colours: Copernicus Land Monitoring Service, CLC nomenclature and official legend.
`ben19` is the nomenclature of BigEarthNet-19 (Sumbul et al. 2021, "BigEarthNet-MM"), in CORINE order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from landscale.errors import UnknownName


@dataclass(frozen=True)
class LandClass:
    """One class. `code` is the CORINE code or a rank, `colour` red, green, blue in 0…255."""

    name: str
    code: int
    colour: tuple[int, int, int]

    @property
    def hex(self) -> str:
        return "#{:02x}{:02x}{:02x}".format(*self.colour)


@dataclass(frozen=True)
class Nomenclature:
    """An ordered list of classes. `sources` maps names of a finer nomenclature to a class of this one, or to None."""

    name: str
    classes: tuple[LandClass, ...]
    multi_label: bool = True
    sources: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.classes)

    def columns(self, labels: Iterable[str]) -> list[int]:
        """The columns, sorted and unique, that `labels` fill; labels of a finer nomenclature are mapped, dropped ones omitted.

        Raises:
            UnknownName: a label neither in this nomenclature nor mapped to it.
        """
        names = self.names
        found = set()
        for label in labels:
            target = label if label in names else self.sources.get(label, "")
            if target == "":
                raise UnknownName(f"class of {self.name}", label, [*names, *self.sources])
            if target is not None:
                found.add(names.index(target))
        return sorted(found)


_CORINE = """
111 e6004d Continuous urban fabric
112 ff0000 Discontinuous urban fabric
121 cc4df2 Industrial or commercial units
122 cc0000 Road and rail networks and associated land
123 e6cccc Port areas
124 e6cce6 Airports
131 a600cc Mineral extraction sites
132 a64d00 Dump sites
133 ff4dff Construction sites
141 ffa6ff Green urban areas
142 ffe6ff Sport and leisure facilities
211 ffffa8 Non-irrigated arable land
212 ffff00 Permanently irrigated land
213 e6e600 Rice fields
221 e68000 Vineyards
222 f2a64d Fruit trees and berry plantations
223 e6a600 Olive groves
231 e6e64d Pastures
241 ffe6a6 Annual crops associated with permanent crops
242 ffe64d Complex cultivation patterns
243 e6cc4d Land principally occupied by agriculture, with significant areas of natural vegetation
244 f2cca6 Agro-forestry areas
311 80ff00 Broad-leaved forest
312 00a600 Coniferous forest
313 4dff00 Mixed forest
321 ccf24d Natural grassland
322 a6ff80 Moors and heathland
323 a6e64d Sclerophyllous vegetation
324 a6f200 Transitional woodland/shrub
331 e6e6e6 Beaches, dunes, sands
332 cccccc Bare rock
333 ccffcc Sparsely vegetated areas
334 000000 Burnt areas
411 a6a6ff Inland marshes
412 4d4dff Peatbogs
421 ccccff Salt marshes
422 e6e6ff Salines
423 a6a6e6 Intertidal flats
511 00ccf2 Water courses
512 80f2e6 Water bodies
521 00ffa6 Coastal lagoons
522 a6ffe6 Estuaries
523 e6f2ff Sea and ocean
"""


def _rgb(text: str) -> tuple[int, int, int]:
    return int(text[:2], 16), int(text[2:4], 16), int(text[4:], 16)


def _classes(table: str) -> tuple[LandClass, ...]:
    rows = (line.split(" ", 2) for line in table.strip().splitlines())
    return tuple(LandClass(name, int(code), _rgb(colour)) for code, colour, name in rows)


CLC43 = Nomenclature("clc43", _classes(_CORINE))

# A class of ben19 and the CORINE codes it gathers; its own code and colour are those of the first. Codes listed
# nowhere (122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 423) have no class among the 19.
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

# EuroSAT (Helber et al. 2019) has no official legend; the colours are those of the nearest CORINE class.
EUROSAT10 = Nomenclature(
    "eurosat10",
    _classes("""
1 ffffa8 AnnualCrop
2 80ff00 Forest
3 ccf24d HerbaceousVegetation
4 cc0000 Highway
5 cc4df2 Industrial
6 e6e64d Pasture
7 e68000 PermanentCrop
8 ff0000 Residential
9 00ccf2 River
10 80f2e6 SeaLake
"""),
    multi_label=False,
)

NOMENCLATURES = {n.name: n for n in (CLC43, BEN19, EUROSAT10)}


def nomenclature(name: str) -> Nomenclature:
    """The nomenclature called `name`.

    Raises:
        UnknownName: no such nomenclature.
    """
    try:
        return NOMENCLATURES[name.lower()]
    except KeyError:
        raise UnknownName("nomenclature", name, NOMENCLATURES) from None


def colours(names: Iterable[str]) -> list[str]:
    """A colour `#rrggbb` for each class name: the official one where a nomenclature knows it, grey elsewhere."""
    known = {c.name: c.hex for n in NOMENCLATURES.values() for c in n.classes}
    return [known.get(name, "#888888") for name in names]


def columns_by_name(wanted: Sequence[str], available: Sequence[str]) -> list[list[int]]:
    """For each wanted class, the columns of `available` that make it up: itself, or the finer classes mapped to it.

    Raises:
        UnknownName: a wanted class that `available` neither has nor maps to.
    """
    finer = next((n.sources for n in NOMENCLATURES.values() if n.sources and {*wanted} <= {*n.names}), {})
    found = []
    for name in wanted:
        columns = [
            k for k, have in enumerate(available) if name == have or (name not in available and finer.get(have) == name)
        ]
        if not columns:
            raise UnknownName("class", name, available)
        found.append(columns)
    return found
