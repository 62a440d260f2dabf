"""Train on a store: build the classifier, begin or resume the run, and train to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch

from landscale.distributed import Ranks, local_device
from landscale.distributed.agreement import check_agreement
from landscale.inference.metrics import Scores
from landscale.inference.pixel_scores import PixelScores
from landscale.loading import labelled_patches
from landscale.runtime.documents import write_json
from landscale.runtime.portability import usable_cores
from landscale.runtime.progress import console
from landscale.runtime.threads import cores_of_others, free_threads
from landscale.store import PatchStore, open_store
from landscale.training.adapters import add_adapters
from landscale.training.build import build_classifier, check_smallest_step, describe
from landscale.training.recipe import RESUMABLE_CHANGES, Recipe, load_recipe
from landscale.training.runs import Run
from landscale.training.trainer import Trainer
from landscale.training.transfer import find_beginning, load_beginning, with_network


def train(
    recipe: Recipe | str,
    store: PatchStore | str | Path,
    run: str | Path,
    *,
    ranks: Ranks | None = None,
    device: torch.device | None = None,
    max_time: float | None = None,
) -> Scores | PixelScores | None:
    """Train on a store's train split, into a run folder. Called again with the same arguments, it resumes.

        scores = landscale.train("papoutsis2022", "ben.h5", "runs/first")

    Args:
        recipe: a recipe, the name of a shipped one, or the path of a YAML file.
        store: an open store, or its path.
        run: folder for checkpoints, metrics, weights and scores; created if it does not exist.
        ranks: rank of this process among those that train together (`landscale.distributed`); None: it is the only one.
        device: where to train; None: the GPU of this rank if there is one, else the CPU.
        max_time: time limit of the whole training in seconds; the number of steps is planned accordingly. None: no limit.

    Returns:
        Scores on the val split, or None for a store without one.

    Raises:
        BadStore: the store lacks the train split, a band or a class. BadInput: the folder holds another run or other files.
        Diverged: the loss exploded or is not finite; the last checkpoint is finite.
        Stopped: a signal ended it; the state is saved.
    """
    begun = time.monotonic()
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, [])
    store = store if isinstance(store, PatchStore) else open_store(store)
    ranks = ranks or Ranks()
    place, folder = device or local_device(ranks), Run(Path(run))
    with _threads(folder, ranks, place):
        return _train(recipe, store, folder, ranks, place, max_time, begun)


def _train(
    recipe: Recipe,
    store: PatchStore,
    run: Run,
    ranks: Ranks,
    device: torch.device,
    max_time: float | None,
    begun: float,
) -> Scores | PixelScores | None:
    _check_same_start(recipe, store, run, ranks)
    resumes = run.ended or run.last.exists()  # then the weights come from the checkpoint
    beginning = find_beginning(recipe, run, resumes=resumes)
    own, recipe = recipe, with_network(recipe, beginning, store)
    classifier = build_classifier(recipe, store, beginning.encoder)
    patches = labelled_patches(store, "train", classifier.description.classes)
    check_smallest_step(recipe, classifier, len(patches), ranks.world)
    origin = load_beginning(classifier, own, recipe, beginning, describe(recipe, store)) if beginning.found else None
    if recipe.lora:
        add_adapters(classifier, recipe.lora, recipe.seed)
    trainer = Trainer(recipe, store, run, ranks, classifier.to(device), device, max_time, begun)
    if ranks.first:
        run.begin(recipe, store)  # after all checks, so that a failed check leaves no folder behind
        if origin is not None:
            write_json(run.folder / "init.json", origin)
            for line in (*origin["done"], *trainer.compared.notes):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        if left_out := len(store.patches("train")) - len(trainer.patches):
            classes = len(classifier.description.classes)
            console.print(f"{left_out:,} patches have none of the {classes} classes and are left out")
    with run.lock() if ranks.first else nullcontext():
        if ranks.first:
            run.remove_abandoned()
        ranks.broadcast(None)
        if run.ended:
            return run.scores()
        if run.last.exists():
            trainer.load()
        trainer.fit()
        return trainer.finish()


@contextmanager
def _threads(run: Run, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Compute on the CPU with no more threads than have a core for themselves, unless OMP_NUM_THREADS sets their number.

    Sums depend on the number of threads in their last bits. So it is chosen when a run begins, and a resumed training has the
    same number. Launchers of several ranks set their threads.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and ranks.world == 1 and before > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(before, run.threads() or _threads_beside_others(before)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _threads_beside_others(most: int) -> int:
    others = cores_of_others()
    threads = free_threads(most, others)
    if threads < most:
        console.print(
            f"other processes keep {others:.1f} of {usable_cores()} cores busy: this run computes with {threads}"
            f" {'thread' if threads == 1 else 'threads'} instead of {most}, also when it is resumed; set OMP_NUM_THREADS for"
            " another number",
            soft_wrap=True,
        )
    return threads


def _check_same_start(recipe: Recipe, store: PatchStore, run: Run, ranks: Ranks) -> None:
    """Refuse ranks that were started with different recipes, stores or run folders."""
    keys = {f"--{key.replace('_', '-')}": str(v) for key, v in asdict(recipe).items() if key not in RESUMABLE_CHANGES}
    check_agreement(ranks, {"--run": str(run.folder.resolve()), "--store": store.fingerprint()} | keys)
