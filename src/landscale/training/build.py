"""A recipe and a store → the classifier to train."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch

from landscale.errors import BadStore, LandscaleError, UnknownName, reason
from landscale.loading import targets_by_name
from landscale.models.classifier import Classifier, Description
from landscale.models.encoder_input import with_encoder_input
from landscale.models.input_stage import measure_statistics
from landscale.models.registry import PATCH_SIDE, fixed_side, zoo
from landscale.store import REFERENCE, PatchStore
from landscale.training.frozen import Frozen
from landscale.training.recipe import Recipe
from landscale.vocabulary.bands import BANDS, band_set
from landscale.vocabulary.headline import HEADLINE
from landscale.vocabulary.nomenclatures import UNLABELLED, nomenclature


def build_classifier(recipe: Recipe, store: PatchStore, encoder: Description | None = None) -> Classifier:
    """A new classifier with random weights from the recipe's seed.

    Args:
        recipe, store: of the training.
        encoder: description of the weights that will be loaded into it, which brings its normalisation; None: that of the store.

    Raises:
        BadStore: the store lacks the train split, a band or a class.
        LandscaleError: the settings of network, head and input contradict each other.
    """
    description = describe(recipe, store)
    if encoder is not None:
        description = with_encoder_input(description, encoder)
    units = description.units
    if recipe.scale != "linear" and (small := [band for band, unit in units.items() if unit == "reflectance"]):
        raise LandscaleError(
            f"--scale {recipe.scale}: {store.path} holds reflectance in {small[0]}, expected digital numbers; use --scale linear"
        )
    torch.manual_seed(recipe.seed)
    classifier = Classifier(description)
    for size in {description.side, *(int(other) for _, other in recipe.progressive)}:
        _try_side(classifier, size)
    return classifier


def describe(recipe: Recipe, store: PatchStore) -> Description:
    """The description of a recipe's classifier, with the normalisation and the units of the store.

    Raises:
        BadStore, LandscaleError: as for `build_classifier`.
    """
    bands = band_set(recipe.bands).names
    store.patches("train")
    planes = store.planes_for(bands, recipe.upsample == "stored")
    units = {band: plane.unit for plane in planes for band in plane.bands if band in bands}
    stretches = {band: p.stretch for p in planes for band in p.bands if band in bands and p.stretch is not None}
    classes, name = store.layout.classes, store.layout.nomenclature
    if recipe.objective != "labels":
        classes, name = (), UNLABELLED.name
    elif recipe.labels is not None:
        classes, name = nomenclature(recipe.labels).names, recipe.labels
        _check_labels(store, recipe.labels, classes)
    if recipe.objective == "labels" and not classes:
        raise BadStore(store.path, "has no classes to learn; use `landscale pretrain`, which learns without labels")
    pixels = recipe.task == "pixels"
    if pixels:
        store.planes_for((REFERENCE,))
    entry = zoo(recipe.model)[0]
    if recipe.progressive and fixed_side(recipe.model):
        raise LandscaleError(f"--progressive with model '{entry.name}': it is built for one side, expected []")
    side = recipe.side or round(entry.side * store.layout.side / PATCH_SIDE)
    return Description(
        model=recipe.model,
        bands=bands,
        classes=classes,
        nomenclature=name,
        multi_label=store.layout.multi_label and not pixels,
        statistics=measure_statistics(store, bands, recipe.scale),
        side=side,
        ground=store.layout.ground,
        upsample="nearest" if entry.native and recipe.upsample == Recipe.upsample else recipe.upsample,
        scale=recipe.scale,
        options=recipe.options,
        head="pixels" if pixels else recipe.head,
        head_options=recipe.head_options,
        views=recipe.views,
        units=units,
        stretches=stretches,
        level=store.layout.level if any(BANDS[band].wavelength for band in bands) else "not applicable",
    )


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


def check_smallest_step(recipe: Recipe, classifier: Classifier, patches: int, world: int) -> None:
    """Refuse steps in which a process has one patch, if a batch norm of the network would have a single value to normalise.

    That is so where the maps before it have shrunk to one pixel. Its variance is 0, so the network could not learn.

    Args:
        patches: number of patches of the train split, of which a step has fewer than the recipe's if they are not enough.
        world: number of processes.

    Raises:
        LandscaleError: the network cannot be trained with one patch.
    """
    whole = patches >= recipe.batch * recipe.accumulate * world
    parts = min(recipe.accumulate, max(patches // world, 1))  # batches of a smaller step
    fewest = recipe.batch if whole else patches // parts // world
    if fewest != 1 or (recipe.sync_norms and world > 1):
        return
    frozen = Frozen(recipe, classifier.network)
    for side in {classifier.description.side, *(int(other) for _, other in recipe.progressive)}:
        network = deepcopy(classifier.network).train()  # a copy, because batch norms record what they see
        frozen.fix_norms(network, frozen.stages_for_good)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                network(torch.zeros(1, classifier.inputs.channels, side, side))
        except ValueError as error:
            raise LandscaleError(
                f"--batch {recipe.batch} with {patches} patches on {world} {'process' if world == 1 else 'processes'}: a step"
                f" has one patch a process, with which model '{recipe.model}' cannot be trained at {side} px"
                f" ({reason(error)}); expected at least 2, or a larger --side"
            ) from None


def check_training(recipe: Recipe, store: PatchStore, description: Description, world: int) -> None:
    """Check that a recipe can be trained on a store by `world` ranks.

    Raises:
        BadStore: too few patches, or no val split where it is needed. LandscaleError: a shift as large as the input.
        UnknownName: `select` names a score that this kind of store does not have.
    """
    patches = len(store.patches("train"))
    if patches < world:
        raise BadStore(store.path, f"holds {patches} patches to train on, fewer than {world} processes")
    if recipe.objective == "vicreg" and min(patches // recipe.accumulate, recipe.batch * world) < 2:
        raise LandscaleError(
            f"--batch {recipe.batch} with {patches} patches: a batch has one patch, but vicreg compares the patches of a batch;"
            " expected at least 2"
        )
    least = min([description.side, *(int(side) for _, side in recipe.progressive)])
    if recipe.shift >= least:
        raise LandscaleError(f"--shift: found {recipe.shift}, expected less than the input's {least} pixels")
    if recipe.select != "last" and not store.has_split("val"):
        raise BadStore(store.path, f"has no val split, which select={recipe.select} needs; use --select last")
    of_pixels = ("accuracy", "macro_f1", "mean_iou")
    without = {"mean_iou", "accuracy"} if description.multi_label else {"mean_iou"}
    known = of_pixels if description.pixels else [figure for figure in HEADLINE if figure not in without]
    if recipe.select not in (*known, "last"):
        kind = (
            "reference maps"
            if description.pixels
            else f"a {'multi' if description.multi_label else 'single'}-label store"
        )
        raise UnknownName(f"figure of {kind}", recipe.select, known)
