"""What one measurement of a network consists of."""

from landscale.studies.zoo import measure as measurement
from landscale.studies.zoo.measure import SpeedMeasurement, measure_speed


def test_the_reference_is_measured_before_between_and_after(monkeypatch):
    """A program that computes during a part of the measurement is noticed by the slowest reference."""
    rates = iter([100.0, 40.0, 70.0, 90.0, 110.0])  # reference, training, reference, inference, reference
    monkeypatch.setattr(measurement, "_rate", lambda *_: next(rates))
    job = SpeedMeasurement("wide_resnet", 12, "cpu", batch=2, seconds=0.0, bands=("B02", "B03"), classes=3)
    found = measure_speed(job)
    assert (found["training"], found["inference"], found["reference"]) == (40.0, 90.0, 70.0)
    assert found["seconds"] > 0
