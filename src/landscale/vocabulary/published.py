"""Figures of Sedona et al. 2019 that are shown beside a run's own. Those of networks by other authors are in the zoo's table."""

from __future__ import annotations

from dataclasses import dataclass

from landscale.vocabulary.nomenclatures import BEN19

SEDONA = "Sedona et al. 2019"
SEDONA_SOURCE = (
    f"{SEDONA}, Remote Sensing Big Data Classification with High Performance Distributed Deep Learning, Remote Sensing"
    " 11(24):3056"
)

# Seconds per epoch by number of GPUs on JUWELS (V100): ResNet-50, 12 bands, 64 patches per GPU.
SEDONA_EPOCH_SECONDS = {4: 347.0, 8: 172.0, 16: 86.0, 32: 42.0, 48: 27.0, 64: 20.0, 96: 15.0}
SEDONA_EPOCHS = 100  # epochs of a training


@dataclass(frozen=True)
class PublishedClass:
    """A class in Table 3 of the paper: patches of the test split with it, and F1 with twelve bands and with red, green, blue."""

    support: int
    multispectral: float
    rgb: float


# Table 3: support, F1 with twelve bands, F1 with red, green and blue, CORINE class; ResNet-50, the 43 classes of BigEarthNet v1.
# The copy that these rows were read from lacks six classes: Airports, Estuaries, Pastures, Peatbogs, Salines and Vineyards.
_TABLE_3 = """
5611 .804 .796 Agro-forestry areas
1275 .458 .442 Annual crops associated with permanent crops
511 .605 .620 Bare rock
319 .696 .609 Beaches, dunes, sands
28090 .791 .772 Broad-leaved forest
66 .030 0 Burnt areas
287 .885 .880 Coastal lagoons
21142 .722 .698 Complex cultivation patterns
33583 .874 .867 Coniferous forest
244 .234 .213 Construction sites
1975 .785 .518 Continuous urban fabric
13338 .780 .723 Discontinuous urban fabric
181 .287 .269 Dump sites
875 .453 .418 Fruit trees and berry plantations
338 .388 .369 Green urban areas
2417 .553 .557 Industrial or commercial units
1142 .409 .365 Inland marshes
216 .635 .584 Intertidal flats
26447 .687 .668 Land principally occupied by agriculture, with significant areas of natural vegetation
835 .508 .491 Mineral extraction sites
35975 .834 .798 Mixed forest
1060 .561 .431 Moors and heathland
2273 .570 .512 Natural grassland
36562 .865 .840 Non-irrigated arable land
2372 .621 .542 Olive groves
2505 .676 .644 Permanently irrigated land
93 .504 .522 Port areas
709 .670 .605 Rice fields
671 .301 .269 Road and rail networks and associated land
264 .569 .532 Salt marshes
2114 .762 .671 Sclerophyllous vegetation
13964 .909 .980 Sea and ocean
261 .483 .381 Sparsely vegetated areas
996 .367 .407 Sport and leisure facilities
29671 .664 .639 Transitional woodland/shrub
11545 .858 .824 Water bodies
1914 .804 .737 Water courses
"""


def _table_3() -> dict[str, PublishedClass]:
    rows = (line.split(" ", 3) for line in _TABLE_3.strip().splitlines())
    return {name: PublishedClass(int(n), float(all_bands), float(rgb)) for n, all_bands, rgb, name in rows}


SEDONA_CLASSES = _table_3()


def sedona_class(name: str) -> PublishedClass | None:
    """The row of Table 3 for a class of CORINE, or for one of the 19 classes that consists of a single class of CORINE."""
    parts = [finer for finer, coarse in BEN19.sources.items() if coarse == name]
    return SEDONA_CLASSES.get(name) or (SEDONA_CLASSES.get(parts[0]) if len(parts) == 1 else None)
