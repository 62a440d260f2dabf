"""The whole road on a synthetic landscape: archive, store, training, evaluation, map, report. Minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from landscale.datasets.bigearthnet import folders as bigearthnet
from landscale.datasets.synthetic.bigearthnet_archive import PRODUCT, write_archive
from landscale.distributed import Ranks, local_device
from landscale.inference.evaluate import evaluate
from landscale.inference.predict import predict
from landscale.models.weights import load_model
from landscale.preparation import prepare_survey
from landscale.report.page import report
from landscale.runtime.files import write_json
from landscale.runtime.portability import usable_cores
from landscale.runtime.signals import Stopped
from landscale.store import open_store
from landscale.training.recipe import load_recipe
from landscale.training.runs import Run
from landscale.training.training import train

PATCHES = 900
UNSEEN = 64  # patches of the second landscape, which is only mapped: no pixel of it was trained on
STRIDE = 30  # of the map: every pixel is seen by 16 windows
LONGEST = 150.0  # seconds of training: on a slow machine the plan is shortened

NEXT = """
Open {page} in a browser. What it shows is synthetic. To go on:
  landscale info {store}
  landscale predict {run} {archive}/scene/{product} seen.tif
  landscale prepare bigearthnet FOLDER ben.h5      with BigEarthNet from https://bigearth.net
  landscale train --recipe papoutsis2022 --store ben.h5"""


def demo(out: Path) -> Path:
    """Go the whole road below `out`, by the functions that the commands call; what is there already is not done again.

    Returns:
        The report.

    Raises:
        LandscaleError: `out` holds other things under the names used here.
        KeyboardInterrupt: stopped; called again, it goes on.
    """
    archive, unseen, store_path, run = out / "archive", out / "unseen", out / "store.h5", Run(out / "run")
    scene, map_file, page = unseen / "scene" / PRODUCT, out / "map.tif", out / "report.html"
    tested = run.folder / "scores-test.json"

    if _step(1, "draw two synthetic landscapes", archive, there=archive.exists() and unseen.exists()):
        write_archive(archive, PATCHES, seed=0)
        write_archive(unseen, UNSEEN, seed=1)

    if _step(2, f"prepare a store of {PATCHES} patches", store_path, there=store_path.exists()):
        survey = bigearthnet.survey([(None, archive)])
        prepare_survey(survey, store_path, usable_cores())
    store = open_store(store_path)

    if _step(3, "train the recipe demo", run.weights, there=run.ended):
        try:
            train(load_recipe("demo", []), store, run, Ranks(), local_device(Ranks()), LONGEST)
        except Stopped as stopped:
            raise KeyboardInterrupt from stopped
    ended = run.folder / "scores.json"

    if _step(4, "evaluate on the test split", tested, there=_newer(tested, ended)):
        write_json(tested, evaluate(load_model(run.folder).to(local_device()), store, "test").to_json())

    if _step(5, "map the second landscape", map_file, there=_newer(map_file, ended)):
        predict(load_model(run.folder).to(local_device()), scene, map_file, STRIDE)

    if _step(6, "report", page, there=_newer(page, tested) and _newer(page, map_file)):
        report([run.folder], out, scene, map_file)
    print(NEXT.format(page=page, store=store_path, run=run.folder, archive=archive, product=PRODUCT), flush=True)
    return page


def _step(number: int, what: str, target: Path, *, there: bool) -> bool:
    """Announce a step; whether it has to be done."""
    print(f"{number}/6 {what} → {target}{' (there already)' if there else ''}", flush=True)
    return not there


def _newer(path: Path, source: Path) -> bool:
    """Whether `path` is there and was made after `source`."""
    return path.exists() and path.stat().st_mtime >= source.stat().st_mtime
