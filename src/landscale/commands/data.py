"""Making a store and looking at it: prepare, info, verify."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from landscale.commands.command import Add, tell
from landscale.errors import UnknownName

if TYPE_CHECKING:
    from landscale.sources.survey import Survey


def add_commands(add: Add) -> None:
    p = add(
        "prepare",
        _prepare,
        "a source → a patch store",
        "landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8",
    )
    p.add_argument("source", metavar="SOURCE", help="bigearthnet, eurosat or synthetic")
    p.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="folder or zip, or SPLIT=PATH to put all of it into one split"
    )
    p.add_argument("store", type=Path, metavar="STORE.h5")
    p.add_argument("--labels", help="bigearthnet: nomenclature, clc43 or ben19 (default: v1 clc43, v2 ben19)")
    p.add_argument("--lists", type=Path, help="folder of split lists: train.csv, val.csv.bz2, test.txt …")
    p.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all cores)")
    p.add_argument("--skip-bad", action="store_true", help="leave damaged patches out and list them")
    p.add_argument("--seed", type=int, default=0, help="eurosat: of the drawn split; synthetic: of the landscape")
    p.add_argument("--patches", type=int, default=600, help="synthetic: how many patches to make")
    p.add_argument("--json", action="store_true")

    p = add("info", _info, "what is inside a store, run, weights or scene", "landscale info ben.h5 --json")
    p.add_argument("path", type=Path, metavar="PATH")
    p.add_argument("--json", action="store_true")

    p = add("verify", _verify, "recompute every checksum of a store; exit 1 if one is wrong", "landscale verify ben.h5")
    p.add_argument("store", type=Path, metavar="STORE.h5")
    p.add_argument("--json", action="store_true")


def _prepare(options: argparse.Namespace) -> int:
    from landscale.prepare import prepare

    outcome = prepare(_survey(options), options.store, options.workers, skip_bad=options.skip_bad)
    for name, reason in outcome.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    content = {"store": str(options.store), "patches": outcome.patches, "written": outcome.written}
    content |= {"skipped": [name for name, _ in outcome.skipped]}
    words = f"{options.store}: {outcome.patches - len(outcome.skipped)} patches"
    if outcome.skipped:
        words += f", {len(outcome.skipped)} skipped"
    return tell(options, content, lambda: print(words if outcome.written else f"{words}, complete already"))


def _survey(options: argparse.Namespace) -> Survey:
    inputs = [_split_input(word) for word in options.inputs]
    if options.source == "bigearthnet":
        from landscale.sources import bigearthnet

        return bigearthnet.survey(inputs, options.labels, options.lists)
    if options.source == "eurosat":
        from landscale.sources import eurosat

        return eurosat.survey(inputs, options.lists, options.seed)
    if options.source == "synthetic":
        from landscale.sources import synthetic

        return synthetic.survey(inputs, options.patches, options.seed, options.labels)
    raise UnknownName("source", options.source, ("bigearthnet", "eurosat", "synthetic"))


def _split_input(word: str) -> tuple[str | None, Path]:
    split, equals, path = word.partition("=")
    return (split, Path(path)) if equals and not Path(word).exists() else (None, Path(word))


def _info(options: argparse.Namespace) -> int:
    from landscale.show import show_scene, show_store, show_weights
    from landscale.store import open_store
    from landscale.weights import read_config

    path: Path = options.path
    if path.is_dir() and not (path / "config.json").exists() and not (path / "recipe.yaml").exists():
        from landscale.sources.scene import open_scene

        scene = open_scene(path).summary()
        return tell(options, scene, lambda: show_scene(scene))
    if path.is_dir():
        config = {"kind": "weights", **read_config(path)}
        return tell(options, config, lambda: show_weights(config))
    summary = open_store(path).summary()
    return tell(options, summary, lambda: show_store(summary))


def _verify(options: argparse.Namespace) -> int:
    from landscale.progress import bar
    from landscale.store import open_store

    store = open_store(options.store)
    wrong = []
    with bar("verify", len(store)) as advance:
        for index, damaged in store.damaged():
            if damaged:
                wrong.append(index)
            advance(1)
    names = [str(store.column("name")[k]) for k in wrong]
    content = {"store": str(options.store), "patches": len(store), "damaged": names}

    def text() -> None:
        for name in names:
            print(f"damaged: {name}")
        print(f"{options.store}: {len(store)} patches, {len(names) or 'none'} damaged")

    tell(options, content, text)
    return 1 if names else 0
