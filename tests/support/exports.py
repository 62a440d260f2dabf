"""A small classifier with bands at three resolutions, and what another program computes from an exported network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.models.classifier import Classifier, Description
from landscale.testing import CLASSES

BANDS = ("B02", "B05", "B8A", "B03", "B01")  # in another order than in a store, and of three planes
SIDES = {"data_10m": 24, "data_20m": 12, "data_60m": 4}


def small_classifier(**changes: Any) -> Classifier:
    """Random weights whose probabilities differ between patches; thresholds, limits and statistics differ by band and class."""
    d = Description(
        "wide_resnet",
        BANDS,
        CLASSES,
        "custom",
        True,
        {band: (700.0 + 50 * k, 100.0 + 10 * k) for k, band in enumerate(BANDS)},
        24,
        240,
        options={"width": 0.5},
        thresholds=(0.3, 0.5, 0.6, 0.45),
        units=dict.fromkeys(BANDS, "digital number"),
        level="L2A",
    )
    torch.manual_seed(3)
    classifier = Classifier(replace(d, **changes))
    planes = {("B02", "B03"): (2, 24), ("B05", "B8A"): (2, 12), ("B01",): (1, 4)}
    pixels = {bands: 900 + 200 * torch.randn(16, n, side, side) for bands, (n, side) in planes.items()}
    with torch.no_grad():
        for norm in classifier.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0
        logits = classifier.train()(pixels)
        head = classifier.network.get_classifier()
        head.weight.div_(logits.std(0)[:, None] / 2)
        head.bias.sub_(logits.mean(0)).div_(logits.std(0) / 2)
    return classifier.eval()


def run_onnx(folder: Path, pixels: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The probabilities of planes by name."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "model.onnx", options)
    (found,) = session.run(["probabilities"], dict(pixels))
    return found


def run_openvino(folder: Path, pixels: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", settings)
    return np.array(model(dict(pixels))["probabilities"])


def run_pt2(folder: Path, pixels: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    network = torch.export.load(folder / "model.pt2").module()
    with torch.no_grad():
        return network(*(torch.from_numpy(pixels[name]) for name in SIDES)).numpy()


RUN = {"onnx": run_onnx, "openvino": run_openvino, "pt2": run_pt2}


def metadata(folder: Path, runtime: str) -> dict[str, Any]:
    """What the file of a network has in itself."""
    if runtime == "onnx":
        import onnx

        found = {entry.key: entry.value for entry in onnx.load(folder / "model.onnx").metadata_props}
    elif runtime == "openvino":
        found = {e.tag: e.get("value") for e in ElementTree.parse(folder / "model.xml").find("rt_info/landscale")}
    else:
        files = {"landscale.json": ""}
        torch.export.load(folder / "model.pt2", extra_files=files)
        return json.loads(files["landscale.json"])
    return {key: json.loads(value) for key, value in found.items()}
