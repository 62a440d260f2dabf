"""`landscale benchmark scaling` (training on growing numbers of ranks) and `landscale benchmark allreduce`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landscale.commands.command import AddCommand, print_result
from landscale.errors import LandscaleError


def add_command(add: AddCommand) -> None:
    about = "weak and strong scaling of training over ranks: times, efficiency, F1; run it again to resume"
    example = "landscale benchmark scaling --store ben.h5 --recipe sedona2019 --ranks 1,2,4"
    p = add("scaling", _rank_scaling, about, example, remaining="recipe keys")
    p.add_argument("--store", type=Path, required=True, metavar="STORE.h5")
    p.add_argument("--recipe", help="a YAML file, or the name of a built-in recipe, as for `landscale train`")
    p.add_argument("--ranks", default="1,2,4", metavar="1,2,4", help="numbers of processes (default: 1,2,4)")
    p.add_argument(
        "--repeats",
        type=int,
        default=2,
        help="trainings of each kind, with different seeds; tables have their mean and standard deviation (default: 2)",
    )
    p.add_argument(
        "--epochs",
        type=int,
        default=3,
        help="epochs per training; the first is not timed, warm-up and milestones are scaled (default: 3)",
    )
    p.add_argument("--weak", action="store_true", help="weak scaling only: each rank has the recipe's batch")
    p.add_argument("--strong", action="store_true", help="strong scaling only: all ranks together have that batch")
    p.add_argument(
        "--launch", metavar="COMMAND", help="command that starts {ranks} processes (default: torchrun on this machine)"
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("rank-scaling"),
        metavar="DIR",
        help="folder of the study, with one run per training (default: %(default)s)",
    )
    p.add_argument("--json", action="store_true", help="print the results as JSON")
    p.add_argument_group("recipe keys", "any key of a recipe may be given as --key value")

    about = "latency and bandwidth of the all-reduce among the processes of a launcher"
    p = add("allreduce", _all_reduce, about, "torchrun --nproc-per-node 2 -m landscale benchmark allreduce")
    p.add_argument("--out", type=Path, metavar="FILE.json", help="also write the result to this file")
    p.add_argument("--json", action="store_true", help="print the result as JSON")


def _rank_scaling(options: argparse.Namespace) -> int:
    ranks = _numbers_of_ranks(options.ranks)
    if options.repeats < 1:
        raise LandscaleError(f"--repeats: found {options.repeats}, expected at least 1")
    if options.epochs < 2:
        raise LandscaleError(f"--epochs: found {options.epochs}, expected at least 2, as the first is not timed")
    from landscale.training.recipe import load_recipe

    recipe = load_recipe(options.recipe, [*options.remaining, f"--epochs={options.epochs}"])

    from landscale.runtime.files import write_text
    from landscale.store import open_store
    from landscale.studies.rank_scaling.launch import TORCHRUN
    from landscale.studies.rank_scaling.page import CHARTS_FILE, PAGE_FILE, rank_scaling_page
    from landscale.studies.rank_scaling.plots import rank_scaling_svg
    from landscale.studies.rank_scaling.study import STRONG, WEAK, RankScalingPlan, run_rank_scaling

    kinds = tuple(kind for kind in (WEAK, STRONG) if getattr(options, kind))
    plan = RankScalingPlan(recipe, ranks, options.repeats, kinds or (WEAK, STRONG), options.launch or TORCHRUN)
    content = run_rank_scaling(plan, open_store(options.store), options.out)
    page = rank_scaling_page(content)
    write_text(options.out / PAGE_FILE, page)
    write_text(options.out / CHARTS_FILE, rank_scaling_svg(content))
    print_result(options, content, lambda: _show_page(page, options.out))
    failed = [training["failed"] for training in content["trainings"] if "failed" in training]
    if failed:
        print(f"landscale: {len(failed)} trainings failed, the first: {failed[0]}", file=sys.stderr)
        return 1
    return 0


def _numbers_of_ranks(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.strip().isdecimal() and 1 <= int(word) <= 1_000_000 for word in words):
        raise LandscaleError(f"--ranks: found '{text}', expected numbers of processes, as in 1,2,4")
    return tuple(sorted({int(word) for word in words}))


def _show_page(page: str, out: Path) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(Markdown("\n".join(line for line in page.splitlines() if not line.startswith("!["))))
    console.print(f"{out}: tables, charts and results of the study", markup=False, highlight=False)


def _all_reduce(options: argparse.Namespace) -> int:
    from landscale.distributed import end_process_group, local_device, start_process_group
    from landscale.runtime.documents import read_json, write_json
    from landscale.runtime.outputs import check_output
    from landscale.studies.rank_scaling.all_reduce import measure_all_reduce

    ranks = start_process_group()
    try:
        figures = measure_all_reduce(ranks, local_device(ranks))
    finally:
        end_process_group()
    if not ranks.first:
        return 0
    if options.out is not None:
        check_output(
            options.out, "a result of `benchmark allreduce`", lambda path: read_json(path).keys() == figures.keys()
        )
        write_json(options.out, figures)

    def show() -> None:
        print(
            f"{figures['ranks']} ranks on {figures['nodes']} nodes, {figures['device']}, {figures['threads']} threads each"
        )
        if ranks.world > 1:
            size = f"{figures['bytes'] / 2**20:g} MiB"
            print(
                f"4 B in {1e6 * figures['small']:,.0f} µs, {size} in {1e3 * figures['large']:,.1f} ms ({figures['backend']})"
            )

    return print_result(options, figures, show)
