"""TorchGeo's weights for Sentinel-1 and Sentinel-2, as of TorchGeo 0.8: all whose metadata name bands and whose network timm has.

The facts are those of TorchGeo's entries (`meta` and `transforms`), except where the code of the authors differs:

- TorchGeo's transform of SeCo swaps blue and red and multiplies by 255 once too often. The authors map reflectance 0…1 to 0…255,
  then a range of each band to 0…1 with clipping, and normalise with ImageNet's statistics (`datasets/seco_dataset.py`).
- Satlas takes ESA's true-colour picture of level 1C for red, green and blue, in which 255 stands for digital number 3558, and
  the other bands divided by 8160 and clipped (`Normalization.md`).

TorchGeo resizes patches to 256 px and keeps the central 224 px; here the whole patch is resized to 224 px. Not in the table:
Satlas' weights for Sentinel-1, whose numbers are not in dB; one of SSL4Eco with an NDVI channel; networks of TorchGeo alone.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TypedDict

import msgspec

from landscale.models.encoders.entry import NOT_STATED, Entry, Inputs
from landscale.vocabulary.units import Level, Unit

KIND = "torchgeo"
TABLE = Path(__file__).with_name("torchgeo.json")
_DIGEST_IN_NAME = re.compile(r".*-([0-9a-f]{8,64})\.pth")  # torch.hub checks file names of this form in the same way

_RGB = ("B04", "B03", "B02")
_S2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_S1 = ("VV", "VH")
_SATLAS = (*_RGB, "B05", "B06", "B07", "B08", "B11", "B12")
_MEANS = (1612.9, 1397.6, 1322.3, 1373.1, 1561.0, 2108.4, 2390.7, 2318.7, 2581.0, 837.7, 22.0, 2195.2, 1537.4)
_DEVIATIONS = (791.0, 854.3, 878.7, 1144.9, 1127.5, 1164.2, 1276.0, 1249.5, 1345.9, 577.5, 47.5, 1340.0, 1142.9)
_IMAGENET = ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))
_TRUE_COLOUR = 3558  # digital number of 255 in ESA's true-colour pictures of level 1C
_SECO = {"B04": (0.0, 129.0), "B03": (2.0, 103.0), "B02": (3.0, 88.0)}  # of 255, where 255 is reflectance 1
_LICENCES = {
    "ServiceNow/seasonal-contrast": "apache-2.0",
    "allenai/satlas": "odc-by",
    "allenai/satlaspretrain_models": "odc-by",
    "DarthReca/closp": "apache-2.0",
    "zhu-xlab/DeCUR": "apache-2.0",
    "zhu-xlab/FGMAE": "apache-2.0",
    "zhu-xlab/SSL4EO-S12": "cc-by-4.0",
}


class _Row(TypedDict):
    """A row of the table. inputs: a key of `_INPUTS`. paper: number at arXiv. project: at GitHub. The others: at the hub."""

    name: str
    model: str
    inputs: str
    paper: str
    project: str
    repository: str
    revision: str
    file: str


def _same(bands: tuple[str, ...], mean: float, deviation: float, level: Level, unit: Unit = "digital number") -> Inputs:
    return Inputs(bands, dict.fromkeys(bands, (mean, deviation)), dict.fromkeys(bands, unit), level, 224, 2240)


def _seco() -> Inputs:
    limits = {band: (low * 10_000 / 255, high * 10_000 / 255) for band, (low, high) in _SECO.items()}
    statistics = {
        band: (low + mean * (high - low), deviation * (high - low))
        for (band, (low, high)), (mean, deviation) in zip(limits.items(), _IMAGENET, strict=True)
    }
    return Inputs(_RGB, statistics, dict.fromkeys(_RGB, "digital number"), "L2A", 224, 2240, limits=limits)


def _satlas(bands: tuple[str, ...]) -> Inputs:
    others = bands[3:]
    units: dict[str, Unit] = {**dict.fromkeys(_RGB, "8-bit"), **dict.fromkeys(others, "digital number")}
    statistics = {band: (0.0, 8160.0 if band in others else 255.0) for band in bands}
    limits, stretches = dict.fromkeys(others, (0.0, 8160.0)), dict.fromkeys(_RGB, _TRUE_COLOUR)
    return Inputs(bands, statistics, units, "L1C", 256, 2560, limits=limits, stretches=stretches)


_INPUTS = {
    "ssl4eo-s2": _same(_S2, 0, 10_000, "L1C"),
    "ssl4eo-rgb": _same(_RGB, 0, 10_000, "L1C"),
    "ssl4eo-statistics": Inputs(
        _S2,
        dict(zip(_S2, zip(_MEANS, _DEVIATIONS, strict=True), strict=True)),
        dict.fromkeys(_S2, "digital number"),
        "L1C",
        224,
        2240,
    ),
    "ssl4eo-s1": Inputs(
        _S1, {"VV": (-12.59, 5.26), "VH": (-20.26, 5.91)}, dict.fromkeys(_S1, "dB"), "not applicable", 224, 2240
    ),
    "ssl4eco": _same(tuple(band for band in _S2 if band != "B10"), 0, 10_000, "unknown"),
    "closp-s2": _same(_S2, 0, 10_000, "unknown"),
    "closp-s1": _same(_S1, 0, 1, "not applicable", "unknown"),
    "seco": _seco(),
    "satlas-rgb": _satlas(_RGB),
    "satlas-ms": _satlas(_SATLAS),
}


@cache
def entries() -> dict[str, Entry]:
    """All entries by name, in the order of the table."""
    rows = msgspec.json.decode(TABLE.read_bytes(), type=list[_Row])
    return {entry.name: entry for entry in map(_entry, rows)}


def _entry(row: _Row) -> Entry:
    named = _DIGEST_IN_NAME.fullmatch(row["file"])
    return Entry(
        name=f"{KIND}:{row['name']}",
        model=row["model"],
        inputs=_INPUTS[row["inputs"]],
        licence=_LICENCES.get(row["project"], NOT_STATED),
        citation=f"https://arxiv.org/abs/{row['paper']}",
        source=f"https://github.com/{row['project']}",
        url=f"https://huggingface.co/{row['repository']}/resolve/{row['revision']}/{row['file']}",
        digest=f"sha256:{named[1]}" if named else "",
    )
