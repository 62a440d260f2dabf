"""Looking at a store or a scene: info, verify."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import Add, tell

if TYPE_CHECKING:
    pass


def add_commands(add: Add) -> None:
    p = add("info", _info, "what is inside a store, run, weights or scene", "landscale info ben.h5 --json")
    p.add_argument("path", type=Path, metavar="PATH")
    p.add_argument("--json", action="store_true")

    p = add("verify", _verify, "recompute every checksum of a store; exit 1 if one is wrong", "landscale verify ben.h5")
    p.add_argument("store", type=Path, metavar="STORE.h5")
    p.add_argument("--json", action="store_true")


def _info(options: argparse.Namespace) -> int:
    from landscale.runtime.tables import show_networks, show_scene, show_store, show_weights
    from landscale.store import is_environment, open_store

    path: Path = options.path
    weights = (path / "config.json").exists() or (path / "recipe.yaml").exists()
    if not weights and (path.suffix == ".mat" or (path.is_dir() and not is_environment(path))):
        from landscale.scenes.scene import open_scene

        scene = open_scene(path).summary()
        return tell(options, scene, lambda: show_scene(scene))
    if weights:
        from landscale.models.weights import read_config

        config = {"kind": "weights", **read_config(path)}
        show = show_networks if config["kind"] == "superres" else show_weights
        return tell(options, config, lambda: show(config))
    summary = open_store(path).summary()
    return tell(options, summary, lambda: show_store(summary))


def _verify(options: argparse.Namespace) -> int:
    from landscale.runtime.progress import bar
    from landscale.store import open_store

    store = open_store(options.store)
    wrong = []
    with bar("verify", len(store)) as advance:
        for index, damaged in store.damaged():
            if damaged:
                wrong.append(index)
            advance(1)
    names = [str(store.column("name")[k]) for k in wrong]
    content = {"store": str(options.store), "patches": len(store), "damaged": names, "proof": store.proof}

    def text() -> None:
        for name in names:
            print(f"damaged: {name}")
        print(f"{options.store}: {len(store)} patches, {len(names) or 'none'} damaged, by {store.proof}")

    tell(options, content, text)
    return 1 if names else 0
