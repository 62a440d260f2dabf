"""Weights: a folder with `model.safetensors`, `config.json`, a model card and perhaps a picture; loaded without pickle.

`config.json` has timm's entries as well, so timm loads the folder without landscale (`timm_config`), and digests of everything in
the folder (`runtime.sealed_config`). Training and export write the same format, by `save_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from landscale.errors import BadInput, LandscaleError, reason
from landscale.models.classifier import Classifier, Description
from landscale.models.model_card import PICTURE, model_card
from landscale.models.shared_tensors import distinct_tensors, with_shared
from landscale.models.timm_config import timm_config
from landscale.runtime.documents import typed
from landscale.runtime.files import atomic_folder
from landscale.runtime.sealed_config import CONFIG, TENSORS, read_sealed, read_sealed_config, write_sealed

_EXPECTED = "a description of landscale weights"


class _Steps(TypedDict):
    trained: int
    planned: int


class _Scores(TypedDict, total=False):
    """The fields of scores that are used; they may have others."""

    split: str
    patches: int
    micro_f1: float | None
    macro_f1: float | None
    micro_ap: float | None
    macro_ap: float | None
    accuracy: float | None
    extra: dict[str, float]
    counts: list[Any]
    classes_with_support: int


class _Plane(TypedDict):
    bands: list[str]
    side: Annotated[int, Meta(ge=1, le=1 << 16)]


class _Provenance(TypedDict, total=False):
    """The fields of `provenance` that are used; it may have others.

    scores: of the val split. test_scores: of the test split. splits: number of patches of each split of the training's store.
    planes: those of its planes that have bands of the network, by key.
    """

    scores: _Scores
    test_scores: _Scores
    splits: dict[str, int]
    steps: _Steps | None
    planes: dict[str, _Plane]


class _Publication(TypedDict, total=False):
    licence: str | None
    exported: bool


def save_weights(
    folder: Path,
    classifier: Classifier,
    provenance: dict[str, Any],
    *,
    licence: str | None = None,
    picture: bytes | None = None,
    exported: bool = False,
) -> None:
    """Write a folder of weights completely or not at all.

    Args:
        folder: replaced if it exists.
        classifier: the classifier whose parameters and description are written.
        provenance: recipe, seed, store and scores, as any JSON object.
        licence: identifier of the licence of the weights, as the hub lists them; None: not chosen yet.
        picture: a PNG file with examples, for the model card.
        exported: whether `landscale export` writes the folder; it replaces only such folders.
    """
    network, timm_entries = classifier.network, timm_config(classifier, licence)
    with atomic_folder(folder) as temporary:
        # timm expects a tensor under each of its names. Cloned, because safetensors refuses tensors that share memory.
        tensors = network.state_dict() if timm_entries else distinct_tensors(network)
        state = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
        save_file(state, temporary / TENSORS, metadata={"format": "pt"})
        parameters = sum(p.numel() for p in network.parameters())
        if picture is not None:
            (temporary / PICTURE).write_bytes(picture)
        card = model_card(
            classifier.description,
            provenance,
            parameters,
            loaded_by_timm=bool(timm_entries),
            licence=licence,
            picture=picture is not None,
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
        (temporary / TENSORS).chmod(
            (temporary / "README.md").stat().st_mode
        )  # safetensors allows only the owner to read it
        about = {"licence": licence, "exported": exported, "provenance": provenance}
        write_sealed(temporary, {"parameters": parameters, **asdict(classifier.description), **about}, timm_entries)


def find_weights(path: Path) -> Path:
    """The folder of weights at a path: the path itself, or `weights` in a run.

    Raises:
        BadInput: there are no weights.
    """
    for folder in (path, path / "weights"):
        if (folder / CONFIG).is_file():
            return folder
    begun = " (its training has not ended)" if (path / "recipe.yaml").exists() else ""
    raise BadInput(path, f"holds no weights: expected config.json and model.safetensors, or a finished run{begun}")


def read_config(path: Path) -> dict[str, Any]:
    """Landscale's entries in the `config.json` of a run or weights. The files beside it are not read.

    Raises:
        BadInput: there are no weights, `config.json` is damaged, or of a newer format.
    """
    file = find_weights(path) / CONFIG
    config = read_sealed_config(file, _EXPECTED)
    return _with_units(config, _description(file, config))


def _with_units(config: dict[str, Any], description: Description) -> dict[str, Any]:
    """The content of a `config.json` with units and level, which older weights do not record."""
    units = {band: description.units.get(band, "unknown") for band in description.bands}
    return config | {"units": units, "level": description.level}


def _description(file: Path, config: Mapping[str, Any]) -> Description:
    """The description in the content of a `config.json`, once types, ranges and sizes are right."""
    typed(file, config.get("provenance", {}), _Provenance, _EXPECTED)
    typed(file, config, _Publication, _EXPECTED)
    known = {key: config[key] for key in Description.__dataclass_fields__.keys() & config.keys()}
    description = typed(file, known, Description, _EXPECTED)
    try:
        description.check()
    except LandscaleError as error:
        raise BadInput(file, f"is not {_EXPECTED}: {error}") from None
    return description


def check_weights(path: Path) -> dict[str, Any]:
    """What `read_config` returns, once the whole folder matches its digests and the tensors fit the network described.

    Raises:
        BadInput: `load_model` would refuse these weights.
    """
    config, description, _ = _read(path)
    return _with_units(config, description)


def load_model(path: str | Path) -> Classifier:
    """Load a classifier: network, input stage, class names and thresholds, in eval mode, on the CPU.

    `model.probabilities(planes)` gives (n, C) float32 in 0…1; `planes` maps tuples of band names to raw pixels
    (n, bands, h, w) at native resolution, in the units of `model.description.units`.

    Args:
        path: the folder of a run or of weights.

    Raises:
        BadInput: there are no weights, they are damaged (a digest differs, a file is missing or left over), or not written by
            landscale.
    """
    path = Path(path)
    _, description, tensors = _read(path)
    try:
        classifier = Classifier(description)
        classifier.network.load_state_dict(with_shared(classifier.network, tensors))
    except (LandscaleError, RuntimeError) as error:
        raise BadInput(_tensor_file(path), f"cannot be loaded ({reason(error)})") from None
    classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classifier.eval()
    return classifier


def _tensor_file(path: Path) -> Path:
    return find_weights(path) / TENSORS


def _read(path: Path) -> tuple[dict[str, Any], Description, dict[str, Tensor]]:
    """The content of `config.json`, the description in it, and the tensors, which are finite and fit the description."""
    config, content = read_sealed(find_weights(path), _EXPECTED)
    description = _description(find_weights(path) / CONFIG, config)
    file = _tensor_file(path)
    try:
        tensors = load(content)
        _check_shapes(file, description, tensors)
    except BadInput:
        raise
    except (LandscaleError, SafetensorError, RuntimeError) as error:
        raise BadInput(file, f"cannot be loaded ({reason(error)})") from None
    check_finite(file, tensors)
    return config, description, tensors


def _check_shapes(file: Path, description: Description, tensors: Mapping[str, Tensor]) -> None:
    """Compare the tensors with the network that is described, before memory is allocated for it.

    Raises:
        BadInput: a tensor is missing, left over, or of another shape.
    """
    try:
        with torch.device("meta"):
            network = Classifier(description).network
    except RuntimeError:  # some networks read values of tensors while they are built
        return
    expected, tensors = network.state_dict(), with_shared(network, tensors)
    if differing := sorted(expected.keys() ^ tensors.keys()):
        where = "lacks" if differing[0] in expected else "has an unexpected"
        raise BadInput(file, f"does not fit config.json: {where} tensor {differing[0]}")
    for name, tensor in expected.items():
        if tensor.shape != tensors[name].shape:
            found = f"{name} has shape {tuple(tensors[name].shape)}, expected {tuple(tensor.shape)}"
            raise BadInput(file, f"does not fit config.json: {found}")


def check_finite(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights whose scores would not be numbers.

    Raises:
        BadInput: a tensor holds NaN or infinity.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise BadInput(file, f"holds values that are not finite, in tensor {name}")
