"""Every network of the zoo can be exported for every runtime. In the default tests: one of each own family, as .pt2.

Wide ResNets are exported for every runtime in `test_runtimes`. Networks of timm, and the slower runtimes, are slow tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import landscale
from landscale.export.comparison import random_patches
from landscale.export.portable import input_planes
from landscale.inference.exported import MODELS
from landscale.models import list_models
from landscale.models.classifier import Classifier, Description
from landscale.models.registry import ZOO

QUICK = {
    "mlp_mixer_tiny": ("onnx", "openvino", "pt2"),
    **dict.fromkeys(("k_branch", "vit_40", "lambda_resnet", "efficientnet60_ghost", "trio"), ("pt2",)),
}
CANNOT: dict[tuple[str, str], str] = {}  # network and format → beginning of the message
BANDS = ("B02", "B05", "B01")


def small(name: str) -> Classifier:
    """Random weights, with running statistics of noise: with initial ones, many networks have the same output for all patches."""
    entry = ZOO[name]
    statistics = {band: (1000.0 + 10 * k, 500.0 + k) for k, band in enumerate(BANDS)}
    upsample = "nearest" if entry.native else "bilinear"
    d = Description(name, BANDS, ("a", "b"), "custom", True, statistics, entry.side, 1200, upsample=upsample)
    torch.manual_seed(0)
    classifier = Classifier(d)
    for norm in classifier.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.momentum = 1.0
    planes = input_planes(d, {})
    noise = dict(zip((plane.bands for plane in planes), random_patches(d, planes, 4), strict=True))
    with torch.no_grad():
        classifier.train()(noise)
    return classifier.eval()


def cases() -> list[object]:
    return [
        pytest.param(name, to, marks=[] if to in QUICK.get(name, ()) else [pytest.mark.slow], id=f"{name}-{to}")
        for name in list_models()
        for to in MODELS
    ]


@pytest.mark.parametrize("name,to", cases())
def test_a_network_is_exported_with_equal_probabilities(name: str, to: str, tmp_path: Path) -> None:
    if (name, to) in CANNOT:
        with pytest.raises(landscale.LandscaleError, match=CANNOT[name, to]):
            landscale.export_model(small(name), tmp_path / "e", to)
        return
    landscale.export_model(small(name), tmp_path / "e", to)  # it compares the probabilities itself
    assert (tmp_path / "e" / MODELS[to]).is_file()
