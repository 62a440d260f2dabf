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
    parser.add_argument("path", metavar="PATH", help="a path, or a name that `landscale models --encoders` lists")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _show_contents(options: argparse.Namespace) -> int:
    from landscale.models.encoders import find_encoder, is_name
    from landscale.runtime.tables import show_networks, show_scene, show_store, show_weights
    from landscale.scenes.scene import is_scene, open_scene
    from landscale.store import is_environment, open_store

    path = find_encoder(options.path) if is_name(options.path) else Path(options.path)
    weights = (path / "config.json").exists() or (path / "recipe.yaml").exists()
    if not weights and is_scene(path) and not (path.is_dir() and is_environment(path)):
        from landscale.scenes.pixels import summary as scene_summary

        scene = scene_summary(open_scene(path))
        return print_result(options, scene, lambda: show_scene(scene))
    if weights:
        from landscale.models.weights import check_weights, find_weights
        from landscale.runtime.sealed_config import read_sealed_config
        from landscale.superres.weights import KIND, load_networks

        folder = find_weights(path)
        if read_sealed_config(folder / "config.json", "a description of landscale weights").get("kind") == KIND:
            networks = load_networks(folder)[1]
            return print_result(options, networks, lambda: show_networks(networks))
        config = {"kind": "weights", **check_weights(folder)}
        return print_result(options, config, lambda: show_weights(config))
    summary = open_store(path).summary()
    return print_result(options, summary, lambda: show_store(summary))
