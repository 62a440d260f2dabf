"""The weights that a training begins from: what they say about the network and its input, and loading them.

A resumed training takes its weights from the checkpoint, and the description of the encoder from the run's `init.json`. So the
encoder itself need not exist any more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from landscale.errors import BadInput, LandscaleError
from landscale.models.classifier import Classifier, Description
from landscale.models.encoder_input import describe_input, new_bands
from landscale.models.pretrained import begin_from
from landscale.models.pretrained_files import ENCODER, Pretrained, find_pretrained
from landscale.models.registry import fixed_side
from landscale.runtime.documents import read_json_object, typed
from landscale.store import PatchStore
from landscale.training.recipe import Recipe
from landscale.training.runs import Run


@dataclass(frozen=True)
class Beginning:
    """The weights of `--init`.

    model: their network; None if it is not recorded. encoder: the description of the classifier that they are from; None if
    landscale did not write them. found: the weights; None when a run is resumed.
    """

    model: str | None
    encoder: Description | None
    found: Pretrained | None


def find_beginning(recipe: Recipe, run: Run, *, resumes: bool) -> Beginning:
    """Find the weights that a recipe begins from; none, without `init`.

    Raises:
        LandscaleError: there are no such weights. BadInput: the run's `init.json` is damaged.
    """
    if recipe.init is None:
        return Beginning(None, None, None)
    if not resumes:
        found = find_pretrained(recipe.init, recipe.model)
        return Beginning(found.model, found.description(), found)
    file = run.folder / "init.json"
    record = read_json_object(file, "a record of initial weights") if file.exists() else {}
    model, described = record.get("model"), record.get("encoder")
    encoder = None if described is None else typed(file, described, Description, "a record of initial weights")
    if not isinstance(model, str | None):
        raise BadInput(file, f"model: found {model!r}, expected a name")
    return Beginning(model, encoder, None)


def with_network(recipe: Recipe, beginning: Beginning, store: PatchStore) -> Recipe:
    """The recipe with the network of the weights, and its options, if the recipe leaves them to the weights.

    With the network, its head, `scale` and `upsample` come from the weights too where the recipe has the default, and a side with
    as many pixels a metre as in the training of the weights.

    Raises:
        LandscaleError: the weights do not say which network they are of.
    """
    encoder = beginning.encoder
    if recipe.model == ENCODER:
        if beginning.model is None:
            where = f"--init {recipe.init}: does not say which network it is of" if recipe.init else "needs --init"
            raise LandscaleError(f"--model {ENCODER}: {where}; name the network by --model")
        recipe = replace(recipe, model=beginning.model)
        if encoder is not None:
            recipe = replace(recipe, **_from_encoder(recipe, encoder, store))
    if encoder is not None and encoder.model == recipe.model:
        recipe = replace(recipe, options={**encoder.options, **recipe.options})
    return recipe


def _from_encoder(recipe: Recipe, encoder: Description, store: PatchStore) -> dict[str, Any]:
    """The keys of the network's head and input that the recipe leaves to the weights."""
    found: dict[str, Any] = {}
    if recipe.head == Recipe.head and recipe.objective == "labels" and encoder.pixels == (recipe.task == "pixels"):
        found |= {"head_options": dict(encoder.head_options)} | ({} if encoder.pixels else {"head": encoder.head})
    if recipe.scale == Recipe.scale:
        found["scale"] = encoder.scale
    if recipe.upsample == Recipe.upsample and not encoder.stored:
        found["upsample"] = encoder.upsample
    if recipe.side is None:
        same_scale = max(round(encoder.side * store.layout.ground / encoder.ground), 1)
        found["side"] = encoder.side if fixed_side(encoder.model) else same_scale
    return found


def load_beginning(
    classifier: Classifier, own: Recipe, recipe: Recipe, beginning: Beginning, of_store: Description
) -> dict[str, Any] | None:
    """Load the weights into a classifier's network.

    Args:
        classifier: its description has the normalisation of the encoder.
        own: the recipe as the user gave it.
        recipe: the recipe with the network of the weights.
        beginning: the weights.
        of_store: the description with the normalisation of the store.

    Returns:
        The record for `init.json`; None without weights.

    Raises:
        LandscaleError: the weights do not fit the network.
    """
    found, encoder = beginning.found, beginning.encoder
    if found is None:
        return None
    record = begin_from(classifier, found)
    d = classifier.description
    lines = [f"begins from {found.name}"]
    if own.model == ENCODER:
        options = "".join(f", {key} {value}" for key, value in d.options.items())
        lines.append(f"network: {d.model}{options}, {d.head} head, as the weights have it, at {d.side} px")
    lines += record["done"]
    if encoder is not None:
        lines += describe_input(of_store, encoder)
        if recipe.freeze and (new := new_bands(d, encoder)):
            names = ", ".join(new)
            lines.append(
                f"new bands ({names}) have no effect while the first stage is frozen, because their weights are 0"
            )
    record |= {"init": recipe.init, "done": lines, "model": beginning.model}
    return record | {"encoder": None if encoder is None else asdict(encoder)}
