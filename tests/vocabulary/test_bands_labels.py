"""Bands and their aliases, nomenclatures and their mappings, and suggestions for unknown names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.errors import UnknownName
from landscale.vocabulary.bands import ALIASES, BAND_SETS, BANDS, band, band_set
from landscale.vocabulary.nomenclatures import (
    BEN19,
    CLC43,
    EUROSAT10,
    NOMENCLATURES,
    colours,
    columns_by_name,
    nomenclature,
    with_classes,
)

ESA_ORDER = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12"]
DROPPED = {
    "Road and rail networks and associated land",
    "Port areas",
    "Airports",
    "Mineral extraction sites",
    "Dump sites",
    "Construction sites",
    "Green urban areas",
    "Sport and leisure facilities",
    "Bare rock",
    "Burnt areas",
    "Intertidal flats",
}


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("B8a", "B8A"),
        ("b08a", "B8A"),
        ("B2", "B02"),
        ("b12", "B12"),
        ("blue", "B02"),
        ("Green", "B03"),
        ("RED", "B04"),
        ("nir", "B08"),
        (" B09 ", "B09"),
        ("vv", "VV"),
    ],
)
def test_aliases_resolve(alias: str, name: str) -> None:
    assert band(alias).name == name


def test_aliases_are_unambiguous_and_resolve_to_official_names() -> None:
    assert set(ALIASES.values()) == set(BANDS)
    assert band("B8").name == "B08"  # and not B8A
    assert band_set(["b8a", "blue", "B8"]).names == ("B8A", "B02", "B08")


def test_bands_equal_those_of_esa() -> None:
    assert [b.name for b in BANDS.values()] == [*ESA_ORDER, "VV", "VH"]
    assert {b.name for b in BANDS.values() if b.gsd == 60} == {"B01", "B09", "B10"}
    assert {b.name for b in BANDS.values() if b.gsd == 20} == {"B05", "B06", "B07", "B8A", "B11", "B12"}
    optical = [BANDS[name].wavelength for name in ESA_ORDER]
    assert optical == sorted(optical)


def test_band_sets_equal_those_of_the_papers() -> None:
    assert band_set("rgb").names == ("B04", "B03", "B02")
    assert band_set("S2-10").names == tuple(b for b in ESA_ORDER if b not in {"B01", "B09", "B10"})
    assert band_set("s2-12").names == tuple(b for b in ESA_ORDER if b != "B10")
    assert band_set("s1").names == ("VV", "VH")
    assert set(band_set("s1+s2").names) == {"VV", "VH", *band_set("s2-12").names}


def test_a_list_of_bands_keeps_its_order_and_finds_its_name() -> None:
    assert band_set("B04,B03,B02").name == "rgb"
    assert band_set("red,green,blue") == BAND_SETS["rgb"]
    assert band_set("B02,B03,B04").names == ("B02", "B03", "B04")
    assert band_set("B02,B03,B04").name == "B02,B03,B04"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: band("B8B"), "did you mean B8A"),
        (lambda: band_set("s2-11"), "s2-10"),
        (lambda: band_set("B02,B33"), "unknown band 'B33'"),
        (lambda: nomenclature("ben43"), "did you mean ben19"),
        (lambda: BEN19.columns(["Coniferus forest"]), "did you mean Coniferous forest"),
        (lambda: columns_by_name(["Forrest"], EUROSAT10.names), "did you mean Forest"),
        (lambda: band("§§§"), "known: B01, B02"),
    ],
)
def test_unknown_names_suggest_the_nearest(call: object, said: str) -> None:
    with pytest.raises(UnknownName) as caught:
        call()  # type: ignore[operator]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_nomenclatures_have_their_classes() -> None:
    assert [len(n.classes) for n in (CLC43, BEN19, EUROSAT10)] == [43, 19, 10]
    for n in (CLC43, BEN19, EUROSAT10):
        assert len(set(n.names)) == len(n.names)
    assert (CLC43.multi_label, BEN19.multi_label, EUROSAT10.multi_label) == (True, True, False)
    codes = [c.code for c in CLC43.classes]
    assert codes == sorted(codes)  # CORINE order
    assert 335 not in codes  # glaciers: the 44th, not in BigEarthNet


def test_the_43_classes_map_to_the_19() -> None:
    assert set(BEN19.sources) == set(CLC43.names)
    assert {name for name, target in BEN19.sources.items() if target is None} == DROPPED
    assert {target for target in BEN19.sources.values() if target} == set(BEN19.names)
    assert BEN19.sources["Vineyards"] == "Permanent crops"
    assert BEN19.sources["Sparsely vegetated areas"] == "Natural grassland and sparsely vegetated areas"
    assert BEN19.sources["Salines"] == "Coastal wetlands"
    assert BEN19.sources["Coastal lagoons"] == "Marine waters"


def test_finer_classes_are_combined_or_dropped() -> None:
    arable = BEN19.names.index("Arable land")
    assert BEN19.columns(["Rice fields", "Non-irrigated arable land", "Airports"]) == [arable]
    assert BEN19.columns(["Airports"]) == []
    assert CLC43.columns(["Sea and ocean", "Continuous urban fabric"]) == [0, 42]
    with pytest.raises(UnknownName):
        CLC43.columns(["Urban fabric"])  # a coarser class says too little


def test_colours_are_official() -> None:
    assert colours(["Continuous urban fabric", "Sea and ocean", "Coniferous forest"]) == [
        "#e6004d",
        "#e6f2ff",
        "#00a600",
    ]
    assert colours(["Urban fabric"]) == ["#e6004d"]
    assert colours(["no such class"]) == ["#888888"]
    for n in (CLC43, EUROSAT10):
        assert len(set(colours(n.names))) == len(n.names)


@given(st.permutations(CLC43.names), st.permutations(BEN19.names))
def test_columns_by_name_in_any_order(available: list[str], wanted: list[str]) -> None:
    """The 19 classes are derived from a store with 43, whatever the order of either."""
    found = dict(zip(wanted, columns_by_name(wanted, available), strict=True))
    for name in CLC43.names:
        homes = [target for target, columns in found.items() if available.index(name) in columns]
        assert homes == ([] if BEN19.sources[name] is None else [BEN19.sources[name]])


@given(st.permutations(EUROSAT10.names))
def test_columns_by_name_of_the_same_classes(available: list[str]) -> None:
    assert columns_by_name(EUROSAT10.names, available) == [[available.index(name)] for name in EUROSAT10.names]


def test_columns_by_name_refuses_missing_classes() -> None:
    with pytest.raises(UnknownName, match="Urban fabric"):
        columns_by_name(BEN19.names, EUROSAT10.names)
    with pytest.raises(UnknownName, match="Continuous urban fabric"):
        columns_by_name(CLC43.names, BEN19.names)


def test_every_nomenclature_is_found_by_its_classes_and_has_colours_of_its_own() -> None:
    assert {n.name: len(n.classes) for n in NOMENCLATURES.values()} == {
        "clc43": 43,
        "ben19": 19,
        "eurosat10": 10,
        "ucmerced21": 21,
        "ucmerced17": 17,
        "igbp10": 10,
        "lcz17": 17,
    }
    for n in NOMENCLATURES.values():
        assert with_classes(reversed(n.names)) is n
        assert colours(n.names) == [c.hex for c in n.classes]
        assert len({c.colour for c in n.classes}) == len(n.classes)
    assert with_classes(["Water"]) is None
