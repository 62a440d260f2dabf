"""`landscale export`: a trained model as a folder for other people, programs and runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_weights, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "export",
        _export_model,
        "write a trained model as a folder of weights with a model card, or as a network for other runtimes",
        "landscale export runs/eca eca --format weights --store ben.h5",
    )
    add_weights(parser, "model")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write; an older export is replaced")
    parser.add_argument(
        "--format",
        choices=["weights", "onnx", "openvino", "pt2"],
        default="weights",
        help="weights: safetensors for landscale and timm (default); the others include the input stage and need no landscale:"
        " onnx, openvino, or pt2 for PyTorch",
    )
    parser.add_argument(
        "--licence",
        "--license",
        metavar="NAME",
        help="licence of the weights, as the Hugging Face hub lists them (default: that which they record, or apache-2.0)",
    )
    parser.add_argument(
        "--store",
        type=Path,
        metavar="STORE.h5",
        help="show patches of this store with their predictions in the card; other formats: export for bands as this store has"
        " them (default: as in training), and compare the probabilities of its patches",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _export_model(options: argparse.Namespace) -> int:
    from landscale.export.weights import export_model
    from landscale.inference.exported import files_of, read_item
    from landscale.models.weights import read_config

    folder = export_model(options.model, options.folder, options.format, licence=options.licence, store=options.store)
    if options.format == "weights":
        config = read_config(folder)
        content = {"folder": str(folder), "digest": config["digest"], "files": sorted(config["files"])}
        line = f"{folder}: contains the weights, digest {config['digest'][:12]}"
    else:
        item = read_item(folder)
        difference = item["properties"]["landscale:largest_difference"]
        content = {"folder": str(folder), "largest_difference": difference, "files": sorted(files_of(item))}
        line = f"{folder}: contains {options.format}; probabilities differ by at most {difference:.1g} from PyTorch's"
    return print_result(options, content, lambda: print(line))
