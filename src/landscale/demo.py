"""The demonstration: archive, store, training, evaluation, map and report of a synthetic landscape, in minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT, write_archive
from landscale.distributed import local_device
from landscale.inference.evaluate import evaluate
from landscale.maps.predict import predict
from landscale.models.weights import load_model
from landscale.preparation import prepare_survey
from landscale.report.page import write_report
from landscale.runtime.documents import write_json
from landscale.runtime.portability import usable_cores
from landscale.runtime.signals import Stopped
from landscale.store import open_store
from landscale.training.recipe import load_recipe
from landscale.training.runs import Run
from landscale.training.training import train


@dataclass(frozen=True)
class DemoSize:
    """How much the demonstration computes.

    Args:
        patches: number of patches of the first landscape, on which the model is trained and tested.
        mapped_patches: number of patches of the second landscape, which is only mapped, so that no pixel of the map was
            trained on.
        stride: distance between windows of the map in pixels of 10 m.
        seconds: time limit of the training, which matters on slow machines.
        workers: processes that prepare the store; None: one per core.
        recipe_keys: changes of the recipe `demo`, such as `--epochs=3`.
    """

    patches: int = 900
    mapped_patches: int = 64
    stride: int = 30
    seconds: float = 150.0
    workers: int | None = None
    recipe_keys: tuple[str, ...] = ()


FULL_SIZE = DemoSize()

NEXT_STEPS = """
Open {page} in a browser. What it shows is synthetic. Commands to try next:
  landscale info {store}
  landscale predict {run} {archive}/scene/{product} seen.tif
  landscale prepare bigearthnet FOLDER ben.h5      with BigEarthNet from https://bigearth.net
  landscale train --recipe papoutsis2022 --store ben.h5"""


def demo(out: Path, size: DemoSize = FULL_SIZE) -> Path:
    """Run all steps in the folder `out`, by the functions that the commands call. Steps whose output exists are skipped.

    Returns:
        The report, `out/report.html`.

    Raises:
        LandscaleError: a path in `out` that a step writes contains something else.
        KeyboardInterrupt: stopped by a signal; call it again to resume.
    """
    archive, unseen, store_path, run = out / "archive", out / "unseen", out / "store.h5", Run(out / "run")
    scene, map_file, page = unseen / "scene" / PRODUCT, out / "map.tif", out / "report.html"
    test_scores, training_scores = run.folder / "scores-test.json", run.folder / "scores.json"

    if _announce(1, "draw two synthetic landscapes", archive, done=archive.exists() and unseen.exists()):
        write_archive(archive, size.patches, seed=0)
        write_archive(unseen, size.mapped_patches, seed=1)

    if _announce(2, f"prepare a store of {size.patches} patches", store_path, done=store_path.exists()):
        survey = bigearthnet.survey([(None, archive)])
        prepare_survey(survey, store_path, size.workers or usable_cores())
    store = open_store(store_path)

    if _announce(3, "train the recipe demo", run.weights, done=run.ended):
        try:
            recipe = load_recipe("demo", list(size.recipe_keys))
            train(recipe, store, run.folder, max_time=size.seconds)
        except Stopped as stopped:
            raise KeyboardInterrupt from stopped

    if _announce(4, "evaluate on the test split", test_scores, done=_is_newer(test_scores, training_scores)):
        write_json(test_scores, evaluate(load_model(run.folder).to(local_device()), store, "test").to_json())

    if _announce(5, "map the second landscape", map_file, done=_is_newer(map_file, training_scores)):
        predict(load_model(run.folder).to(local_device()), scene, map_file, size.stride)

    done = _is_newer(page, test_scores) and _is_newer(page, map_file)
    if _announce(6, "write the report", page, done=done):
        write_report([run.folder], out, scene, map_file)
    print(NEXT_STEPS.format(page=page, store=store_path, run=run.folder, archive=archive, product=PRODUCT), flush=True)
    return page


def _announce(number: int, step: str, target: Path, *, done: bool) -> bool:
    """Print a step and return whether it has to be done."""
    print(f"{number}/6 {step} → {target}{' (exists)' if done else ''}", flush=True)
    return not done


def _is_newer(path: Path, source: Path) -> bool:
    """Whether `path` exists and is at least as new as `source`."""
    return path.exists() and path.stat().st_mtime >= source.stat().st_mtime
