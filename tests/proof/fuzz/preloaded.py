"""Imports everything that commands import when they run, so that a forked command starts at once."""

import pkgutil
import warnings
from importlib import import_module

import torch
import torch.utils.tensorboard
from timm import create_model  # noqa: F401

import distributed  # noqa: F401  it pickles when it is imported
import landscale

for found in pkgutil.walk_packages(landscale.__path__, "landscale."):
    if found.name not in ("landscale.__main__",):
        import_module(found.name)
torch.set_num_threads(1)
warnings.simplefilter("ignore")
