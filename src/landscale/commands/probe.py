"""`landscale probe`: how good the features of an encoder are, with few or all labels of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, add_probing, add_weights, print_result
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
    add_probing(parser, "knn,linear", "all")
    parser.add_argument("--json", action="store_true", help="print JSON")


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
