"""Thousands of altered inputs of each kind: each is refused in one line, or accepted with the right meaning.

    python tests/proof/fuzz [KIND ...] [--cases 1000] [--seed 0] [--case K] [--json FILE]

Kinds: weights, checkpoints, stores, recipes, sources, command_lines. A case depends only on its kind, the seed and its number,
so `--case K` repeats one and shows what was altered, the command, and what it printed. The table that is printed is the one
in docs/fuzzing.md; its columns are explained in `outcomes.py`. The exit code is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # commands are forked from this process, and threads are not
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "support"))

KINDS = ("weights", "checkpoints", "stores", "recipes", "sources", "command_lines")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"default: {' '.join(KINDS)}")
    parser.add_argument("--cases", type=int, default=1000, help="of each kind (default: 1000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run only this one, and show it")
    parser.add_argument(
        "--json", type=Path, help="also write the counts, and all cases with a wrong outcome, to this file"
    )
    options = parser.parse_args()
    if unknown := [kind for kind in options.kinds if kind not in KINDS]:
        parser.error(f"unknown kind {', '.join(unknown)}; expected some of {', '.join(KINDS)}")
    from outcomes import RIGHT, WRONG

    signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in the background
    cases = range(options.cases) if options.case is None else [options.case]
    results = {}
    header = ("kind", "cases", *RIGHT, *WRONG)
    rows = [f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
    for kind in options.kinds or KINDS:
        results[kind] = _run_kind(kind, cases, options.seed, show=options.case is not None)
        counts = results[kind]["counts"]
        numbers = [results[kind]["cases"], *(counts[name] for name in (*RIGHT, *WRONG))]
        rows.append(f"| {kind.replace('_', ' ')} | {' | '.join(f'{number:,}' for number in numbers)} |")
    print(*rows, sep="\n")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, **results}, indent=1) + "\n")
    return int(any(result["wrong"] for result in results.values()))


def _run_kind(kind: str, cases: range | list[int], seed: int, *, show: bool) -> dict[str, Any]:
    import preloaded  # noqa: F401  everything that commands import
    from outcomes import RIGHT
    from watched import Bait

    module, counts, wrong = import_module(kind), Counter[str](), []
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="landscale-fuzz-", dir=memory) as name:
        root = Path(name).resolve()
        bait = Bait(root / "bait")
        (root / "made").mkdir()
        made = module.make(root / "made", bait)
        bait.watch()
        for number in cases:
            try:
                found = _run_case(module, made, root / "case", bait, f"{kind} {seed} {number}", show=show)
            except KeyboardInterrupt:  # the counts so far are shown
                break
            counts[found["outcome"]] += 1
            if found["outcome"] not in RIGHT:
                wrong.append({"case": number, **found})
                print(f"{kind} {number}: {found['outcome']}: {found['what']}: {found['last']}"[:400], file=sys.stderr)
    seconds = time.monotonic() - started
    print(f"{kind}: {counts.total()} cases in {seconds:.0f} s", file=sys.stderr)
    return {"cases": counts.total(), "seconds": round(seconds), "counts": counts, "wrong": wrong}


def _run_case(module: ModuleType, made: Any, folder: Path, bait: Any, seed: str, *, show: bool) -> dict[str, str]:
    from outcomes import outcome
    from watched import run

    folder.mkdir()
    try:
        case = module.alter(random.Random(seed), made, folder)
        ended = run(case.words, folder, bait)
        found = outcome(case, ended)
    finally:
        shutil.rmtree(folder)
    if show:
        print(f"{case.what}\nlandscale {' '.join(case.words)}\n{found}: {ended}")
    lines = [*ended.forbidden, *ended.err.strip().splitlines()[-1:]]
    return {"outcome": found, "what": case.what, "words": " ".join(case.words), "last": " ".join(lines)[:300]}


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:
        traceback.print_exc()
        sys.exit(70)
