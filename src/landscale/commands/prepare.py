"""`landscale prepare`: write a data set into a patch store, by one process, many, or many machines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.commands.command import AddCommand, print_result
from landscale.commands.dataset_options import add_dataset_options, given_dataset_options, split_input
from landscale.datasets import dataset_names, load_dataset, own_dataset_names
from landscale.errors import LandscaleError
from landscale.runtime.portability import usable_cores

if TYPE_CHECKING:
    from landscale.distributed import Ranks
    from landscale.preparation import PreparationResult


def add_command(add: AddCommand) -> None:
    p = add(
        "prepare",
        run,
        "write a data set into a patch store; run the same command again to resume",
        "landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8",
        remaining="inputs",
    )
    p.usage = "landscale prepare DATASET INPUT… STORE.h5 [options]"
    dataset = p.add_argument("dataset", metavar="DATASET")

    def complete(words: Sequence[str]) -> None:
        # Finding the data sets of other packages takes a while, and is not needed if the first word is one of our own.
        names = own_dataset_names() if words and words[0] in own_dataset_names() else dataset_names()
        dataset.help = f"{', '.join(names)}; `landscale prepare DATASET --help` lists the options of one"
        add_dataset_options(p, [name for name in names if name in words])

    p.before_parsing = complete
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="folder or archive, or SPLIT=PATH to put all of it into one split; torchgeo: NAME and its folder",
    )
    p.add_argument("--skip-bad", action="store_true", help="leave damaged patches out and list them")
    p.add_argument("--json", action="store_true", help="print the result as JSON")
    bands = p.add_argument_group("upsampled bands")
    bands.add_argument(
        "--upsample", metavar="METHOD", help="add data_super, every band at 10 m: bilinear, bicubic or dsen2"
    )
    bands.add_argument("--weights", type=Path, help="for dsen2: the folder that `superres train` wrote")
    work = p.add_argument_group(
        "parallel work", "under srun, mpirun or torchrun, each rank reads a part of the patches; no option is needed"
    )
    work.add_argument("--workers", type=int, help="processes (default: all cores; 1 for each of several ranks)")
    work.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a dask scheduler whose workers do the work: tcp://host:8786"
    )
    work.add_argument(
        "--plan", action="store_true", help="only show which patches each of the --workers processes would read"
    )


def run(options: argparse.Namespace) -> int:
    """Prepare a store, or show the plan."""
    if unknown := [word for word in options.remaining if word.startswith("-")]:
        flag = unknown[0].partition("=")[0]
        raise LandscaleError(
            f"prepare {options.dataset}: takes no {flag}; see landscale prepare {options.dataset} --help"
        )
    *inputs, store = options.inputs + options.remaining
    if not inputs:
        raise LandscaleError("prepare: expected DATASET INPUT… STORE.h5; see landscale prepare --help")
    if "" in [*inputs, store]:
        raise LandscaleError("prepare: found an empty name among inputs and store")
    if not Path(store).name:
        raise LandscaleError(f"prepare: the store {store} is a folder, expected the name of a file to write")
    if options.weights and not options.upsample:
        raise LandscaleError("prepare: --weights is for --upsample dsen2")
    dataset, pairs = load_dataset(options.dataset), [split_input(word) for word in inputs]
    from landscale.preparation.ranks import ReportedByFirstRank, joined_ranks, several_ranks

    if dataset.is_sequential(pairs) and several_ranks():  # every rank ends here, before it waits for the others
        raise LandscaleError(f"prepare {dataset.name}: an archive is read by one process; found several ranks")
    try:
        with joined_ranks() as ranks:
            work: dict[str, Any] = {
                "workers": options.workers or (1 if ranks else usable_cores()),
                "scheduler": options.scheduler,
                "ranks": ranks,
                "extend": _upsampling(options),
            }
            if options.plan:
                return _show_plan(options, pairs, work)
            from landscale.preparation import prepare

            given = given_dataset_options(options)
            result = prepare(dataset.name, pairs, store, skip_bad=options.skip_bad, **work, **given)
    except ReportedByFirstRank:
        return 2
    return _show_result(options, result) if ranks is None or ranks.first else 0


def _upsampling(options: argparse.Namespace) -> Any:
    """The function that adds upsampled bands to a survey, or None; importing it takes seconds."""
    if options.upsample is None:
        return None
    from landscale.superres.stored import with_upsampled

    return partial(with_upsampled, method=options.upsample, weights=options.weights)


def _show_plan(options: argparse.Namespace, inputs: list[tuple[str | None, Path]], work: dict[str, Any]) -> int:
    from landscale.datasets.survey import Survey
    from landscale.preparation import survey_dataset
    from landscale.preparation.plan import compare_plans
    from landscale.runtime.tables import show_plan

    ranks: Ranks | None = work["ranks"]
    survey = survey_dataset(options.dataset, inputs, **work, options=given_dataset_options(options))
    if not isinstance(survey, Survey):
        raise LandscaleError(f"prepare {options.dataset}: an archive is read by one process; it takes no --plan")
    if ranks and not ranks.first:
        return 0
    content = compare_plans(survey, work["workers"] * (ranks.world if ranks else 1))
    return print_result(options, content, lambda: show_plan(content))


def _show_result(options: argparse.Namespace, result: PreparationResult) -> int:
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    for name, reason in result.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    content = {"store": str(result.store), "patches": result.patches, "written": result.written}
    content |= {"skipped": [name for name, _ in result.skipped], "notes": list(result.notes)}
    line = f"{result.store}: {result.patches - len(result.skipped)} patches"
    if result.skipped:
        line += f", {len(result.skipped)} skipped"
    return print_result(options, content, lambda: print(line if result.written else f"{line}, complete already"))
