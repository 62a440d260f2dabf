"""The command line: what a user says → one call of a room. Errors become one line and exit code 2."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.errors import BadInput, LandscaleError, UnknownName
from landscale.interrupt import Stopped

if TYPE_CHECKING:
    from landscale.sources.survey import Survey

STARTED = time.monotonic()
EXAMPLES = """examples:
  landscale demo
  landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8
  landscale train --recipe papoutsis2022 --store ben.h5 --run runs/eca
  landscale evaluate runs/eca ben.h5 --split test
  landscale predict runs/eca S2A_MSIL2A_20220706T085611_N0400 map.tif
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options, rest = parser.parse_known_args(words)
    command: Callable[..., int] = options.command
    try:
        if command is _train:
            return _train(options, rest)
        if rest:
            raise LandscaleError(f"{options.name}: does not know {' '.join(rest)}; see landscale {options.name} --help")
        return command(options)
    except LandscaleError as error:
        return _refuse(str(error))
    except OSError as error:  # a full disk, no permission
        return _refuse(f"{error.filename or 'file system'}: {error.strerror or error}")
    except Stopped as stopped:
        print(f"landscale: {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("landscale: interrupted; the same command goes on", file=sys.stderr)
        return 130


def _refuse(line: str) -> int:
    print(f"landscale: {' '.join(line.split())}", file=sys.stderr)
    return 2


class _Parser(argparse.ArgumentParser):
    """One line on wrong usage, instead of the whole synopsis."""

    def error(self, message: str) -> Any:
        self.exit(2, f"landscale: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "landscale",
        description="Land-cover classification for Sentinel-2 at scale.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from landscale import __version__

    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[..., int], about: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.set_defaults(command=run)
        return sub

    p = add(
        "demo", _demo, "the whole road on a synthetic landscape, ends with an HTML report", "landscale demo --out demo"
    )
    p.add_argument("--out", type=Path, default=Path("demo"), help="folder of everything it makes (default: demo)")

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

    p = add(
        "models", _models, "the zoo: parameters, FLOPs, input, source, published figures", "landscale models resnet50"
    )
    p.add_argument("model", nargs="?", metavar="NAME")
    p.add_argument("--json", action="store_true")

    p = add(
        "train",
        _train,
        "train a model; the same command again goes on",
        "landscale train --recipe papoutsis2022 --store ben.h5",
    )
    p.add_argument("--recipe", help=f"shipped recipe or YAML file ({', '.join(_recipe_names())})")
    p.add_argument("--store", type=Path, required=True, metavar="STORE.h5")
    p.add_argument(
        "--run",
        "--run-dir",  # torchrun before Python 3.12 takes --run for the beginning of an option of its own
        type=Path,
        metavar="DIR",
        help="the run's folder (default: runs/RECIPE-MODEL-SEED); under torchrun write --run-dir",
    )
    p.add_argument("--max-time", metavar="45m", help="end well within: 90s, 45m, 2h")
    p.add_argument("--json", action="store_true")
    keys = p.add_argument_group(
        "keys of the recipe", "each may be given as --key value; `landscale train --keys` lists them"
    )
    keys.add_argument("--keys", action=_ListKeys, nargs=0, help="list the keys of a recipe and end")

    p = add(
        "evaluate",
        _evaluate,
        "the scores of a model on a split",
        "landscale evaluate runs/eca ben.h5 --split test --json",
    )
    p.add_argument("model", type=Path, metavar="RUN|WEIGHTS")
    p.add_argument("store", type=Path, metavar="STORE.h5")
    p.add_argument("--split", default="test")
    p.add_argument("--out", type=Path, metavar="SCORES.json", help="write the scores there as well")
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--json", action="store_true")

    p = add("predict", _predict, "a scene → a map of class probabilities", "landscale predict runs/eca SCENE map.tif")
    p.add_argument("model", type=Path, metavar="RUN|WEIGHTS")
    p.add_argument("scene", type=Path, metavar="SCENE", help="folder of band rasters at native resolution")
    p.add_argument("out", type=Path, metavar="OUT.tif")
    p.add_argument("--stride", type=int, help="pixels at 10 m between windows (default: half a patch)")
    p.add_argument("--json", action="store_true")

    p = add("report", _report, "an HTML page about one or several runs", "landscale report runs/eca --out report")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument("--scene", type=Path, help="a scene to show in true colour, beside its --map")
    p.add_argument("--map", type=Path, metavar="MAP.tif", help="what predict made of --scene")
    return parser


class _ListKeys(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from landscale.recipe import parser as recipe_parser

        recipe_parser().print_help()
        parser.exit()


def _recipe_names() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("*.yaml"))


def _tell(options: argparse.Namespace, content: dict[str, Any] | list[Any], text: Callable[[], None]) -> int:
    """The answer of a command: JSON where asked for, else what `text` prints."""
    if options.json:
        print(json.dumps(content, ensure_ascii=False))
    else:
        text()
    return 0


# ---- the commands


def _demo(options: argparse.Namespace) -> int:
    from landscale.demo import demo

    demo(options.out)
    return 0


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
    return _tell(options, content, lambda: print(words if outcome.written else f"{words}, complete already"))


def _info(options: argparse.Namespace) -> int:
    from landscale.show import show_scene, show_store, show_weights
    from landscale.store import open_store
    from landscale.weights import read_config

    path: Path = options.path
    if path.is_dir() and not (path / "config.json").exists() and not (path / "recipe.yaml").exists():
        from landscale.sources.scene import open_scene

        scene = open_scene(path).summary()
        return _tell(options, scene, lambda: show_scene(scene))
    if path.is_dir():
        config = {"kind": "weights", **read_config(path)}
        return _tell(options, config, lambda: show_weights(config))
    summary = open_store(path).summary()
    return _tell(options, summary, lambda: show_store(summary))


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

    _tell(options, content, text)
    return 1 if names else 0


def _models(options: argparse.Namespace) -> int:
    from landscale.models.registry import describe, list_models
    from landscale.show import show_models

    rows = [describe(name) for name in ([options.model] if options.model else list_models())]
    return _tell(options, rows, lambda: show_models(rows))


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from landscale.distributed import device, start, stop
    from landscale.recipe import load_recipe
    from landscale.runs import Run, default_run
    from landscale.show import show_scores
    from landscale.store import open_store

    recipe = load_recipe(options.recipe, overrides)
    seconds = _seconds(options.max_time) if options.max_time else None
    store = open_store(options.store)
    from landscale.train import train

    if seconds is not None:
        seconds -= time.monotonic() - STARTED  # importing torch may take ten of them
    run = Run(options.run or default_run(recipe))
    ranks = start()
    try:
        figures = train(recipe, store, run, ranks, device(ranks), seconds)
    finally:
        stop()
    if not ranks.first:
        return 0
    content = {"run": str(run.folder), "scores": figures}

    def text() -> None:
        if figures:
            show_scores(figures)
        print(f"{run.folder}: weights and scores are in it")

    return _tell(options, content, text)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match:
        raise LandscaleError(f"--max-time: found '{text}', expected a number with s, m or h, as in 45m")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _evaluate(options: argparse.Namespace) -> int:
    from landscale.distributed import device
    from landscale.evaluate import evaluate
    from landscale.files import write_json
    from landscale.show import show_scores
    from landscale.store import open_store
    from landscale.weights import load_model

    if options.batch < 1:
        raise BadInput("--batch", f"found {options.batch}, expected at least 1")
    store = open_store(options.store)
    store.patches(options.split)
    model = load_model(options.model).to(device())
    figures = evaluate(model, store, options.split, batch=options.batch)
    target = options.out or (
        options.model / f"scores-{options.split}.json" if (options.model / "run.json").exists() else None
    )
    if target is not None:
        write_json(target, figures)
    return _tell(options, figures, lambda: show_scores(figures))


def _predict(options: argparse.Namespace) -> int:
    from landscale.distributed import device
    from landscale.predict import predict
    from landscale.weights import load_model

    if options.stride is not None and options.stride < 1:
        raise BadInput("--stride", f"found {options.stride}, expected at least 1")
    model = load_model(options.model).to(device())
    content = predict(model, options.scene, options.out, options.stride)
    return _tell(
        options,
        content,
        lambda: print(f"{options.out}: {content['width']}×{content['height']} px, {len(content['classes'])} classes"),
    )


def _report(options: argparse.Namespace) -> int:
    from landscale.report.page import report

    page = report(options.runs, options.out, options.scene, options.map)
    print(page)
    return 0
