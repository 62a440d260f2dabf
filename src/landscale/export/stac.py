"""The STAC item of an exported network, with the extension for machine learning models (MLM) of STAC.

Fields: https://github.com/stac-extensions/mlm (version 1.5), of files https://github.com/stac-extensions/file, of classes
https://github.com/stac-extensions/classification; those of bands are in the core of STAC 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from landscale.inference.exported import DESCRIPTION, OUTPUT, PLANES, SHA256, InputPlane
from landscale.models.classifier import Classifier, Description
from landscale.runtime.files import sha256_of
from landscale.vocabulary.bands import BANDS
from landscale.vocabulary.units import unit_name

EXTENSIONS = (
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
)
_FRAMEWORKS = {"onnx": ("ONNX", "onnx"), "openvino": ("OpenVINO", "openvino"), "pt2": ("PyTorch", "torch")}
_ARTIFACTS = {"onnx": "onnx", "openvino": "openvino.save_model", "pt2": "torch.export.save"}
_TASKS = ["scene-classification", "classification"]


def model_item(
    classifier: Classifier,
    planes: Sequence[InputPlane],
    about: Mapping[str, Any],
    runtime: str,
    folder: Path,
    difference: float,
) -> dict[str, Any]:
    """The item of a network whose files are in a folder.

    Args:
        classifier: what was exported.
        planes: the inputs.
        about: `licence`, and `digest` of the weights where there is one.
        runtime: `onnx`, `openvino` or `pt2`.
        folder: it holds the files of the network and no others.
        difference: the largest difference of a probability from PyTorch's.
    """
    d = classifier.description
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"landscale-{d.model}-{d.nomenclature}").strip("-_.")
    framework, package = _FRAMEWORKS[runtime]
    properties = {
        "title": f"{d.model}, {len(d.bands)} bands, {len(d.classes)} classes",
        "description": _text(d),
        # STAC needs a time, but a network has none in which it may be used: the widest range, as the extension advises.
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "license": about["licence"],
        "bands": [_band(d, band) for band in d.bands],
        "mlm:name": name,
        "mlm:architecture": d.model,
        "mlm:tasks": _TASKS,
        "mlm:framework": framework,
        "mlm:framework_version": version(package),
        "mlm:total_parameters": sum(p.numel() for p in classifier.network.parameters()),
        "mlm:accelerator": None,
        "mlm:input": [_input(plane) for plane in planes],
        "mlm:output": [_output(d)],
        **({"mlm:hyperparameters": {"thresholds": list(d.thresholds)}} if d.thresholds else {}),
        "landscale:level": d.level,
        "landscale:largest_difference": difference,
        **({"landscale:weights": about["digest"]} if "digest" in about else {}),
        PLANES: [asdict(plane) for plane in planes],
        DESCRIPTION: asdict(d),
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {_asset_name(file): _asset(file, runtime) for file in sorted(folder.iterdir())},
    }


def _text(d: Description) -> str:
    kind = "each independent of the others" if d.multi_label else "with the sum 1"
    return (
        f"Land cover of patches of {d.ground:g} m: raw pixels of level {d.level} in, the probability of {len(d.classes)} classes"
        f" out, {kind}. Normalisation and resampling are part of the network; the number of patches is free, their side fixed."
    )


def _band(d: Description, name: str) -> dict[str, Any]:
    unit = d.units.get(name, "unknown")
    known = BANDS.get(name)
    statistics = d.statistics.get(name)
    return {
        "name": name,
        "description": unit_name(unit, d.stretches.get(name)),
        "unit": unit,
        **({"gsd": known.gsd} if known else {}),
        **({"statistics": {"mean": statistics[0], "stddev": statistics[1]}} if statistics else {}),
    }


def _input(plane: InputPlane) -> dict[str, Any]:
    return {
        "name": plane.name,
        "bands": list(plane.bands),
        "input": {
            "shape": [-1, len(plane.bands), plane.side, plane.side],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "description": "raw pixels at native resolution, in the unit of each band",
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(d: Description) -> dict[str, Any]:
    classes = [
        {
            "value": k,
            "name": re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-") or str(k),
            "title": name,
            "description": name,
        }
        for k, name in enumerate(d.classes)
    ]
    return {
        "name": OUTPUT,
        "tasks": _TASKS,
        "result": {"shape": [-1, len(d.classes)], "dim_order": ["batch", "class"], "data_type": "float32"},
        "classification:classes": classes,
        "post_processing_function": None,
    }


def _asset_name(file: Path) -> str:
    return "weights" if file.suffix == ".bin" else "model"


def _asset(file: Path, runtime: str) -> dict[str, Any]:
    roles = ["mlm:weights", "weights"] if _asset_name(file) == "weights" else ["mlm:model", "model"]
    return {
        "href": f"./{file.name}",
        "title": f"{_FRAMEWORKS[runtime][0]}: {'weights' if roles[0] == 'mlm:weights' else 'network with its input stage'}",
        "type": f"application/octet-stream; framework={_FRAMEWORKS[runtime][1]}",
        "roles": roles,
        "mlm:artifact_type": _ARTIFACTS[runtime],
        "file:size": file.stat().st_size,
        "file:checksum": SHA256 + sha256_of(file),
    }
