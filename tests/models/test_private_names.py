"""Private names of timm on which models depend; a test fails with the name that a new version of timm lacks."""

from importlib import import_module

import pytest

# (module, name): the file that imports it; no public module offers the name
PRIVATE = {
    ("timm.models._efficientnet_blocks", "DepthwiseSeparableConv"): "landscale/models/efficientnet60.py",
    ("timm.models._efficientnet_blocks", "InvertedResidual"): "landscale/models/efficientnet60.py",
    (
        "timm.models.efficientnet",
        "decode_arch_def",
    ): "landscale/models/efficientnet60.py",  # timm imports it there from a private module
    ("timm.models.efficientnet", "round_channels"): "landscale/models/efficientnet60.py",
    ("timm.models.ghostnet", "GhostModule"): "landscale/models/layers.py",
}


@pytest.mark.parametrize(("module", "name"), PRIVATE)
def test_timm_still_has_the_private_name(module, name):
    assert hasattr(import_module(module), name), f"{PRIVATE[module, name]} needs {module}.{name}"
