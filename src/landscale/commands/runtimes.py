"""`--runtime`, for commands that can run a network outside PyTorch."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.errors import BadInput

if TYPE_CHECKING:
    from landscale.inference.exported import ExportedModel
    from landscale.store import PatchStore

RUNTIMES = ("torch", "onnx", "openvino")


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add `--runtime`."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="compute in PyTorch, ONNX Runtime (onnx) or OpenVINO; weights are exported into a temporary folder for the last two"
        " (default: torch for weights, its own for an exported network)",
    )


@contextmanager
def opened_in_runtime(
    model: str, runtime: str | None, store: PatchStore | None = None
) -> Iterator[str | ExportedModel]:
    """What a command computes with: the name of the model as it is, or the network that `--runtime` exports from its weights.

    Args:
        model: the name of weights, or a folder of an exported network, which has one runtime.
        runtime: the value of `--runtime`; None for the default.
        store: the store for whose planes the network is exported; None: that of the training.

    Raises:
        BadInput: an exported network is of another runtime.
        LandscaleError: the weights cannot be found or exported.
    """
    from landscale.inference.exported import MODELS, files_of, is_exported, open_exported, read_item

    if is_exported(model):
        if runtime is not None and MODELS.get(runtime) not in files_of(read_item(Path(model))):
            raise BadInput(model, f"was exported for another runtime than {runtime}; give the run or weights instead")
        yield model
    elif runtime in (None, "torch"):
        yield model
    else:
        from landscale.export.weights import export_model
        from landscale.models.encoders import find_encoder

        source = find_encoder(model)
        with tempfile.TemporaryDirectory(prefix="landscale-") as place:
            # Some weights do not record their licence, which exports need; this one is removed in the end, so any will do.
            folder = export_model(model, Path(place) / runtime, runtime, licence="other", store=store)
            exported = open_exported(folder)
            exported.path = source  # what error messages name
            yield exported
