"""Compare the training loops of landscale and of TorchGeo with Lightning, on the same patches and networks.

    python -m venv peer
    peer/bin/pip install -r benchmarks/peers/requirements.txt -c constraints.txt
    python benchmarks/peers/compare.py --peer-python peer/bin/python

12 bands at 120×120, 19 classes, multi-label, AdamW, on the CPU. landscale trains from its store on the disk, with its input stage
and augmentation, at its default precision (bf16 where the CPU computes it fast) and in fp32. TorchGeo trains in fp32, Lightning's
default, and in Lightning's `bf16-mixed`, without normalisation and augmentation, from the GeoTIFFs (`files`) and from tensors in
memory (`memory`); its bare step (`bare`) is an upper limit. So `landscale_over_files` compares the defaults,
`landscale_fp32_over_files` and `landscale_over_files_bf16` compare like with like. A contender and its workers are stopped
(SIGSTOP) during the turns of the others, so that they cannot read ahead.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

PATCHES = 600
VARIANTS = ("files", "memory", "bare")
OURS = {"landscale": "auto", "landscale_fp32": "fp32"}  # precision of the recipe
PEERS = {
    name + suffix: (name, precision) for name in VARIANTS for suffix, precision in (("", "fp32"), ("_bf16", "bf16"))
}
PAIRS = [("landscale", peer) for peer in PEERS] + [("landscale_fp32", peer) for peer in VARIANTS]


def main() -> None:
    p = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    p.add_argument("--peer-python", type=Path, help="Python of the environment that has TorchGeo and Lightning")
    p.add_argument("--models", default="resnet50,resnet18", help="names of timm, separated by commas")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--steps", type=int, default=4, help="steps of one turn")
    p.add_argument(
        "--batch", type=int, default=64, help="patches a step; the default is that of TorchGeo's data module"
    )
    args = p.parse_args()
    if args.peer_python is None or not args.peer_python.is_file():
        found = args.peer_python or "nothing"
        give_up(f"--peer-python: found {found}, expected the Python that has TorchGeo and Lightning (see {p.prog})")

    from rounds import interleaved, record  # here, because the workers of prepare import this file

    rates: dict[str, dict[str, float]] = {}
    descriptions: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_patches(folder)
        for model in args.models.split(","):
            landscale = [sys.executable, HERE / "landscale_loop.py", folder / "store.h5", model, args.batch]
            script = [args.peer_python.absolute(), HERE / "lightning_torchgeo.py"]
            peer_words = [*script, folder / "archive", model, args.batch]
            with ExitStack() as stack:
                turns = {}
                ours = {name: [*landscale, precision] for name, precision in OURS.items()}
                theirs = {name: [*peer_words, *variant] for name, variant in PEERS.items()}
                for contender, words in (ours | theirs).items():
                    descriptions[contender], turn = stack.enter_context(running(words, folder / f"{contender}.log"))
                    turns[contender] = counted(turn, args.steps, args.batch)
                rates[model] = interleaved(turns, args.rounds)
    if len({(one["patches"], one["labels"]) for one in descriptions.values()}) > 1:
        give_up(f"the contenders do not train on the same patches: {descriptions}")
    ratios = {
        model: {f"{name}_over_{peer}": found[name] / found[peer] for name, peer in PAIRS}
        for model, found in rates.items()
    }
    settings = {"batch": args.batch, "steps_of_a_turn": args.steps, "rounds": args.rounds}
    record("peers", {"patches_per_second": rates, "ratios": ratios, **settings, "contenders": descriptions})
    for model, found in ratios.items():
        for pair, ratio in found.items():
            print(f"{model:<12}{pair:<36}{ratio:6.2f}×")


def write_patches(folder: Path) -> None:
    """Write a synthetic BigEarthNet v1 with the lists that TorchGeo reads, and prepare a store from it."""
    from landscale.datasets.bigearthnet import folders as bigearthnet
    from landscale.datasets.synthetic import bigearthnet_archive as synthetic
    from landscale.preparation import prepare_survey

    archive = folder / "archive"
    synthetic.write_archive(archive, PATCHES, layout="v1")
    prepare_survey(bigearthnet.survey([(None, archive)], labels="ben19"), folder / "store.h5", workers=2)
    names = (archive / "metadata" / "train.csv").read_text().split()
    pairs = "".join(
        f"{name},{name}\n" for name in names
    )  # the second name is that of the Sentinel-1 patch, which is not read
    for split in ("train", "val", "test"):
        (archive / f"bigearthnet-{split}.csv").write_text(pairs if split == "train" else "")


@contextmanager
def running(words: list[object], log: Path) -> Iterator[tuple[dict[str, Any], Callable[[int], None]]]:
    """Start a contender, and stop it after its warm-up; yields its description and a function that lets it do some steps."""
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=log.parent,
            process_group=0,  # SIGSTOP reaches its workers as well
        ) as process,
    ):
        requests, answers = process.stdin, process.stdout
        assert requests
        assert answers

        def read_line() -> Any:
            line = answers.readline()
            if not line:
                give_up(f"a contender ended: {(log.read_text().strip().splitlines() or ['without output'])[-1]}")
            os.killpg(process.pid, signal.SIGSTOP)
            return json.loads(line)

        def turn(steps: int) -> None:
            os.killpg(process.pid, signal.SIGCONT)
            requests.write(f"{steps}\n")
            requests.flush()
            read_line()

        try:
            yield read_line(), turn
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def counted(turn: Callable[[int], None], steps: int, batch: int) -> Callable[[], int]:
    def work() -> int:
        turn(steps)
        return steps * batch

    return work


def give_up(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
