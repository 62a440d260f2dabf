"""One contract over every network of the zoo.

Every row meets what torch's meta device can tell: shapes, heads, maps, sides. One network of each kind meets the rest with
real numbers on a small input; for the others, which are deeper or wider or join the same layers, it is marked slow. What
does not hold is in `EXCEPTIONS` and must fail: a network that has learned it leaves the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from landscale.models import ZOO, create, list_models
from landscale.models.registry import fixed_side

NAMES = list_models()
KINDS = (  # one network for every kind of layer
    *("wide_resnet_se", "wide_resnet_cbam", "wide_resnet_coord_ghost", "wide_resnet_eca", "lambda_resnet"),
    *("efficientnet60", "efficientnet60_eca_ghost", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio"),
    *("resnet18", "densenet121", "efficientnet_b0", "convnextv2_atto", "tf_efficientnetv2_b0", "rdnet_tiny"),
    *("swinv2_tiny_window8_256", "maxvit_tiny_tf_224", "mobilevit_s", "mobilevitv2_100", "mobilenetv4_conv_small"),
    *("vit_small_patch8_224", "vit_small_patch14_reg4_dinov2"),
)
EXPORTED = (  # takes seconds, even for the smallest
    *("wide_resnet_coord_ghost", "lambda_resnet", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch", "trio"),
)
LEARNED = (  # one of each family of Papoutsis et al. 2022
    *("wide_resnet_eca", "lambda_resnet", "efficientnet60_eca", "vgg16_gap", "vit_20", "mlp_mixer_tiny", "k_branch"),
    *("resnet50", "densenet121", "efficientnet_b0"),
)
STUDY = [name for name in NAMES if ZOO[name].family not in RIVAL_FAMILIES]
