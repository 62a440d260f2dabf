"""Scaled networks: their options, input side, parameters and FLOPs, all of them after rounding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, describe_model
from landscale.models.compound import Scaling
from landscale.models.registry import PATCH_SIDE
from landscale.store import PatchStore
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.nomenclatures import nomenclature


@dataclass(frozen=True)
class ScaledNetwork:
    """A network at one scaling.

    Args:
        options: the options of the network that scaling sets, such as depth and width.
        side: input side in pixels.
        flops: FLOPs of the forward pass of one patch, as `registry.describe_model` counts them.
    """

    scaling: Scaling
    options: Mapping[str, Any]
    side: int
    parameters: int
    flops: int

    @property
    def name(self) -> str:
        """A name that is valid in a file name, such as `depth-16_width-2.2_70px`."""
        values = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in sorted(self.options.items())}
        return re.sub(r"[^\w.-]+", "-", "_".join([*(f"{k}-{v}" for k, v in values.items()), f"{self.side}px"]))

    @property
    def key(self) -> tuple[int, int, int]:
        """Equal for two scalings of a network that round to the same layers, even if their options differ."""
        return self.side, self.parameters, self.flops


@dataclass(frozen=True)
class ScalableNetwork:
    """A network that can be scaled.

    Args:
        recipe: trains the network `recipe.model`; sets neither `side` nor an option that scaling sets.
        bands: number of input channels.
        classes: number of outputs.
        ground: side of the store's patches in pixels at 10 m. The input side is scaled in proportion, as in training.
    """

    recipe: Recipe
    bands: int
    classes: int
    ground: int

    @cached_property
    def unscaled(self) -> ScaledNetwork:
        return self.network(Scaling())

    def network(self, scaling: Scaling) -> ScaledNetwork:
        """The network at a scaling."""
        scaled = ZOO[self.recipe.model].scaled
        assert scaled is not None
        options, side = scaled(scaling)
        side = max(1, round(side * self.ground / PATCH_SIDE))
        all_options = json.dumps(self.recipe.options | options, sort_keys=True)
        parameters, flops = _count(self.recipe.model, self.bands, self.classes, side, all_options)
        return ScaledNetwork(scaling, options, side, parameters, flops)

    def recipe_of(self, network: ScaledNetwork, seed: int) -> Recipe:
        """The recipe that trains `network`."""
        options = self.recipe.options | dict(network.options)
        return replace(self.recipe, options=options, side=network.side, seed=seed)


@cache  # a grid has many scalings that round to the same options
def _count(model: str, bands: int, classes: int, side: int, options: str) -> tuple[int, int]:
    """Parameters and FLOPs of a network. `options` is JSON, because arguments of a cached function must be hashable."""
    described = describe_model(model, bands, classes, side, **json.loads(options))
    return described["parameters"], described["flops"]


def scalable_network(recipe: Recipe, store: PatchStore) -> ScalableNetwork:
    """The network of a recipe, to be scaled and trained on a store.

    Raises:
        UnknownName: there is no such network.
        LandscaleError: the network cannot be scaled, or the recipe sets what scaling sets.
        BadStore: the store has no train or val split, or lacks a band.
    """
    scalable = [entry.name for entry in ZOO.values() if entry.scaled is not None]
    entry = ZOO.get(recipe.model)
    if entry is None:
        raise UnknownName("network that can be scaled", recipe.model, scalable)
    if entry.scaled is None:
        raise LandscaleError(f"'{recipe.model}' cannot be scaled; those that can: {', '.join(scalable)}")
    if recipe.progressive:
        raise LandscaleError(
            "--progressive: sets input sides in pixels, which scaling changes; expected a recipe without it"
        )
    # networks whose dropout grows with their size override the recipe's dropout
    if taken := (recipe.options.keys() & entry.scaled(Scaling())[0].keys()) - {"drop_rate"}:
        raise LandscaleError(f"--options: sets {min(taken)}, which compound scaling sets itself")
    store.patches("train")
    store.patches("val")
    bands = band_set(recipe.bands).names
    store.planes_for(bands, recipe.upsample == "stored")
    classes = store.layout.classes if recipe.labels is None else nomenclature(recipe.labels).names
    channels = len(bands) * (2 if recipe.scale == "both" else 1)
    return ScalableNetwork(replace(recipe, side=None), channels, len(classes), store.layout.side)
