"""`landscale info`: what a store, run, folder of weights, or scene contains."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "info",
        _show_contents,
        "show what a store, run, folder of weights, or scene contains",
        "landscale info ben.h5 --json",
    )
    parser.add_argument("path", type=Path, metavar="PATH")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _show_contents(options: argparse.Namespace) -> int:
    from landscale.runtime.tables import show_networks, show_scene, show_store, show_weights
    from landscale.store import is_environment, open_store

    path: Path = options.path
    weights = (path / "config.json").exists() or (path / "recipe.yaml").exists()
    if not weights and (path.suffix == ".mat" or (path.is_dir() and not is_environment(path))):
        from landscale.scenes.scene import open_scene

        scene = open_scene(path).summary()
        return print_result(options, scene, lambda: show_scene(scene))
    if weights:
        from landscale.models.weights import find_weights, read_config
        from landscale.runtime.sealed_config import read_sealed

        config, _ = read_sealed(find_weights(path), "a description of landscale weights")
        if config.get("kind") == "superres":
            show = show_networks
        else:
            config, show = {"kind": "weights", **read_config(path)}, show_weights
        return print_result(options, config, lambda: show(config))
    summary = open_store(path).summary()
    return print_result(options, summary, lambda: show_store(summary))
