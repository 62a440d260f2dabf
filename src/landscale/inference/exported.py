"""Networks that `landscale export` wrote for other runtimes, used here in place of a classifier.

Such a folder has the network with its input stage in one file, `model.onnx`, or `model.xml` with `model.bin` (OpenVINO), and
`model.json`, a STAC item that describes it. Its entry `landscale:description` is the description of the classifier, its entry
`landscale:planes` has the inputs, and each file has its digest there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.errors import BadInput, LandscaleError, reason
from landscale.loading import Native
from landscale.models.classifier import Classifier, Description, reduced_precision
from landscale.runtime.documents import json_object, read_json_object, typed
from landscale.runtime.files import sha256_of

ITEM = "model.json"
MODELS = {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2"}
DESCRIPTION, PLANES = "landscale:description", "landscale:planes"
SHA256 = "1220"  # how a SHA-256 begins as a multihash, which STAC uses: code of the function, length of the digest
OUTPUT = "probabilities"
_EXPECTED = "a description of an exported network"

Run = Callable[[list[NDArray[np.float32]]], NDArray[np.float32]]
"""Planes (n, bands, side, side) in the order of the inputs → probabilities (n, C)."""


@dataclass(frozen=True)
class InputPlane:
    """One input: its name, which is the key of a plane in a store; its bands in their order; and its side in pixels."""

    name: str
    bands: tuple[str, ...]
    side: int


class ExportedModel:
    """A network in another runtime, with those parts of `Classifier` that inference needs; on the CPU.

    Args:
        path: its folder, for error messages.
        description: that of the classifier.
        planes: the inputs.
        run: computes probabilities.
        checksum: of the file of the network.
    """

    device = torch.device("cpu")

    def __init__(
        self, path: Path, description: Description, planes: Sequence[InputPlane], run: Run, checksum: str
    ) -> None:
        self.path, self.description, self.planes, self._run, self._checksum = path, description, planes, run, checksum

    def digest(self) -> str:
        """SHA-256 of the file of the network, in hexadecimal."""
        return self._checksum

    def probabilities(self, planes: Native) -> Tensor:
        """(n, C) float32 in 0…1. The planes are in the units of the description.

        Raises:
            BadInput: a plane has another side than the network was exported for.
        """
        return torch.from_numpy(self._run([self._input(plane, planes) for plane in self.planes]))

    def _input(self, plane: InputPlane, planes: Native) -> NDArray[np.float32]:
        places = {band: (names, k) for names in reversed(planes) for k, band in enumerate(names)}
        if lacking := [band for band in plane.bands if band not in places]:
            raise LandscaleError(f"the input lacks {', '.join(lacking)}")
        arrays = {names: planes[names].cpu().numpy() for names in {places[band][0] for band in plane.bands}}
        for names, array in arrays.items():
            if array.shape[-1] != plane.side:
                raise BadInput(
                    self.path,
                    f"was exported for patches with {plane.side} px a side in {plane.bands[0]}, found {array.shape[-1]} px in"
                    f" {names[0]}; export it again with --store STORE.h5",
                )
        bands = [arrays[names][:, k] for names, k in (places[band] for band in plane.bands)]
        return np.stack(bands, axis=1, dtype=np.float32, casting="unsafe")


Predictor = Classifier | ExportedModel
"""What computes probabilities from raw pixels: a classifier in PyTorch, or an exported network."""


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds an exported network, and not weights."""
    return (Path(folder) / ITEM).is_file()


def open_exported(folder: str | Path) -> ExportedModel:
    """Open a folder that `landscale export --format onnx` or `openvino` wrote, to be used with torch's number of threads.

    OpenVINO computes in bfloat16 where PyTorch would (`models.classifier.reduced_precision`), ONNX Runtime in float32.

    Raises:
        BadInput: it is damaged, or in a format that landscale does not run.
        LandscaleError: the runtime is not installed.
    """
    folder = Path(folder)
    item = read_item(folder)
    properties = item["properties"]
    description = typed(folder / ITEM, properties[DESCRIPTION], Description, _EXPECTED)
    planes = typed(folder / ITEM, properties[PLANES], tuple[InputPlane, ...], _EXPECTED)
    try:
        description.check()
    except LandscaleError as error:
        raise BadInput(folder / ITEM, f"is not {_EXPECTED}: {error}") from None
    if sorted(band for plane in planes for band in plane.bands) != sorted(description.bands):
        raise BadInput(folder / ITEM, f"is not {_EXPECTED}: the inputs do not have each band once")
    digests = check_files(folder, item)
    for runtime, name in MODELS.items():
        if name in digests and runtime in _OPEN:
            precision = "bf16" if reduced_precision("cpu") else "f32"
            try:
                run = open_network(runtime, folder / name, planes, precision)
                found = run([np.zeros((1, len(p.bands), p.side, p.side), np.float32) for p in planes])
            except LandscaleError:
                raise
            except Exception as error:  # each runtime has exceptions of its own
                raise BadInput(folder / name, f"cannot be used ({reason(error)})") from None
            if found.shape != (1, len(description.classes)):
                raise BadInput(
                    folder / name,
                    f"does not fit {ITEM}: found {found.shape[-1]} classes, expected {len(description.classes)}",
                )
            checksum = hashlib.sha256("".join(digests[file] for file in sorted(digests)).encode()).hexdigest()
            return ExportedModel(folder, description, planes, run, checksum)
    # To load a .pt2 file, torch may unpickle parts of it, which could execute any code.
    raise BadInput(folder, "holds no network that landscale runs; export it with --format onnx or openvino")


def read_item(folder: Path) -> dict[str, Any]:
    """The STAC item of a folder.

    Raises:
        BadInput: it is missing, or is not one that landscale wrote.
    """
    file = folder / ITEM
    item = read_json_object(file, _EXPECTED, ("properties", "assets"))
    json_object(file, item["properties"], _EXPECTED, (DESCRIPTION, PLANES))
    for asset in json_object(file, item["assets"], _EXPECTED).values():
        found = json_object(file, asset, _EXPECTED, ("href", "file:checksum"))
        name, checksum = found["href"], found["file:checksum"]
        if not all(isinstance(value, str) for value in (name, checksum)) or name != f"./{Path(name).name}":
            raise BadInput(file, f"is not {_EXPECTED}: href is {name!r}, expected a file beside it")
    return item


def files_of(item: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of each file that a STAC item lists, by name."""
    return {
        asset["href"].removeprefix("./"): asset["file:checksum"].removeprefix(SHA256)
        for asset in item["assets"].values()
    }


def check_files(folder: Path, item: dict[str, Any]) -> dict[str, str]:
    """What `files_of` returns, once all files match.

    Raises:
        BadInput: one is missing or damaged.
    """
    digests = files_of(item)
    for name, digest in digests.items():
        if sha256_of(folder / name) != digest:
            raise BadInput(folder / name, f"is damaged: its digest is not the one in {ITEM}")
    return digests


def open_network(runtime: str, file: Path, planes: Sequence[InputPlane], precision: str = "f32") -> Run:
    """The function that computes the probabilities of a file, `onnx` or `openvino`, with torch's number of threads.

    Args:
        runtime: one of the two.
        file: the network.
        planes: its inputs.
        precision: f32, or bf16 where the runtime can; ONNX Runtime always computes in float32.

    Raises:
        LandscaleError: the runtime is not installed. Any other: the runtime refuses the file.
    """
    return _OPEN[runtime](file, [plane.name for plane in planes], precision)


def _open_onnx(file: Path, names: list[str], precision: str) -> Run:  # noqa: ARG001
    try:
        import onnxruntime
    except ImportError:
        raise LandscaleError(f"{file}: needs ONNX Runtime: pip install 'landscale[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(planes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        (found,) = session.run([OUTPUT], dict(zip(names, planes, strict=True)))
        return np.asarray(found, np.float32)

    return run


def _open_openvino(file: Path, names: list[str], precision: str) -> Run:
    try:
        import openvino
    except ImportError:
        raise LandscaleError(f"{file}: needs OpenVINO: pip install 'landscale[openvino]'") from None
    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    model = openvino.Core().compile_model(file, "CPU", settings)

    def run(planes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.array(model(dict(zip(names, planes, strict=True)))[OUTPUT], np.float32)

    return run


_OPEN: dict[str, Callable[[Path, list[str], str], Run]] = {"onnx": _open_onnx, "openvino": _open_openvino}
