"""Export a classifier, with its input stage, for ONNX Runtime, OpenVINO, or PyTorch without landscale."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from landscale.errors import LandscaleError, reason
from landscale.export.comparison import TOLERANCE, largest_difference, patches_of, random_patches
from landscale.export.portable import Portable, input_planes
from landscale.export.stac import model_item
from landscale.inference.exported import ITEM, MODELS, OUTPUT, InputPlane, Run, open_network
from landscale.models.classifier import Classifier
from landscale.runtime.documents import write_json
from landscale.runtime.files import atomic_folder
from landscale.store import PatchStore

_PT2_METADATA = "landscale.json"


def export_network(
    folder: Path,
    runtime: str,
    classifier: Classifier,
    provenance: Mapping[str, Any],
    about: Mapping[str, Any],
    store: PatchStore | None,
) -> None:
    """Write `model.onnx`, `model.xml` or `model.pt2`, with `model.json` beside it, completely or not at all.

    Args:
        folder: replaced if it exists.
        runtime: one of `MODELS`.
        classifier: it is not changed.
        provenance: of its weights.
        about: `licence`, and `digest` of the weights where there is one.
        store: patches of it are compared too, and its planes become the inputs.

    Raises:
        LandscaleError: a package is not installed, the classifier has no classes, the network cannot be exported, or the
            probabilities differ from those of PyTorch by more than `TOLERANCE`.
        BadStore: the store lacks a band. BadInput: its unit cannot be converted into that of the weights.
    """
    classifier.check_patches("export --format onnx, openvino and pt2")
    d = classifier.description
    planes = input_planes(d, provenance, store)
    network = Portable(deepcopy(classifier).cpu().eval(), planes)
    metadata = _metadata(classifier, planes, about)
    batches = [random_patches(d, planes, 3), random_patches(d, planes, 1)]
    if store is not None:
        batches.append(patches_of(store, d, planes))
    with atomic_folder(folder) as temporary:
        file = temporary / MODELS[runtime]
        with _quiet():
            program = _program(network, planes)
            run = _WRITE[runtime](program, file, planes, metadata)
        difference = max(largest_difference(network, run, batch) for batch in batches)
        if not difference <= TOLERANCE:
            raise LandscaleError(
                f"export: the probabilities of {file.name} differ by {difference:.2g} from those of PyTorch, expected at most"
                f" {TOLERANCE:g}; nothing was written"
            )
        write_json(temporary / ITEM, model_item(classifier, planes, about, runtime, temporary, difference))


def _metadata(classifier: Classifier, planes: Sequence[InputPlane], about: Mapping[str, Any]) -> dict[str, str]:
    """What every exported file has in itself, as JSON by key, so that it can be used without `model.json`."""
    d = classifier.description
    entries = {
        "classes": d.classes,
        "multi_label": d.multi_label,
        "thresholds": d.thresholds,
        "inputs": {plane.name: {"bands": plane.bands, "side": plane.side} for plane in planes},
        "units": {band: d.units.get(band, "unknown") for band in d.bands},
        "level": d.level,
        "statistics": d.statistics,
        "ground": d.ground,
        "nomenclature": d.nomenclature,
        "model": d.model,
        **about,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in entries.items()}


def _program(network: Portable, planes: Sequence[InputPlane]) -> ExportedProgram:
    """The network as a graph of tensor operations, for any number of patches."""
    example = tuple(torch.zeros(2, len(plane.bands), plane.side, plane.side) for plane in planes)
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    shapes = (tuple({0: batch} for _ in planes),)
    try:
        with torch.no_grad():
            program = torch.export.export(network, example, dynamic_shapes=shapes)
    except Exception as error:  # torch has many exceptions for code that it cannot turn into a graph
        raise _refused(network, error) from None
    for module in (program.graph_module, *program.graph_module.modules()):
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)  # it has the paths of this machine
    return program


def _refused(network: Portable, error: Exception) -> LandscaleError:
    model = network.classifier.description.model
    return LandscaleError(f"export: {model} cannot be exported ({type(error).__name__}: {reason(error)})")


def _write_onnx(program: ExportedProgram, file: Path, planes: Sequence[InputPlane], metadata: dict[str, str]) -> Run:
    try:
        import onnx_ir
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError:
        raise LandscaleError("--format onnx needs onnx and onnxscript: pip install 'landscale[onnx]'") from None
    names = [plane.name for plane in planes]
    with torch.no_grad():
        exported = torch.onnx.export(program, dynamo=True, input_names=names, output_names=[OUTPUT], verbose=False)
    assert exported is not None
    model = exported.model
    ClearMetadataAndDocStringPass()(
        model
    )  # where in the source each operation comes from, with the paths of this machine
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = onnx_ir.Shape(["batch", *value.shape[1:]])
    model.metadata_props.update(metadata)
    exported.save(file, external_data=False)
    return open_network("onnx", file, planes)


def _write_openvino(
    program: ExportedProgram, file: Path, planes: Sequence[InputPlane], metadata: dict[str, str]
) -> Run:
    try:
        import openvino
    except ImportError:
        raise LandscaleError("--format openvino needs OpenVINO: pip install 'landscale[openvino]'") from None
    model = openvino.convert_model(program)
    for value, plane in zip(model.inputs, planes, strict=True):
        value.get_node().set_friendly_name(plane.name)
        value.get_tensor().set_names({plane.name})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    # Sides are fixed, so that memory is planned when the file is loaded.
    model.reshape({plane.name: [-1, len(plane.bands), plane.side, plane.side] for plane in planes})
    for key, value in metadata.items():
        model.set_rt_info(value, ["landscale", key])
    openvino.save_model(model, file, compress_to_fp16=False)
    return open_network("openvino", file, planes)


def _write_pt2(program: ExportedProgram, file: Path, planes: Sequence[InputPlane], metadata: dict[str, str]) -> Run:  # noqa: ARG001
    texts = {key: json.loads(value) for key, value in metadata.items()}
    torch.export.save(program, file, extra_files={_PT2_METADATA: json.dumps(texts, ensure_ascii=False)})
    network = torch.export.load(file).module()  # this process has just written it

    def run(values: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: Tensor = network(*map(torch.from_numpy, values))
        return np.asarray(found.numpy())

    return run


_WRITE: dict[str, Callable[[ExportedProgram, Path, Sequence[InputPlane], dict[str, str]], Run]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "pt2": _write_pt2,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the lines of progress and the warnings that exporters print; their errors are exceptions."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
