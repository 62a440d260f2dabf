"""Figures of papers that stand in the package: their classes exist, and their values are those of the paper."""

from __future__ import annotations

import pytest

from landscale.models.catalogue import stored_rows
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from landscale.vocabulary.published import SEDONA_CLASSES, SEDONA_EPOCH_SECONDS, sedona_class


def test_table_3_of_sedona_2019():
    assert set(SEDONA_CLASSES) < set(CLC43.names)
    missing = {"Airports", "Estuaries", "Pastures", "Peatbogs", "Salines", "Vineyards"}
    assert set(CLC43.names) - set(SEDONA_CLASSES) == missing
    assert sum(row.support for row in SEDONA_CLASSES.values()) == 281_841
    assert sum(row.multispectral for row in SEDONA_CLASSES.values()) == pytest.approx(22.602)
    assert sum(row.rgb for row in SEDONA_CLASSES.values()) == pytest.approx(21.193)
    water = SEDONA_CLASSES["Sea and ocean"]
    assert (water.support, water.multispectral, water.rgb) == (13964, 0.909, 0.98)


def test_a_class_of_the_19_has_the_figures_of_its_only_part():
    assert sedona_class("Mixed forest") == SEDONA_CLASSES["Mixed forest"]
    assert sedona_class("Transitional woodland, shrub") == SEDONA_CLASSES["Transitional woodland/shrub"]
    merged = [name for name in BEN19.names if sedona_class(name) is None]
    assert {"Urban fabric", "Arable land", "Inland waters", "Pastures"} <= set(merged)
    assert len(merged) == 10
    assert sedona_class("lake") is None


def test_seconds_per_epoch_of_sedona_2019():
    assert SEDONA_EPOCH_SECONDS == {4: 347, 8: 172, 16: 86, 32: 42, 48: 27, 64: 20, 96: 15}


def test_published_scores_of_networks_on_bigearthnet():
    """As printed by their authors: (micro F1, macro F1, micro AP, macro AP)."""
    expected = {
        "resnet50": (0.767, 0.644, 0.861, 0.703),
        "mobilevit_s": (0.763, 0.638, 0.864, 0.703),
        "convnextv2_base": (0.760, 0.627, 0.857, 0.692),
        "vit_base_patch8_224": (0.746, 0.603, 0.842, 0.668),
        "mixer_b16_224": (0.744, 0.616, 0.844, 0.678),
        "rdnet_base": (0.755, 0.623, 0.854, 0.689),
    }
    for name, figures in expected.items():
        (found,) = [row for source, row in stored_rows()[name]["published"].items() if "reBEN" in source]
        assert tuple(found[key] for key in ("micro_f1", "macro_f1", "micro_ap", "macro_ap")) == figures
