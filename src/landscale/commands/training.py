"""Models and their training: models, train, evaluate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from landscale.commands.command import Add, seconds_left, tell
from landscale.errors import BadInput, LandscaleError


class _ListKeys(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from landscale.training.recipe import parser as recipe_parser

        recipe_parser().print_help()
        parser.exit()


def _recipe_names() -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[1] / "training" / "recipes").glob("*.yaml"))


def add_commands(add: Add) -> None:
    p = add(
        "models", _models, "the zoo: parameters, FLOPs, input, source, published figures", "landscale models resnet50"
    )
    p.add_argument("model", nargs="?", metavar="NAME", help="of the zoo, or any network of timm (default: the zoo)")
    p.add_argument("--bands", default="s2-12", metavar="SET|NUMBER", help="of the input (default: s2-12)")
    p.add_argument("--classes", type=int, default=19, metavar="N", help="default: 19")
    p.add_argument("--family", metavar="F", help="only networks of this family")
    p.add_argument(
        "--recount", action="store_true", help="count the zoo anew and write the table that this answers from"
    )
    p.add_argument("--json", action="store_true")

    p = add(
        "train",
        train_command,
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
    _add_timeout(p)
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
    _add_timeout(p)
    p.add_argument("--json", action="store_true")


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long processes wait for one that does not go on (default: 300)",
    )


def _models(options: argparse.Namespace) -> int:
    from landscale.models.catalogue import listing, recount
    from landscale.runtime.tables import show_models
    from landscale.vocabulary.bands import band_set

    spec, classes = options.bands, options.classes
    bands = int(spec) if spec.isdecimal() else len(band_set(spec).names)
    if bands < 1:
        raise LandscaleError(f"--bands: found {bands}, expected at least 1")
    if classes < 0:
        raise LandscaleError(f"--classes: found {classes}, expected at least 0")
    rows = recount() if options.recount else listing(options.model, options.family, bands, classes)
    return tell(options, rows, lambda: show_models(rows, bands, classes))


def train_command(options: argparse.Namespace, overrides: list[str]) -> int:
    from landscale.distributed import device, together
    from landscale.runtime.tables import show_scores
    from landscale.store import open_store
    from landscale.training.recipe import load_recipe
    from landscale.training.runs import Run, default_run

    recipe = load_recipe(options.recipe, overrides)
    store = open_store(options.store)
    from landscale.training.training import train

    seconds = seconds_left(options.max_time) if options.max_time else None
    run = Run(options.run or default_run(recipe))
    with together(options.timeout) as ranks:
        figures = train(recipe, store, run, ranks, device(ranks), seconds)
    if not ranks.first:
        return 0
    content = {"run": str(run.folder), "scores": figures}

    def text() -> None:
        if figures:
            show_scores(figures)
        print(f"{run.folder}: weights and scores are in it")

    return tell(options, content, text)


def _evaluate(options: argparse.Namespace) -> int:
    from landscale.distributed import device, together
    from landscale.inference.evaluate import evaluate
    from landscale.models.weights import load_model
    from landscale.runtime.files import check_replaceable, write_json
    from landscale.runtime.tables import show_scores
    from landscale.store import open_store

    if options.batch < 1:
        raise BadInput("--batch", f"found {options.batch}, expected at least 1")
    if options.out:
        check_replaceable(options.out, (b"{",), "a file of scores")
    store = open_store(options.store)
    store.patches(options.split)
    model = load_model(options.model)
    with together(options.timeout) as ranks:
        figures = evaluate(model.to(device(ranks)), store, options.split, ranks, batch=options.batch)
    if not ranks.first:
        return 0
    target = options.out or (
        options.model / f"scores-{options.split}.json" if (options.model / "run.json").exists() else None
    )
    if target is not None:
        write_json(target, figures)
    return tell(options, figures, lambda: show_scores(figures))
