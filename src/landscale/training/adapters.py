"""Low-rank adapters (Hu et al. 2022, LoRA) in the encoder, by the package peft.

A layer with weights W computes with W + B·A. A has `lora` rows, B as many columns, and only they are trained. B starts at 0, so
the network is unchanged at first. When the training has ended, B·A is added to W, so the weights are those of the plain network.
"""

from __future__ import annotations

import re

import torch
from timm.layers import Conv2dSame
from torch import nn

from landscale.errors import LandscaleError
from landscale.models.classifier import Classifier
from landscale.models.patch_convolution import PatchConvolution, use_patch_convolutions
from landscale.models.stages import in_head

MARK = ".lora_"  # in the names of the parameters of adapters, given by peft


def add_adapters(classifier: Classifier, rank: int, seed: int) -> None:
    """Add an adapter to every dense layer and ungrouped convolution before the head of a classifier's network.

    Layers of other types are left out, such as convolutions that standardise their weights. So are layers whose weights another
    module uses without calling them.

    Args:
        classifier: on the CPU; its network is changed.
        rank: inner size of the adapters, at least 1.
        seed: of their initial weights.

    Raises:
        LandscaleError: peft is not installed, or the network has no such layer.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise LandscaleError("--lora needs peft: pip install 'landscale[lora]'") from None
    names = _layers(classifier)
    if not names:
        raise LandscaleError(
            f"--lora with model '{classifier.description.model}': it has no dense layer or ungrouped convolution before its"
            " head; use --freeze or --layer-decay"
        )
    torch.manual_seed(seed)
    exactly = "|".join(map(re.escape, names))  # a list of names would be taken for the ends of longer names
    head = [
        p for name, p in classifier.network.named_parameters() if in_head(classifier.network, name) and p.requires_grad
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=exactly), classifier.network)
    for parameter in head:  # peft leaves a gradient to adapters only
        parameter.requires_grad_()
    use_patch_convolutions(classifier.network)


def merge_adapters(network: nn.Module) -> None:
    """Add the adapters of a network to its weights and remove them, so that it is the plain network with plain names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            network.set_submodule(name, module.get_base_layer())


def _layers(classifier: Classifier) -> list[str]:
    """Names of the layers that can have an adapter and are called in a forward pass."""
    network, called = classifier.network, set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in network.named_modules()
        if _fits(module) and not in_head(network, name)
    ]
    side = classifier.description.side
    with torch.no_grad():
        network.eval()(torch.zeros(1, classifier.inputs.channels, side, side))
    network.train()
    for hook in hooks:
        hook.remove()
    return [name for name, _ in network.named_modules() if name in called]


def _fits(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        plain = type(module) in (nn.Conv2d, PatchConvolution, Conv2dSame)
        return plain and module.groups == 1 and module.dilation == (1, 1) and module.padding_mode == "zeros"
    return type(module) is nn.Linear
