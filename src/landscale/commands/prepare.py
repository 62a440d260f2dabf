"""prepare: a source → a patch store, by one process, many, or many machines."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.commands.command import Add, tell
from landscale.errors import LandscaleError, UnknownName

if TYPE_CHECKING:
    from landscale.distributed import Ranks
    from landscale.prepare import Outcome
    from landscale.sources.survey import Survey

SOURCES = ("bigearthnet", "tiles", "eurosat", "synthetic")
_PATIENCE = timedelta(days=7)  # one rank may have much less to do than another


def add_commands(add: Add) -> None:
    p = add(
        "prepare",
        _prepare,
        "a source → a patch store",
        "landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8",
    )
    p.add_argument("source", metavar="SOURCE", help=", ".join(SOURCES))
    p.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="folder or zip, or SPLIT=PATH to put all of it into one split"
    )
    p.add_argument("store", type=Path, metavar="STORE.h5")
    p.add_argument("--labels", help="nomenclature, clc43 or ben19 (default: ben19, and clc43 for BigEarthNet v1)")
    p.add_argument("--lists", type=Path, help="folder of split lists: train.csv, val.csv.bz2, test.txt …")
    p.add_argument("--skip-bad", action="store_true", help="leave damaged patches out and list them")
    p.add_argument("--seed", type=int, default=0, help="of a drawn split; synthetic: of the landscape")
    p.add_argument("--patches", type=int, default=600, help="synthetic: how many patches to make")
    p.add_argument("--json", action="store_true")
    tiles = p.add_argument_group("tiles")
    tiles.add_argument("--corine", type=Path, metavar="MAP", help="CORINE Land Cover, raster or GeoPackage, for the labels")
    tiles.add_argument("--min-share", type=float, default=0.0, help="of a patch, that makes a class its label (default: any)")
    tiles.add_argument("--patch-list", type=Path, metavar="LIST", help="patches to take: names, a table, or a BigEarthNet")
    tiles.add_argument("--max-cloud", type=float, metavar="SHARE", help="of a patch under cloud or its shadow, 0 to 1")
    tiles.add_argument("--max-snow", type=float, metavar="SHARE")
    tiles.add_argument("--max-nodata", type=float, metavar="SHARE")
    work = p.add_argument_group("who does the work", "srun, mpirun and torchrun are noticed: each rank takes its share")
    work.add_argument("--workers", type=int, help="processes (default: all cores; 1 for each of several ranks)")
    work.add_argument("--scheduler", metavar="ADDRESS", help="of dask, whose workers do it, as in tcp://host:8786")
    work.add_argument("--plan", action="store_true", help="only show who would read what, for --workers processes")


def _prepare(options: argparse.Namespace) -> int:
    if not _is_one_of_many():
        workers = options.workers or len(os.sched_getaffinity(0))
        survey = _survey(options)
        if options.plan:
            return _show_plan(options, survey, workers)
        return _told(options, _run(options, survey, workers, None))
    from landscale.distributed import start, stop

    ranks = start("gloo", _PATIENCE)
    try:
        survey = _survey_once(options, ranks)
        outcome = _run(options, survey, options.workers or 1, ranks)
    finally:
        stop()
    return _told(options, outcome) if ranks.first else 0


def _is_one_of_many() -> bool:
    """Whether a launcher started several of us; asked before importing torch, which joins them."""
    return any(
        int(os.environ.get(key, "1")) > 1 for key in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    )


def _run(options: argparse.Namespace, survey: Survey, workers: int, ranks: Ranks | None) -> Outcome:
    from landscale.prepare import prepare

    how: dict[str, Any] = {"skip_bad": options.skip_bad, "scheduler": options.scheduler, "ranks": ranks}
    return prepare(survey, options.store, workers, **how)


def _told(options: argparse.Namespace, outcome: Outcome) -> int:
    for name, reason in outcome.skipped:
        print(f"skipped {name}: {reason}", file=sys.stderr)
    content = {"store": str(options.store), "patches": outcome.patches, "written": outcome.written}
    content |= {"skipped": [name for name, _ in outcome.skipped]}
    words = f"{options.store}: {outcome.patches - len(outcome.skipped)} patches"
    if outcome.skipped:
        words += f", {len(outcome.skipped)} skipped"
    return tell(options, content, lambda: print(words if outcome.written else f"{words}, complete already"))


def _show_plan(options: argparse.Namespace, survey: Survey, workers: int) -> int:
    import numpy as np

    from landscale.prepare.plan import back_and_forth, imbalance, jobs, longest_first
    from landscale.show import show_plan

    sizes = [len(job) for job in jobs(survey, np.arange(len(survey.table)), workers)]
    deals = {"Algorithm 1 of Sedona et al. 2019": back_and_forth, "longest first (used)": longest_first}
    plans = {}
    for name, rule in deals.items():
        deal = rule(sizes, workers)
        loads = [sum(sizes[k] for k in hand) for hand in deal]
        plans[name] = {"imbalance": imbalance(sizes, deal), "jobs": [len(hand) for hand in deal], "patches": loads}
    content = {"patches": sum(sizes), "jobs": len(sizes), "workers": workers, "plans": plans}
    return tell(options, content, lambda: show_plan(content))


def _survey_once(options: argparse.Namespace, ranks: Ranks) -> Survey:
    """The first rank looks, the others are told."""
    found: Survey | str | None = None
    if ranks.first:
        try:
            found = _survey(options)
        except LandscaleError as error:
            found = str(error)
    found = ranks.share(found)
    if found is None or isinstance(found, str):
        raise LandscaleError(str(found))
    return found


def _survey(options: argparse.Namespace) -> Survey:
    inputs = [_split_input(word) for word in options.inputs]
    if options.source == "bigearthnet":
        from landscale.sources import bigearthnet

        return bigearthnet.survey(inputs, options.labels, options.lists)
    if options.source == "tiles":
        from landscale.sources import tiles
        from landscale.sources.clearness import Limits

        limits = Limits(options.max_cloud, options.max_snow, options.max_nodata)
        where = (options.labels, options.lists, options.patch_list, options.corine, options.min_share)
        return tiles.survey(inputs, *where, limits, options.workers or len(os.sched_getaffinity(0)))
    if options.source == "eurosat":
        from landscale.sources import eurosat

        return eurosat.survey(inputs, options.lists, options.seed)
    if options.source == "synthetic":
        from landscale.sources import synthetic

        return synthetic.survey(inputs, options.patches, options.seed, options.labels)
    raise UnknownName("source", options.source, SOURCES)


def _split_input(word: str) -> tuple[str | None, Path]:
    split, equals, path = word.partition("=")
    return (split, Path(path)) if equals and not Path(word).exists() else (None, Path(word))
