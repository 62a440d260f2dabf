"""A recipe and a store → the classifier to train."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from landscale.errors import BadStore, LandscaleError, UnknownName, reason
from landscale.loading import targets_by_name
from landscale.models.classifier import Classifier, Description
from landscale.models.input_stage import measure_statistics
from landscale.models.registry import PATCH_SIDE, fixed_side, zoo
from landscale.store import PatchStore
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import band_set
from landscale.vocabulary.headline import HEADLINE
from landscale.vocabulary.nomenclatures import nomenclature


def build_classifier(recipe: Recipe, store: PatchStore) -> Classifier:
    """A new classifier with random weights from the recipe's seed.

    Raises:
        BadStore: the store lacks the train split, a band or a class.
        LandscaleError: the settings of network, head and input contradict each other.
    """
    bands = band_set(recipe.bands).names
    store.patches("train")
    store.planes_for(bands, recipe.upsample == "stored")
    if recipe.labels is None:
        classes, name = store.layout.classes, store.layout.nomenclature
    else:
        classes, name = nomenclature(recipe.labels).names, recipe.labels
        _check_labels(store, recipe.labels, classes)
    entry = zoo(recipe.model)[0]
    if recipe.progressive and fixed_side(recipe.model):
        raise LandscaleError(f"--progressive with model '{entry.name}': it is built for one side, expected []")
    side = recipe.side or round(entry.side * store.layout.side / PATCH_SIDE)
    description = Description(
        model=recipe.model,
        bands=bands,
        classes=classes,
        nomenclature=name,
        multi_label=store.layout.multi_label,
        statistics=measure_statistics(store, bands, recipe.scale),
        side=side,
        ground=store.layout.ground,
        upsample="nearest" if entry.native and recipe.upsample == Recipe.upsample else recipe.upsample,
        scale=recipe.scale,
        options=recipe.options,
        head=recipe.head,
        head_options=recipe.head_options,
        views=recipe.views,
    )
    torch.manual_seed(recipe.seed)
    classifier = Classifier(description)
    for size in {side, *(int(other) for _, other in recipe.progressive)}:
        _try_side(classifier, size)
    return classifier


def _check_labels(store: PatchStore, labels: str, classes: Sequence[str]) -> None:
    """Raises: BadStore, if the store's classes cannot be merged into those of the nomenclature `labels`."""
    try:
        targets_by_name(store, classes)
    except BadStore as error:
        found = str(error).removeprefix(f"{store.path}: ")
        raise BadStore(
            store.path,
            f"{found}; the classes of {labels} cannot be made from its own, use --labels null to train on these",
        ) from error


def _try_side(classifier: Classifier, side: int) -> None:
    """One pass of the network on an input of this side, before a training of hours begins.

    Raises:
        LandscaleError: the network does not take it.
    """
    network = classifier.network
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, classifier.inputs.channels, side, side))
    except (RuntimeError, ValueError, AssertionError, LookupError, TypeError) as error:
        raise LandscaleError(
            f"model '{classifier.description.model}' does not take an input of {side} px ({reason(error)}); choose another"
            " --side"
        ) from error
    finally:
        network.train()


def check_training(recipe: Recipe, store: PatchStore, description: Description, world: int) -> None:
    """Check that a recipe can be trained on a store by `world` ranks.

    Raises:
        BadStore: too few patches, or no val split where it is needed. LandscaleError: a shift as large as the input.
        UnknownName: `select` names a score that this kind of store does not have.
    """
    patches = len(store.patches("train"))
    if patches < world:
        raise BadStore(store.path, f"holds {patches} patches to train on, fewer than {world} processes")
    least = min([description.side, *(int(side) for _, side in recipe.progressive)])
    if recipe.shift >= least:
        raise LandscaleError(f"--shift: found {recipe.shift}, expected less than the input's {least} pixels")
    if recipe.select != "last" and not store.has_split("val"):
        raise BadStore(store.path, f"has no val split, which select={recipe.select} needs; use --select last")
    if recipe.select == "accuracy" and description.multi_label:
        known = [figure for figure in HEADLINE if figure != "accuracy"]
        raise UnknownName("figure of a multi-label store", "accuracy", known)
