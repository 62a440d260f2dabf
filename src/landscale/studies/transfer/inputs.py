"""The encoders and stores of a study, all of them checked before anything is computed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from landscale.errors import BadInput, LandscaleError
from landscale.models.classifier import Description
from landscale.models.encoders import load_encoder
from landscale.models.input_units import compare_units, store_source
from landscale.probing.cells import FROZEN, TRAINED
from landscale.probing.study import probe_data
from landscale.probing.training import probe_recipe
from landscale.store import PatchStore, open_store
from landscale.training.build import build_classifier
from landscale.training.recipe import Recipe


@dataclass(frozen=True)
class Encoder:
    """An encoder of a study.

    Attributes:
        name: as the user gave it.
        digest: of its weights.
        description: of its network and input.
        recipe: of its trainings.
        network: name of its network, with a number if another encoder has this network with other options or another input.
        trains_scratch: whether it is the first encoder of this network and input, which are trained from scratch only once.
    """

    name: str
    digest: str
    description: Description
    recipe: Recipe
    network: str
    trains_scratch: bool


def find_encoders(names: Sequence[str], recipe: str | None, words: Sequence[str]) -> list[Encoder]:
    """The encoders of these names.

    Args:
        names: names of encoders (`models.encoders`).
        recipe, words: of their trainings (`probing.training.probe_recipe`).

    Raises:
        LandscaleError: there are no such weights, or two names of the same ones; or the recipe cannot be used.
    """
    encoders: list[Encoder] = []
    for name in names:
        classifier = load_encoder(name)
        d, digest = classifier.description, classifier.digest()
        for other in encoders:
            if other.digest == digest:
                raise LandscaleError(f"--encoders: {other.name} and {name} are the same weights, expected each once")
        own = probe_recipe(d, recipe, words)
        same = next((other.network for other in encoders if other.recipe == own), None)
        namesakes = {other.network for other in encoders if other.description.model == d.model}
        network = same or (f"{d.model} ({len(namesakes) + 1})" if namesakes else d.model)
        encoders.append(Encoder(name, digest, d, own, network, trains_scratch=same is None))
    return encoders


def open_stores(paths: Sequence[str | Path]) -> list[PatchStore]:
    """The stores at these paths.

    Raises:
        BadStore: one of them cannot be read. BadInput: two of them are the same.
    """
    stores: list[PatchStore] = []
    for path in paths:
        store = open_store(path)
        for other in stores:
            if other.fingerprint() == store.fingerprint():
                raise BadInput(path, f"holds the same patches as {other.path}, expected each store once")
        stores.append(store)
    return stores


def check_pair(encoder: Encoder, store: PatchStore, protocols: Collection[str]) -> None:
    """Check what `probing.probe` would only find when it computes features or begins to train.

    Raises:
        LandscaleError: the store lacks classes, a split or a band, its unit cannot be converted into that of the encoder, or
            the recipe does not fit it.
    """
    d = encoder.description
    patches = probe_data(store, encoder.recipe, protocols, Path()).rows("train")
    if set(protocols) & set(FROZEN):
        store.planes_for(d.bands, d.stored)
        compare_units(d, store_source(store, d.bands, patches, stored=d.stored))
    if trained := set(protocols) & set(TRAINED):
        build_classifier(encoder.recipe, store, d if trained - {"scratch"} else None)
