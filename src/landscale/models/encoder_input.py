"""The input of a network that begins from the weights of an encoder: its normalisation and units belong to these weights.

Filters depend on the normalisation of the pixels in their training. So bands that the encoder was trained on are brought to its
units, clipped to its limits and normalised by its statistics. All other bands keep the units of the store and are normalised by
the statistics of the store. So do bands whose units cannot be converted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from landscale.models.classifier import Description
from landscale.models.first_convolution import channel_names
from landscale.vocabulary.units import conversion, differ, unit_name


def with_encoder_input(d: Description, encoder: Description) -> Description:
    """A description with the normalisation and the units of an encoder for the bands that it was trained on.

    Args:
        d: the description with statistics and units of the store.
        encoder: that of the weights.
    """
    shared = [band for band in d.bands if _is_shared(band, d, encoder)]
    keys = [key for band in shared for key in channel_names((band,), d.scale)]
    recorded = [band for band in shared if encoder.units.get(band, "unknown") != "unknown"]
    stretches = {band: stretch for band, stretch in d.stretches.items() if band not in recorded}
    return replace(
        d,
        statistics={**d.statistics, **{key: encoder.statistics[key] for key in keys}},
        units={**d.units, **{band: encoder.units[band] for band in recorded}},
        limits={band: encoder.limits[band] for band in shared if band in encoder.limits},
        stretches={**stretches, **{band: encoder.stretches[band] for band in recorded if band in encoder.stretches}},
    )


def describe_input(d: Description, encoder: Description) -> list[str]:
    """Lines about the normalisation that `with_encoder_input` gives, and about another processing level.

    Args:
        d, encoder: the same.
    """
    shared = [band for band in d.bands if _is_shared(band, d, encoder)]
    lines = []
    for band in d.bands:
        if band in encoder.bands and _factor(band, d, encoder) is None:
            theirs, ours = (unit_name(of.units[band], of.stretches.get(band)) for of in (encoder, d))
            lines.append(f"the weights take {theirs}, into which {ours} cannot be converted")
    if len(shared) == len(d.bands):
        lines.append("normalisation: that of the weights")
    elif shared:
        lines.append(f"normalisation: that of the weights for {', '.join(shared)}, of the store for all other bands")
    else:
        lines.append("normalisation: that of the store")
    if differ(encoder.level, d.level):
        lines.append(f"its pixels were of level {encoder.level}, ours are of {d.level}")
    return list(dict.fromkeys(lines))


def new_bands(d: Description, encoder: Description) -> Sequence[str]:
    """The bands whose weights are 0 at first, because the encoder was trained on others of ours but not on these."""
    new = [band for band in d.bands if band not in encoder.bands]
    return new if len(new) < len(d.bands) else []


def _is_shared(band: str, d: Description, encoder: Description) -> bool:
    return (
        band in encoder.bands
        and all(key in encoder.statistics for key in channel_names((band,), d.scale))
        and _factor(band, d, encoder) is not None
    )


def _factor(band: str, d: Description, encoder: Description) -> float | None:
    found, expected = (of.units.get(band, "unknown") for of in (d, encoder))
    return conversion(found, expected, d.stretches.get(band), encoder.stretches.get(band))
