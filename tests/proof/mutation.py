"""Mutation testing: change the source in one place at a time, and count how many of these changes the tests detect.

    python tests/proof/mutation.py [PACKAGE ...] [--sample 60] [--seed 0] [--processes 2]

mutmut makes the mutants and runs, for each, the tests that call the function it changed. From each package a random sample of
mutants is taken, the same one for the same seed and source. The table that is printed has the form of docs/mutation.md. The
changes that no test detected are written to build/mutation/PACKAGE/survivors.diff.

A mutant counts as detected if a test fails, crashes or takes far longer than it should. Mutants in functions that no selected
test calls count as survivors.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutation"
OPTIONS = [
    *("-m", "not slow and not real_data and not cluster", "-p", "no:cacheprovider", "-p", "no:xdist"),
    # The tests of commands run elsewhere, where mutmut does not find its settings; torch.compile cannot trace mutmut's functions.
    *("-k", "not train_command and not compile"),
]


@dataclass(frozen=True)
class Package:
    """What is mutated, relative to src/landscale, and the tests that should detect it, relative to tests; both are globs."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    without: tuple[str, ...] = ()  # tests that take minutes, or start other processes


_SLOW_TRAININGS = ("*kills*", "*stopped*", "*gpu*", "*ranks*", "*one_trainer*")
PACKAGES = {
    "inference/metrics": Package(("inference/metrics*",), ("inference/test_metrics*.py",)),
    "models/input_stage": Package(("models/input_stage.py",), ("models/test_input*.py",)),
    "training/losses": Package(("training/losses.py",), ("training/test_losses.py",)),
    "training": Package(("training/*.py",), ("training/test_*.py",), _SLOW_TRAININGS),
    "models": Package(("models/*.py",), ("models/test_*.py",), ("*registration*",)),
    "inference": Package(("inference/*.py",), ("inference/test_*.py",)),
    "maps": Package(("maps/*.py",), ("maps/test_*.py",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"default: {' '.join(PACKAGES)}")
    parser.add_argument("--sample", type=int, default=60, help="mutants of each package; 0 for all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _run_mutmut(options.sample, f"{options.seed} {options.worker}", options.processes)
        return
    unknown = [name for name in options.packages if name not in PACKAGES]
    if unknown:
        parser.error(f"unknown package {', '.join(unknown)}; expected some of {', '.join(PACKAGES)}")
    header = (
        "| package | mutants | tried | killed | too slow | survived | never called | score |",
        "|---|" + "---|" * 7,
    )
    rows = [_measure(name, options) for name in options.packages or PACKAGES]
    print(*header, *rows, sep="\n")


def _measure(name: str, options: argparse.Namespace) -> str:
    """Make and run the mutants of a package in a copy of the repository; returns its row of the table."""
    folder = WORK / name
    _copy(folder, PACKAGES[name])
    words = [sys.executable, __file__, "--worker", name, "--sample", options.sample, "--seed", options.seed]
    words += ["--processes", options.processes]
    environment = os.environ | {"PYTHONPATH": str(folder / "mutants" / "src"), "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("w") as log:
        ended = subprocess.run(
            [str(word) for word in words], cwd=folder, env=environment, stdout=log, stderr=log, check=False
        )
    if ended.returncode:
        last = (folder / "log").read_text().strip().splitlines()[-30:]
        raise SystemExit("\n".join([*last, f"{name}: mutmut failed, see {folder / 'log'}"]))
    report = json.loads((folder / "report.json").read_text())
    program = Path(sys.executable).with_name("mutmut")
    survivors = [mutant for mutant, status in report["tried"].items() if status in ("survived", "no tests")]
    diffs = [
        subprocess.run([program, "show", mutant], cwd=folder, capture_output=True, text=True, check=False).stdout
        for mutant in survivors
    ]
    (folder / "survivors.diff").write_text("\n".join(diffs))
    print(f"{name}: {len(survivors)} survivors in {folder / 'survivors.diff'}", file=sys.stderr)
    count = Counter(report["tried"].values())
    tried = sum(count.values())
    detected = tried - count["survived"] - count["no tests"]
    figures = (
        report["mutants"],
        tried,
        detected - count["timeout"],
        count["timeout"],
        count["survived"],
        count["no tests"],
    )
    return f"| `{name}` | {' | '.join(map(str, figures))} | {detected / tried:.0%} |"


def _copy(folder: Path, package: Package) -> None:
    """A fresh copy of what mutmut needs, with its settings."""
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "mutants" / "src").mkdir(parents=True)  # before Python starts, which else takes the path for missing
    found = [
        str(path.relative_to(ROOT))
        for pattern in package.tests
        for path in sorted((ROOT / "tests").glob(pattern))
        if not any(path.match(f"{other}.py") for other in package.without)
    ]
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/landscale/{pattern}" for pattern in package.sources],
        "pytest_add_cli_args": OPTIONS,
        "pytest_add_cli_args_test_selection": found,
        "process_isolation": "forkserver",  # torch is imported once, by a process that runs no test
        "timeout_multiplier": 5,  # of the tests' time without a mutant, in which endless loops are given up
        "timeout_constant": 5,
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    content = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text("\n".join([content, "[tool.mutmut]", *lines, ""]))


def _run_mutmut(sample: int, seed: str, processes: int) -> None:
    """In the copy, as a process of its own: make all mutants, run a sample, write report.json."""
    from mutmut import __main__ as mutmut
    from mutmut.state import state
    from mutmut.stats import status_by_exit_code
    from mutmut.workers import isolation
    from mutmut.workers.isolation import ForkServerRunner

    class FastTestsFirst(ForkServerRunner):
        def submit(self, mutant_name: str, tests: list[str], cpu_time_limit: int, estimated_time: float) -> None:
            by_duration = sorted(tests, key=lambda test: state().duration_by_test[test])
            super().submit(mutant_name, by_duration, cpu_time_limit, estimated_time)

    isolation.ForkServerRunner = FastTestsFirst  # type: ignore[misc]

    mutmut.copy_src_dir()
    mutmut.create_mutants(processes)
    names = sorted(name for _, name, _ in mutmut.collect_source_file_mutation_data(mutant_names=())[0])
    chosen = sorted(random.Random(seed).sample(names, sample)) if 0 < sample < len(names) else names
    mutmut._run(chosen, processes)
    ended = {name: code for _, name, code in mutmut.collect_source_file_mutation_data(mutant_names=chosen)[0]}
    tried = {name: status_by_exit_code[code] for name, code in ended.items()}
    Path("report.json").write_text(json.dumps({"mutants": len(names), "tried": tried}, indent=1))


if __name__ == "__main__":
    main()
