"""Figures that are computed from the measurements of a network."""

import pytest

from landscale.studies.zoo import measure as measurement
from landscale.studies.zoo.measure import SpeedMeasurement, measure_speed


def test_fractions_of_the_speed_of_matrix_products(monkeypatch):
    """A training step counts as three forward passes: forward, and backward to inputs and to weights."""
    rates = iter([1.0, 40.0, 1.0, 90.0])  # images/s: a warm-up and a chunk of training, then of inference
    monkeypatch.setattr(measurement, "_rate", lambda *_: next(rates))
    monkeypatch.setattr(measurement, "_machine_flops", lambda _: 1e6)
    monkeypatch.setattr(measurement, "describe_model", lambda *_: {"parameters": 11, "flops": 2000})
    found = measure_speed(
        SpeedMeasurement("wide_resnet", 12, "cpu", batch=2, seconds=0.0, bands=("B02", "B03"), classes=3)
    )
    assert (found["training"], found["inference"]) == (40.0, 90.0)
    assert found["training_share"] == pytest.approx(3 * 2000 * 40 / 1e6)
    assert found["inference_share"] == pytest.approx(2000 * 90 / 1e6)
