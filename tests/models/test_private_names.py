"""Private names of libraries that models cannot do without: a new version that lacks one is named here first."""

from importlib import import_module

import pytest

# module and name → the file that needs it, because no public module has it
PRIVATE = {
    ("timm.models._efficientnet_blocks", "DepthwiseSeparableConv"): "landscale/models/efficientnet60.py",
    ("timm.models._efficientnet_blocks", "InvertedResidual"): "landscale/models/efficientnet60.py",
    (
        "timm.models.efficientnet",
        "decode_arch_def",
    ): "landscale/models/efficientnet60.py",  # imported there from a private one
    ("timm.models.efficientnet", "round_channels"): "landscale/models/efficientnet60.py",
    ("timm.models.ghostnet", "GhostModule"): "landscale/models/layers.py",
}


@pytest.mark.parametrize(("module", "name"), PRIVATE)
def test_a_private_name_is_still_there(module, name):
    assert hasattr(import_module(module), name), f"{PRIVATE[module, name]} needs {module}.{name}"
