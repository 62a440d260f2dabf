"""The classifiers that were published with BigEarthNet v2 (Clasen et al. 2025, "reBEN"), version 0.2.0, on the Hugging Face hub.

Bands, statistics and upsampling are those of ConfigILM 0.7.1, with which they were trained: every band is brought to 120 px by
its nearest pixels and normalised. They have 19 outputs, one for each class in alphabetical order. Their networks are timm's, and
the names of their tensors are timm's behind a prefix.
"""

from __future__ import annotations

import re
from functools import cache

from landscale.models.encoders.entry import Entry, Inputs
from landscale.vocabulary.nomenclatures import BEN19
from landscale.vocabulary.units import Unit

OWNER = "BIFOLD-BigEarthNetv2-0"
_PREFIX = f"hf-hub:{OWNER}/"
_NAME = re.compile(rf"{_PREFIX}([\w.]+)-(s1|s2|all)-v0\.2\.0")
_S1 = ("VV", "VH")
_S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_BANDS = {"s1": _S1, "s2": _S2, "all": (*_S1, *_S2)}
_STATISTICS = {
    "B02": (438.372, 607.027),
    "B03": (614.056, 603.297),
    "B04": (588.410, 684.569),
    "B05": (942.843, 738.433),
    "B06": (1769.932, 1100.456),
    "B07": (2049.552, 1275.805),
    "B08": (2193.292, 1369.372),
    "B8A": (2235.557, 1356.544),
    "B11": (1568.227, 1070.161),
    "B12": (997.732, 813.528),
    "VV": (-12.644, 5.133),
    "VH": (-19.353, 5.591),
}
NETWORKS = (
    "convnextv2_base",
    "mixer_b16_224",
    "mobilevit_s",
    "rdnet_base",
    "resnet50",
    "resnet101",
    "vit_base_patch8_224",
)


@cache
def entries() -> dict[str, Entry]:
    """The entries by name, for the networks that the paper lists."""
    names = (f"{_PREFIX}{network}-{instruments}-v0.2.0" for network in NETWORKS for instruments in _BANDS)
    return {entry.name: entry for entry in map(find, names) if entry}


def find(name: str) -> Entry | None:
    """The entry of a name, of any network; None if the name is not of the form of these classifiers."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    bands = _BANDS[match[2]]
    units: dict[str, Unit] = {band: "dB" if band in _S1 else "digital number" for band in bands}
    return Entry(
        name=name,
        model=match[1],
        inputs=Inputs(
            bands=bands,
            statistics={band: _STATISTICS[band] for band in bands},
            units=units,
            level="not applicable" if bands == _S1 else "L2A",
            side=120,
            ground=1200,
            upsample="nearest",
        ),
        licence="mit",
        citation="https://arxiv.org/abs/2407.03653",
        source=f"https://huggingface.co/{name.removeprefix('hf-hub:')}",
        url=f"https://huggingface.co/{name.removeprefix('hf-hub:')}/resolve/main/model.safetensors",
        classes=tuple(sorted(BEN19.names)),
        nomenclature=BEN19.name,
    )
