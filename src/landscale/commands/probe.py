"""`landscale probe`: how good the features of an encoder are, with few or all labels of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_weights, list_of, print_result
from landscale.runtime.signals import requeued_by_signals


def add_command(add: AddCommand) -> None:
    parser = add(
        "probe",
        _probe_encoder,
        "score the features of an encoder, with some or all labels of a store; run the same command again to resume",
        "landscale probe runs/eca eurosat.h5 --fraction 0.01,0.1,1 --seeds 5",
        remaining="recipe keys",
    )
    add_weights(parser, "model")
    parser.add_argument("store", type=Path, metavar="STORE.h5", help="a store with the splits train, val and test")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the results (default: probes/STORE-DIGEST of the weights)"
    )
    parser.add_argument(
        "--protocol",
        type=list_of(str),
        default=["knn", "linear"],
        metavar="NAMES",
        help="knn, linear: on frozen features; fine-tune, lora, scratch: trained (default: knn,linear)",
    )
    parser.add_argument(
        "--fraction", type=list_of(float), default=[], metavar="0.01,0.1,1", help="fractions of the training labels"
    )
    parser.add_argument(
        "--shots",
        type=list_of(int),
        default=[],
        metavar="1,5,10",
        help="training patches of each class (default: all)",
    )
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="draws of the patches (default: 1)")
    parser.add_argument(
        "--recipe", help="recipe of trainings, without its model and input (default: 30 epochs of AdamW)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument_group("recipe keys", "set any key of the recipe of trainings as --key value")


def _probe_encoder(options: argparse.Namespace) -> int:
    with requeued_by_signals("stopped; finished cells are kept; run the same command again to resume"):
        return _probe_or_resume(options)


def _probe_or_resume(options: argparse.Namespace) -> int:
    from landscale.models.encoders import load_encoder
    from landscale.probing import probe
    from landscale.probing.results import show_summary
    from landscale.probing.training import probe_recipe

    recipe = probe_recipe(load_encoder(options.model).description, options.recipe, options.remaining)
    found = probe(
        options.model,
        options.store,
        options.out,
        options.protocol,
        fractions=options.fraction,
        shots=options.shots,
        seeds=options.seeds,
        recipe=recipe,
    )

    def text() -> None:
        show_summary(found.summary, found.figures)
        print(f"{found.folder}: contains the tables, the chart of label efficiency and the features")

    return print_result(options, found.to_json(), text)
