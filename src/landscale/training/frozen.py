"""Which parts of a network are frozen, as a function of the fraction of the training that is done.

A frozen parameter has no gradient, so the optimiser skips it: no update, no weight decay, no state. Frozen batch norms use their
running statistics and do not change them. Dropout stays. Nothing about this is stored: a resumed training computes it again.
"""

from __future__ import annotations

import math

from torch import nn

from landscale.errors import LandscaleError
from landscale.models.stages import check_layers, in_head, stages
from landscale.training.adapters import MARK
from landscale.training.recipe import Recipe

_ROUNDING = 1e-6  # of a fraction of the training, times `epochs / unfreeze_every`


class Frozen:
    """The parts of a network that a recipe freezes.

    Attributes:
        most: number of stages that are frozen at the start, in 0…the number of stages.

    Raises:
        LandscaleError: the network does not list its stages, or has fewer.
    """

    def __init__(self, recipe: Recipe, network: nn.Module) -> None:
        self.recipe = recipe
        # Some networks have parameters that are never trained, such as fixed position embeddings.
        self._never = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self._stage: dict[str, int] = {}
        self.most = 0
        if recipe.lora or (recipe.freeze == "all" and not recipe.unfreeze_every):  # no order is needed
            names = [name for name, _ in network.named_parameters() if MARK not in name]
            self._stage = {name: 0 for name in names if not in_head(network, name)}
            self.most = 1
        elif recipe.freeze:
            check_layers(network, "--freeze", recipe.model)
            self._stage = stages(network)
            count = len(set(self._stage.values()))
            self.most = count if recipe.freeze == "all" else recipe.freeze
            if self.most > count:
                raise LandscaleError(
                    f"--freeze: found {self.most}, but '{recipe.model}' has {count} stages before its head; expected 0 to"
                    f" {count}, or all"
                )

    def stages_at(self, progress: float) -> int:
        """How many of the first stages are frozen when the fraction `progress` of the training, in 0…1, is done."""
        if not self.recipe.unfreeze_every:
            return self.most
        unfrozen = math.floor(progress * self.recipe.epochs / self.recipe.unfreeze_every + _ROUNDING)
        return max(self.most - unfrozen, 0)

    @property
    def stages_for_good(self) -> int:
        """How many of the first stages are frozen in every step."""
        if not self.recipe.unfreeze_every:
            return self.most
        return max(self.most - math.ceil(self.recipe.epochs / self.recipe.unfreeze_every - _ROUNDING) + 1, 0)

    def begins_frozen(self, name: str) -> bool:
        """Whether the parameter of this name is frozen in the first step."""
        return self._stage.get(name, self.most) < self.most

    def set_gradients(self, network: nn.Module, count: int) -> None:
        """Give no gradient to the parameters of the first `count` stages, and one to those of all later stages."""
        for name, parameter in network.named_parameters():
            if name in self._stage and name not in self._never:
                parameter.requires_grad_(self._stage[name] >= count)

    def fix_norms(self, network: nn.Module, count: int) -> None:
        """Put the batch norms of the first `count` stages into eval mode."""
        if not count:
            return
        for name, module in network.named_modules():
            if hasattr(module, "running_mean") and self._stage.get(f"{name}.weight", count) < count:
                module.eval()
