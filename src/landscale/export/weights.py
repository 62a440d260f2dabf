"""Export a trained classifier: weights with a licence, test scores and a picture of examples, or a network for other runtimes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscale.errors import LandscaleError, UnknownName
from landscale.export.examples import picture_of_examples
from landscale.export.target import check_target
from landscale.inference.exported import MODELS
from landscale.inference.scores import read_scores
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder
from landscale.models.weights import load_model, read_config, save_weights
from landscale.runtime.documents import read_json_object
from landscale.store import PatchStore, open_store

LICENCE = "apache-2.0"
FORMATS = ("weights", *MODELS)


def export_model(
    model: Classifier | str | Path,
    folder: str | Path,
    to: str = "weights",
    *,
    licence: str | None = None,
    store: PatchStore | str | Path | None = None,
) -> Path:
    """Write a folder of weights that landscale and timm load, with a model card for the Hugging Face hub, or of another format.

        landscale.export_model("runs/eca", "eca", store="ben.h5")
        landscale.export_model("runs/eca", "eca-onnx", "onnx", store="ben.h5")

    The other formats need no landscale to run, and include the input stage: raw pixels in, probabilities out. Their probabilities
    are compared with those of PyTorch before anything is written.

    Args:
        model: the folder of a run or of weights, or a classifier, about whose training the card then reports nothing.
        folder: new, empty, or an older export, which is replaced.
        to: the format: weights; onnx, for ONNX Runtime and others; openvino; or pt2, for PyTorch without landscale.
        licence: identifier of the licence of the weights, as the hub lists them: `apache-2.0`, `cc-by-4.0`. None: the one that
            the weights record, else `apache-2.0`.
        store: patches of it are shown in a picture with their labels and predictions; None: no picture. For the other formats,
            the store for whose planes the network is exported, by default that of the training; its patches are compared too.

    Returns:
        The folder.

    Raises:
        BadInput: there are no weights, they are damaged, or the folder has other content.
        LandscaleError: these are weights of other people, of whose licence nothing is known, and none is given; or the network
            cannot be exported in this format, or has other probabilities there.
        UnknownName: there is no such format.
        BadStore: the store cannot be read.
    """
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,63}", licence):
        raise LandscaleError(f"licence: found '{licence}', expected an identifier in lower case such as {LICENCE}")
    if to not in FORMATS:
        raise UnknownName("format", to, FORMATS)
    target = Path(folder)
    if isinstance(model, Classifier):
        check_target(target, [])
        classifier, provenance, config = model, {}, {}
    else:
        source = find_encoder(model)
        check_target(target, [source, Path(model)])
        classifier, provenance, config = load_model(source), _provenance(source, Path(model)), read_config(source)
    recorded = config.get("licence")
    if licence is None and recorded is None and "encoder" in provenance:
        raise LandscaleError(f"export: the licence of {provenance['encoder']} is not known; give it with --licence")
    opened = open_store(store) if isinstance(store, str | Path) else store
    licence = licence or recorded or LICENCE
    if to == "weights":
        picture = picture_of_examples(classifier, opened) if opened else None
        save_weights(target, classifier, provenance, licence=licence, picture=picture, exported=True)
    else:
        from landscale.export.runtimes import export_network

        about = {"licence": licence, **({"digest": config["digest"]} if config else {})}
        export_network(target, to, classifier, provenance, about, opened)
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
