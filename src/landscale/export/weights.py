"""Export a trained classifier as a folder of weights that is complete: with a licence, test scores and a picture of examples."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscale.errors import BadInput, LandscaleError
from landscale.export.examples import picture_of_examples
from landscale.inference.scores import read_scores
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder
from landscale.models.weights import load_model, read_config, save_weights
from landscale.runtime.documents import read_json_object
from landscale.runtime.sealed_config import CONFIG
from landscale.store import PatchStore, open_store

LICENCE = "apache-2.0"


def export_model(
    model: Classifier | str | Path,
    folder: str | Path,
    *,
    licence: str | None = None,
    store: PatchStore | str | Path | None = None,
) -> Path:
    """Write a folder of weights that landscale and timm load, with a model card for the Hugging Face hub.

        landscale.export_model("runs/eca", "eca", store="ben.h5")

    Args:
        model: the folder of a run or of weights, or a classifier, about whose training the card then reports nothing.
        folder: new, empty, or an older export, which is replaced.
        licence: identifier of the licence of the weights, as the hub lists them: `apache-2.0`, `cc-by-4.0`. None: the one that
            the weights record, else `apache-2.0`.
        store: patches of it are shown in a picture with their labels and predictions; None: no picture.

    Returns:
        The folder.

    Raises:
        BadInput: there are no weights, they are damaged, or the folder has other content.
        LandscaleError: these are weights of other people, of whose licence nothing is known, and none is given.
        BadStore: the store cannot be read.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", licence):
        raise LandscaleError(f"licence: found '{licence}', expected an identifier in lower case such as {LICENCE}")
    target = Path(folder)
    if isinstance(model, Classifier):
        _check_target(target, [])
        classifier, provenance, recorded = model, {}, None
    else:
        source = find_encoder(model)
        _check_target(target, [source, Path(model)])
        classifier, provenance, recorded = (
            load_model(source),
            _provenance(source, Path(model)),
            read_config(source).get("licence"),
        )
    if licence is None and recorded is None and "encoder" in provenance:
        raise LandscaleError(f"export: the licence of {provenance['encoder']} is not known; give it with --licence")
    opened = open_store(store) if isinstance(store, str | Path) else store
    picture = picture_of_examples(classifier, opened) if opened else None
    save_weights(target, classifier, provenance, licence=licence or recorded or LICENCE, picture=picture, exported=True)
    return target


def _provenance(weights: Path, run: Path) -> dict[str, Any]:
    """The provenance of weights, with the test scores and the sizes of the splits where these are those of a run."""
    provenance: dict[str, Any] = dict(read_config(weights).get("provenance") or {})
    if weights != run / "weights" or not (run / "run.json").is_file():
        return provenance
    if (run / "scores-test.json").is_file() and (scores := read_scores(run / "scores-test.json")):
        provenance["test_scores"] = scores.to_json()
    splits = read_json_object(run / "run.json", "a description of a run").get("splits")
    if "splits" not in provenance and _are_sizes(splits):  # weights of older versions do not record them
        provenance["splits"] = splits
    return provenance


def _are_sizes(splits: object) -> bool:
    return isinstance(splits, Mapping) and all(type(size) is int for size in splits.values())


def _check_target(folder: Path, inputs: list[Path]) -> None:
    """Refuse a folder that holds anything but an older export, or that is an input or inside one; nothing is changed.

    Raises:
        BadInput: it is.
    """
    place = Path(os.path.realpath(folder))
    for given in inputs:
        if place.is_relative_to(Path(os.path.realpath(given))):
            raise BadInput(folder, f"is the input {given} or inside it; choose another folder")
    if not os.path.lexists(folder):
        return
    if not folder.is_dir() or folder.is_symlink():
        raise BadInput(folder, "is not a folder, expected a new one")
    names = {path.name for path in folder.iterdir()}
    if names and not _is_export(folder, names):
        raise BadInput(folder, "is neither empty nor an older export; choose another folder or remove it")


def _is_export(folder: Path, names: set[str]) -> bool:
    """Whether export wrote the folder, and nothing was added to it since."""
    try:
        config = read_config(folder) if CONFIG in names else {}
    except LandscaleError:
        return False
    return config.get("exported") is True and names == {CONFIG, *config.get("files", {})}
