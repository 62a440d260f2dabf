"""prepare: a source → a patch store, by one process, many, or many machines."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from landscale.commands.command import AddCommand, print_result
from landscale.commands.sources import add_options, is_stream, stream, survey
from landscale.errors import LandscaleError
from landscale.runtime.workers import start_fork_server

if TYPE_CHECKING:
    from landscale.datasets.bigearthnet.archive import Stream
    from landscale.datasets.survey import Survey
    from landscale.distributed import Ranks
    from landscale.preparation import Outcome

Source = TypeVar("Source", "Survey", "Stream")


def add_command(add: AddCommand) -> None:
    p = add(
        "prepare",
        run,
        "a source → a patch store",
        "landscale prepare bigearthnet BigEarthNet-v2 ben.h5 --workers 8",
        remaining="inputs",
    )
    p.usage = "landscale prepare SOURCE INPUT… STORE.h5 [options]"
    add_options(p)
    p.add_argument("--skip-bad", action="store_true", help="leave damaged patches out and list them")
    p.add_argument("--json", action="store_true")
    more = p.add_argument_group("more than the archive has")
    more.add_argument(
        "--upsample", metavar="WAY", help="add data_super, every band at 10 m: bilinear, bicubic or dsen2"
    )
    more.add_argument("--weights", type=Path, help="for dsen2: what `superres train` wrote")
    work = p.add_argument_group("who does the work", "srun, mpirun and torchrun are noticed: each rank takes its share")
    work.add_argument("--workers", type=int, help="processes (default: all cores; 1 for each of several ranks)")
    work.add_argument("--scheduler", metavar="ADDRESS", help="of dask, whose workers do it, as in tcp://host:8786")
    work.add_argument("--plan", action="store_true", help="only show who would read what, for --workers processes")


def run(options: argparse.Namespace) -> int:
    """The last of the inputs is the store."""
    options.inputs += options.remaining  # the inputs after the first option
    if len(options.inputs) < 2:
        raise LandscaleError("prepare: expected SOURCE INPUT… STORE.h5; see landscale prepare --help")
    if options.weights and not options.upsample:
        raise LandscaleError("prepare: --weights is for --upsample dsen2")
    options.store = Path(options.inputs.pop())
    if is_stream(options):
        from landscale.preparation.streaming import prepare_stream

        if _is_one_of_many():
            raise LandscaleError("prepare bigearthnet: an archive is read by one process; found several ranks")
        return _told(
            options, prepare_stream(_upsampled(options, stream(options)), options.store, skip_bad=options.skip_bad)
        )
    if not _is_one_of_many():
        workers = options.workers or len(os.sched_getaffinity(0))
        if workers > 1 and not (options.scheduler or options.plan):
            start_fork_server()  # they get ready meanwhile
        found = _survey(options, workers)
        if options.plan:
            return _show_plan(options, found, workers)
        return _told(options, _run(options, found, workers, None))
    from landscale.distributed import end_process_group
    from landscale.preparation.ranks import ToldByFirst, join, on_first

    ranks = join()
    try:
        workers = options.workers or 1
        found = on_first(ranks, lambda: _survey(options, workers * ranks.world))
        if options.plan:
            return _show_plan(options, found, workers * ranks.world) if ranks.first else 0
        outcome = _run(options, found, workers, ranks)
    except ToldByFirst:
        return 2
    finally:
        end_process_group()
    return _told(options, outcome) if ranks.first else 0


def _is_one_of_many() -> bool:
    """Whether a launcher started several of us; asked before importing torch, which joins them."""
    return any(
        int(os.environ.get(key, "1")) > 1 for key in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    )


def _run(options: argparse.Namespace, survey: Survey, workers: int, ranks: Ranks | None) -> Outcome:
    from landscale.preparation import prepare

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
    return print_result(options, content, lambda: print(words if outcome.written else f"{words}, complete already"))


def _show_plan(options: argparse.Namespace, survey: Survey, workers: int) -> int:
    import numpy as np

    from landscale.preparation.plan import back_and_forth, imbalance, jobs, longest_first
    from landscale.runtime.tables import show_plan

    sizes = [len(job) for job in jobs(survey, np.arange(len(survey.table)), workers)]
    deals = {"Algorithm 1 of Sedona et al. 2019": back_and_forth, "longest first (used)": longest_first}
    plans = {}
    for name, rule in deals.items():
        deal = rule(sizes, workers)
        loads = [sum(sizes[k] for k in hand) for hand in deal]
        plans[name] = {"imbalance": imbalance(sizes, deal), "jobs": [len(hand) for hand in deal], "patches": loads}
    content = {"patches": sum(sizes), "jobs": len(sizes), "workers": workers, "plans": plans}
    return print_result(options, content, lambda: show_plan(content))


def _survey(options: argparse.Namespace, workers: int) -> Survey:
    return _upsampled(options, survey(options, workers))


def _upsampled(options: argparse.Namespace, source: Source) -> Source:
    if options.upsample is None:
        return source
    from landscale.superres.stored import with_upsampled

    return with_upsampled(source, options.upsample, options.weights)
