"""`landscale evaluate`: the scores of a trained model on a split."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from landscale.commands.command import AddCommand, add_timeout, add_weights, print_result
from landscale.commands.evaluate_map import add_options, evaluate_map, is_class_map
from landscale.commands.runtimes import add_runtime, opened_in_runtime
from landscale.errors import BadInput


def add_command(add: AddCommand) -> None:
    parser = add(
        "evaluate",
        _evaluate_model,
        "score a model on a split of a store, or a class map against a reference",
        "landscale evaluate runs/eca ben.h5 --split test --json",
    )
    add_weights(parser, "model", exported=True, class_map=True)
    parser.add_argument(
        "store",
        type=Path,
        metavar="STORE.h5|REFERENCE",
        help="the patch store to score on; for a class map a raster of classes (a map, CORINE, or any with --legend), or"
        " reference points (a vector file, or csv with x,y or lon,lat)",
    )
    parser.add_argument("--split", default="test", help="train, val or test (default: test)")
    parser.add_argument("--out", type=Path, metavar="SCORES.json", help="also write the scores to this file")
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="compare with the reference maps of the store: weights of patches give all pixels of a patch its likeliest class",
    )
    parser.add_argument("--batch", type=int, default=64, help="patches per batch (default: 64)")
    add_runtime(parser)
    add_timeout(parser)
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _evaluate_model(options: argparse.Namespace) -> int:
    from landscale.distributed import local_device, process_group
    from landscale.distributed.agreement import check_agreement
    from landscale.inference.evaluate import evaluate
    from landscale.inference.exported import ExportedModel, Predictor, is_exported, open_exported
    from landscale.inference.scores import read_scores
    from landscale.inference.scores_table import show_scores
    from landscale.models.classifier import Classifier
    from landscale.models.encoders import find_encoder
    from landscale.models.weights import load_model, read_config
    from landscale.runtime.documents import write_json
    from landscale.runtime.outputs import check_output
    from landscale.runtime.progress import console
    from landscale.store import open_store

    if is_class_map(options.model):
        return evaluate_map(options)
    if options.batch < 1:
        raise BadInput("--batch", f"found {options.batch}, expected at least 1")
    store = open_store(options.store)
    store.patches(options.split)
    exported = is_exported(options.model)
    # After the store was checked, as it may download the weights.
    folder = Path(options.model) if exported else find_encoder(options.model)
    if options.out:
        check_output(options.out, "a file of scores", read_scores, [folder, options.store])
    with ExitStack() as stack:
        chosen = stack.enter_context(opened_in_runtime(options.model, options.runtime, store))
        if isinstance(chosen, ExportedModel):
            model: Predictor = chosen
        else:
            model = open_exported(folder) if exported else load_model(folder)
        ranks = stack.enter_context(process_group(options.timeout))
        if ranks.world > 1:  # one rank need not read all weights for their digest
            settings = {"weights": model.digest(), "store": store.fingerprint(), "--split": options.split}
            check_agreement(ranks, settings | {"--batch": str(options.batch)})
        if isinstance(model, Classifier):
            model.to(local_device(ranks))
        scores = evaluate(model, store, options.split, ranks, batch=options.batch, pixels=options.pixels)
    if not ranks.first:
        return 0
    run = Path(options.model)
    if not exported:
        scores = replace(scores, steps=read_config(folder).get("provenance", {}).get("steps"))
    if options.out:
        write_json(options.out, scores.to_json())
    elif options.runtime in (None, "torch") and (run / "run.json").exists():
        try:
            kind = "-pixels" if options.pixels and not model.description.pixels else ""  # they are no scores of patches
            write_json(run / f"scores-{options.split}{kind}.json", scores.to_json())
        except OSError as error:  # as on read-only media: the scores are printed all the same
            console.print(f"{run}: the scores are not saved there ({error.strerror})", soft_wrap=True)
    return print_result(options, scores.to_json(), lambda: show_scores(scores))
