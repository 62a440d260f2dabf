"""`landscale export`: a trained model as a folder for other people and programs."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_weights, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "export",
        _export_model,
        "write a trained model as a folder that landscale and timm load, with a model card",
        "landscale export runs/eca eca --format weights --store ben.h5",
    )
    add_weights(parser, "model")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write; an older export is replaced")
    parser.add_argument("--format", choices=["weights"], default="weights", help="weights: safetensors (default)")
    parser.add_argument(
        "--licence",
        "--license",
        metavar="NAME",
        help="licence of the weights, as the Hugging Face hub lists them (default: that which they record, or apache-2.0)",
    )
    parser.add_argument(
        "--store", type=Path, metavar="STORE.h5", help="show patches of this store with their predictions in the card"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _export_model(options: argparse.Namespace) -> int:
    from landscale.export.weights import export_model
    from landscale.models.weights import read_config

    folder = export_model(options.model, options.folder, licence=options.licence, store=options.store)
    config = read_config(folder)
    content = {"folder": str(folder), "digest": config["digest"], "files": sorted(config["files"])}
    return print_result(
        options, content, lambda: print(f"{folder}: contains the weights, digest {config['digest'][:12]}")
    )
