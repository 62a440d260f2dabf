"""Weights: a folder with `model.safetensors`, `config.json` and a model card, that can be loaded without pickle."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from landscale.errors import BadInput, reason
from landscale.models.classifier import Classifier, Description
from landscale.runtime.documents import read_json_object, write_json
from landscale.runtime.files import atomic_folder
from landscale.vocabulary.headline import headline

FORMAT = 1


def save_weights(folder: Path, classifier: Classifier, provenance: dict[str, Any]) -> None:
    """Write a folder of weights completely or not at all.

    Args:
        folder: replaced if it exists.
        classifier: the classifier whose parameters and description are written.
        provenance: recipe, seed, store and scores, as any JSON object.
    """
    with atomic_folder(folder) as temporary:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.network.state_dict().items()}
        save_file(state, temporary / "model.safetensors", metadata={"format": "pt"})
        digest = hashlib.sha256((temporary / "model.safetensors").read_bytes()).hexdigest()
        config = {
            "landscale_format": FORMAT,
            "digest": digest,
            "parameters": sum(p.numel() for p in classifier.network.parameters()),
            **asdict(classifier.description),
            "provenance": provenance,
        }
        write_json(temporary / "config.json", config)
        (temporary / "README.md").write_text(_model_card(classifier, provenance), encoding="utf-8")


def find_weights(path: Path) -> Path:
    """The folder of weights at a path: the path itself, or `weights` in a run.

    Raises:
        BadInput: there are no weights.
    """
    for folder in (path, path / "weights"):
        if (folder / "config.json").is_file():
            return folder
    begun = " (its training has not ended)" if (path / "recipe.yaml").exists() else ""
    raise BadInput(path, f"holds no weights: expected config.json and model.safetensors, or a finished run{begun}")


def read_config(path: Path) -> dict[str, Any]:
    """The content of the `config.json` of a run or weights."""
    file = find_weights(path) / "config.json"
    content = read_json_object(file, "a description of landscale weights", ("landscale_format",))
    if content["landscale_format"] > FORMAT:
        raise BadInput(path, f"has format {content['landscale_format']}, this program reads up to {FORMAT}")
    return content


def load_model(path: str | Path) -> Classifier:
    """Load a classifier: network, input stage, class names and thresholds, in eval mode, on the CPU.

    `model.probabilities(planes)` gives (n, C) float32 in 0…1; `planes` maps tuples of band names to raw digital numbers
    (n, bands, h, w) at native resolution.

    Args:
        path: the folder of a run or of weights.

    Raises:
        BadInput: there are no weights, they are damaged (the digest differs), or not written by landscale.
    """
    folder = find_weights(Path(path))
    config = read_config(folder)
    file = folder / "model.safetensors"
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != config["digest"]:
            raise BadInput(file, "is damaged: its digest is not the one in config.json")
        classifier = Classifier(_description_of(config))
        classifier.network.load_state_dict(load_file(file))
    except (OSError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise BadInput(file, f"cannot be loaded ({reason(error)})") from None
    classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classifier.eval()
    return classifier


def _description_of(config: dict[str, Any]) -> Description:
    """The description in the content of a `config.json`; lists become tuples."""
    known: dict[str, Any] = {
        key: tuple(config[key]) if isinstance(config[key], list) else config[key]
        for key in Description.__dataclass_fields__.keys() & config.keys()
    }
    return Description(**known)


def _model_card(classifier: Classifier, provenance: dict[str, Any]) -> str:
    d = classifier.description
    scores = provenance.get("scores", {})
    lines = [f"| {key} | {value:.4f} |" for key, value in headline(scores).items()]
    table = "\n".join(["| figure | value |", "|---|---|", *lines])
    synthetic = "\n\n**Trained on synthetic data: not usable on real scenes.**" if provenance.get("synthetic") else ""
    return f"""---
library_name: landscale
tags: [sentinel-2, land-cover, {"multi-label" if d.multi_label else "single-label"}]
---
# {d.model}, {len(d.bands)} bands, {len(d.classes)} classes ({d.nomenclature}){synthetic}

```python
import landscale

model = landscale.load_model("THIS_FOLDER")  # takes raw digital numbers at native resolution
```

Bands: {", ".join(d.bands)}. Input {d.side}×{d.side} px, {d.upsample}; statistics and thresholds are in `config.json`.
Recipe `{provenance.get("recipe", "?")}`, seed {provenance.get("seed", "?")}.

Scores on the split `{scores.get("split", "?")}` ({scores.get("patches", 0)} patches), at the thresholds of this model:

{table}

Classes: {", ".join(d.classes)}.
"""
