"""Probes that train the network: fine-tuning, LoRA, and for comparison the same network from scratch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks, local_device
from landscale.errors import LandscaleError
from landscale.inference.evaluate import infer
from landscale.loading import labelled_patches
from landscale.models.classifier import Description
from landscale.models.input_units import compare_units, store_source
from landscale.models.weights import load_model
from landscale.probing.cells import Cell
from landscale.store import PatchStore, subset
from landscale.training.recipe import Recipe, load_recipe
from landscale.training.training import train

FINE_TUNING_RATE = 0.3  # of the recipe's rate: pre-trained weights need smaller steps than new ones
LORA_RANK = 8  # unless the recipe has another
LEAST_STEPS = 300  # of a training, for which a small split is used in more epochs
_SHORT = ("--batch=32", "--warmup-epochs=3")  # unless a recipe is given: most probes have few patches
# Keys that only have a meaning with initial weights, and their neutral values.
_WITHOUT_INIT: dict[str, Any] = {"init": None, "freeze": 0, "unfreeze_every": 0.0, "layer_decay": 1.0, "lora": 0}


def check_packages(protocols: Collection[str]) -> None:
    """Raises: LandscaleError, if a protocol needs a package that is not installed."""
    if "lora" in protocols and find_spec("peft") is None:
        raise LandscaleError("--protocol lora needs peft: pip install 'landscale[lora]'")


def probe_recipe(d: Description, name: str | None = None, words: Sequence[str] = ()) -> Recipe:
    """The recipe of trainings that begin with an encoder: its network and input, and the rest from a recipe.

    Args:
        d: description of the encoder.
        name: a shipped recipe or YAML file; None: 30 epochs of AdamW in batches of 32.
        words: `--key value` of further recipe keys, which come last.

    Raises:
        LandscaleError: as `load_recipe`.
    """
    keys = {
        "model": d.model,
        "options": json.dumps(dict(d.options)),
        "head": d.head,
        "head-options": json.dumps(dict(d.head_options)),
        "bands": ",".join(d.bands),
        "side": d.side,
        "upsample": d.upsample,
        "scale": d.scale,
    }
    network = [f"--{key}={value}" for key, value in keys.items()]
    return load_recipe(name, [*network, *(_SHORT if name is None else ()), *words])


def cell_recipe(recipe: Recipe, cell: Cell, weights: Path, patches: int) -> Recipe:
    """The recipe of one training.

    Args:
        recipe: for the whole train split.
        cell: its protocol and seed.
        weights: the encoder that fine-tuning and LoRA begin with.
        patches: number of training patches; so few that the training would have less than `LEAST_STEPS` are used in more epochs.
    """
    changes: dict[str, Any] = {"seed": cell.seed, "init": str(weights)}
    if cell.protocol == "scratch":
        changes |= _WITHOUT_INIT
    elif cell.protocol == "lora":
        changes["lora"] = recipe.lora or LORA_RANK
    else:
        changes |= {"rate": recipe.rate * FINE_TUNING_RATE, "lora": 0}
    step = recipe.batch * recipe.accumulate
    epochs = max(recipe.epochs, math.ceil(LEAST_STEPS / max(patches // step, 1)))
    scale = epochs / recipe.epochs
    changes |= {"epochs": epochs, "milestones": [epoch * scale for epoch in recipe.milestones]}
    changes |= {key: getattr(recipe, key) * scale for key in ("warmup_epochs", "unfreeze_every")}
    # Without a choice of the best epoch, evaluations in between have no effect on the result.
    changes["evaluate_every"] = epochs if recipe.select == "last" else math.ceil(recipe.evaluate_every * scale)
    return replace(recipe, **changes)


def trained_probabilities(recipe: Recipe, store: PatchStore, rows: NDArray[np.int64], run: Path) -> NDArray[np.float32]:
    """Train on some rows of the train split, and return the probabilities (n, C) of the test split.

    The run is removed at the end: its scores are what is kept. After an interruption, the same call resumes.

    Args:
        recipe: the recipe.
        store: the store.
        rows: rows of its train split, the only ones whose labels are used, besides those of val by which thresholds are chosen.
        run: folder of the training.
    """
    train(recipe, subset(store, rows), run)
    classifier = load_model(run).to(local_device())
    d = classifier.description
    patches = labelled_patches(store, "test", d.classes)
    compared = compare_units(d, store_source(store, d.bands, patches, stored=d.stored))
    found = infer(classifier, store, patches, Ranks(), show=False, factors=compared.factors)
    shutil.rmtree(run)
    with suppress(OSError):  # other cells have runs there
        run.parent.rmdir()
    return found
