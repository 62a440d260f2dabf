"""What a scaling makes of a network: options, input side, parameters and FLOPs as they are after rounding."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from landscale.errors import LandscaleError, UnknownName
from landscale.models import ZOO, describe
from landscale.models.compound import Scaling
from landscale.models.registry import PATCH_SIDE
from landscale.store import PatchStore
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.nomenclatures import nomenclature


@dataclass(frozen=True)
class Network:
    """A network at a scaling. `options` are those that the scaling sets; `flops` as `registry.describe` counts them."""

    scaling: Scaling
    options: Mapping[str, Any]
    side: int
    parameters: int
    flops: int

    @property
    def name(self) -> str:
        """Fit for a file: `depth-16_width-2.2_70px`."""
        values = {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in sorted(self.options.items())}
        return re.sub(r"[^\w.-]+", "-", "_".join([*(f"{k}-{v}" for k, v in values.items()), f"{self.side}px"]))

    @property
    def key(self) -> tuple[int, int, int]:
        """Equal for those of a family that round to the same layers, whatever their options."""
        return self.side, self.parameters, self.flops


@dataclass(frozen=True)
class Base:
    """A network that can be scaled, trained by `recipe` on a store of `ground` pixels a patch.

    Args:
        recipe: its model is the network; it sets neither `side` nor an option that scaling sets.
        bands: input channels. classes: outputs.
        ground: side of the store's patches in pixels at 10 m; an input is resampled in proportion, as in training.
    """

    recipe: Recipe
    bands: int
    classes: int
    ground: int
    _described: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def unscaled(self) -> Network:
        return self.network(Scaling())

    def network(self, scaling: Scaling) -> Network:
        scaled = ZOO[self.recipe.model].scaled
        assert scaled is not None
        options, side = scaled(scaling)
        bare = Network(scaling, options, max(1, round(side * self.ground / PATCH_SIDE)), 0, 0)
        if bare.name not in self._described:
            all_options = self.recipe.options | options
            described = describe(self.recipe.model, self.bands, self.classes, bare.side, **all_options)
            self._described[bare.name] = described["parameters"], described["flops"]
        parameters, flops = self._described[bare.name]
        return replace(bare, parameters=parameters, flops=flops)

    def recipe_of(self, network: Network, seed: int) -> Recipe:
        """The recipe that trains `network`."""
        options = self.recipe.options | dict(network.options)
        return replace(self.recipe, options=options, side=network.side, seed=seed)


def base(recipe: Recipe, store: PatchStore) -> Base:
    """The recipe's network as something to scale.

    Raises:
        UnknownName: no such network. LandscaleError: it cannot be scaled, or the recipe sets what scaling sets.
        BadStore: the store has no train or val split, or lacks a band.
    """
    able = [entry.name for entry in ZOO.values() if entry.scaled is not None]
    entry = ZOO.get(recipe.model)
    if entry is None:
        raise UnknownName("network that can be scaled", recipe.model, able)
    if entry.scaled is None:
        raise LandscaleError(f"'{recipe.model}' cannot be scaled; those that can: {', '.join(able)}")
    if recipe.progressive:
        raise LandscaleError(
            "--progressive: gives sides in pixels, but the side is what scaling changes; expected none"
        )
    # dropout may grow with the size, which then takes precedence
    if taken := (recipe.options.keys() & entry.scaled(Scaling())[0].keys()) - {"drop_rate"}:
        raise LandscaleError(f"--options: sets {min(taken)}, which is what scaling sets")
    store.patches("train")
    store.patches("val")
    bands = band_set(recipe.bands).names
    store.planes_for(bands, recipe.upsample == "stored")
    classes = store.layout.classes if recipe.labels is None else nomenclature(recipe.labels).names
    channels = len(bands) * (2 if recipe.scale == "both" else 1)
    return Base(replace(recipe, side=None), channels, len(classes), store.layout.side)
