r"""Speed and scores of one trained network in several runtimes on the CPU: PyTorch, ONNX Runtime and OpenVINO, down to int8.

    python benchmarks/runtimes.py RUN|WEIGHTS STORE.h5 [--batch 64] [--rounds 5]

The goal for ResNet-50 at 12×120×120: at least 4 times eager float32 in bfloat16, and at least 7 times in int8. A turn is a batch
of raw pixels, with the input stage. int8 is static quantisation of convolutions and dense layers by ONNX Runtime, calibrated with
patches of the train split; OpenVINO runs the same file. The scores are those of the test split at the thresholds of the weights.
A busy machine is refused; with `--anyway` the results are printed and not recorded.

A network and a store of random pixels, where no real ones are at hand. Their scores show whether the runtimes agree, and not
what int8 costs on real images.

    python -c "from landscale.testing import make_store, sentinel_planes; make_store('s.h5', planes=sentinel_planes(120), \
        splits={'train': 512, 'val': 64, 'test': 192}, signal=0.1)"
    landscale train --store s.h5 --run resnet50 --model resnet50 --bands s2-12 --batch 16 --max-time 100s
    python benchmarks/runtimes.py resnet50 s.h5
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rounds import interleaved, record

from landscale.export.portable import Portable
from landscale.export.weights import export_model
from landscale.inference.evaluate import evaluate
from landscale.inference.exported import MODELS, ExportedModel, InputPlane, Run, open_exported, open_network
from landscale.inference.scores import Scores
from landscale.models.classifier import reduced_precision
from landscale.models.encoders import load_encoder
from landscale.store import PatchStore, open_store

BUSIEST = 0.7  # load average at the start above which the figures would be noise
CALIBRATION, CALIBRATION_BATCH = 512, 16  # patches of the train split
GOALS = {"bf16": 4.0, "int8": 7.0}  # times eager float32

Planes = list[NDArray[np.float32]]


def planes_of(store: PatchStore, planes: tuple[InputPlane, ...], rows: NDArray[np.int64]) -> Planes:
    """The inputs of an exported network for patches of the store for which it was exported."""
    by_key = {plane.key: plane for plane in store.layout.planes}
    return [
        store.pixels(plane.name, rows)[:, [by_key[plane.name].bands.index(b) for b in plane.bands]].astype(np.float32)
        for plane in planes
    ]


def quantise(source: Path, target: Path, store: PatchStore, planes: tuple[InputPlane, ...], patches: int) -> None:
    """Write an ONNX file with convolutions and dense layers in int8. The input stage remains in float32."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    train = store.patches("train")
    rows = np.sort(np.random.default_rng(0).permutation(train)[:patches])

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.parts = iter(np.array_split(rows, -(-len(rows) // CALIBRATION_BATCH)))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self.parts, None)
            if part is None:
                return None
            return dict(zip((p.name for p in planes), planes_of(store, planes, part), strict=True))

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Batches(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "MaxPool"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"CalibMovingAverage": True},  # the largest values are those of a few clouds
    )


def torch_runs(network: Portable) -> dict[str, Run]:
    """Eager float32, and compiled bfloat16 with frozen weights in the order that convolutions prefer."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    compiled = torch.compile(deepcopy(network).to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def eager(planes: Planes) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = network(*map(torch.from_numpy, planes)).numpy()
            return found

    def bf16(planes: Planes) -> NDArray[np.float32]:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found: NDArray[np.float32] = compiled(*map(torch.from_numpy, planes)).float().numpy()
            return found

    return {"eager_fp32": eager, "compiled_bf16": bf16}


def turn(run: Run, planes: Planes) -> Callable[[], int]:
    def work() -> int:
        run(planes)
        return len(planes[0])

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("store", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calibration", type=int, default=CALIBRATION, help="patches of the train split")
    parser.add_argument("--anyway", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > BUSIEST and not options.anyway:
        raise SystemExit(f"the load average is {load:.2f}, expected at most {BUSIEST}: wait until the machine is quiet")
    store, classifier = open_store(options.store), load_encoder(options.model)
    d = classifier.description
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exports = {
            to: open_exported(export_model(options.model, folder / to, to, store=store)) for to in ("onnx", "openvino")
        }
        planes = tuple(exports["onnx"].planes)
        onnx, openvino = (folder / to / MODELS[to] for to in ("onnx", "openvino"))
        int8 = folder / "int8.onnx"
        quantise(onnx, int8, store, planes, options.calibration)
        network = Portable(deepcopy(classifier).to(memory_format=torch.contiguous_format), planes)  # type: ignore[call-overload]
        runs = torch_runs(network) | {
            "onnxruntime_fp32": open_network("onnx", onnx, planes),
            "openvino_fp32": open_network("openvino", openvino, planes),
            "openvino_bf16": open_network("openvino", openvino, planes, "bf16"),
            "onnxruntime_int8": open_network("onnx", int8, planes),
            "openvino_int8": open_network("openvino", int8, planes),
        }
        if not reduced_precision("cpu"):  # such processors compute in bfloat16 by emulation
            runs = {key: run for key, run in runs.items() if not key.endswith("bf16")}
        rows = np.resize(store.patches("test"), options.batch)
        pixels = planes_of(store, planes, rows)
        rates = interleaved({key: turn(run, pixels) for key, run in runs.items()}, options.rounds)
        scores = {}
        for key, run in runs.items():
            model = ExportedModel(folder, d, planes, run, key)
            found = evaluate(model, store, "test", batch=options.batch, show=False)
            assert isinstance(found, Scores)
            scores[key] = found
    speedup = {key: rate / rates["eager_fp32"] for key, rate in rates.items()}
    best = {kind: max((v for key, v in speedup.items() if key.endswith(kind)), default=0.0) for kind in GOALS}
    results = {
        "model": d.model,
        "input": [len(d.bands), d.side, d.side],
        "batch": options.batch,
        "threads": torch.get_num_threads(),
        "patches_per_second": rates,
        "over_eager_fp32": speedup,
        "best": best,
        "goals": GOALS,
        "met": {kind: best[kind] >= goal for kind, goal in GOALS.items()},
        "calibration_patches": options.calibration,
        "micro_f1": {key: found.micro_f1 for key, found in scores.items()},
        "macro_f1": {key: found.macro_f1 for key, found in scores.items()},
        "micro_f1_lost": {key: scores["eager_fp32"].micro_f1 - found.micro_f1 for key, found in scores.items()},
    }
    if load > BUSIEST:
        print(json.dumps(results, indent=1))
    else:
        record("runtimes", results)


if __name__ == "__main__":
    main()
