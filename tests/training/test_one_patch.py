"""A step in which a process has one patch: trained where the network can, refused in one line where a batch norm cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from landscale.cli import main
from landscale.errors import LandscaleError
from landscale.testing import make_store, rgbn_plane
from landscale.training.build import build_classifier, check_smallest_step
from trainings import PLAIN, flags, learn

ONE_PIXEL = replace(PLAIN, model="test_resnet", options={}, side=32, epochs=1)  # its last maps have one pixel


@pytest.mark.parametrize("batch,patches", [(1, 40), (8, 1)])
def test_a_step_of_one_patch_is_refused_where_a_batch_norm_has_one_value(batch, patches, tmp_path, capsys):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": patches, "val": 4})
    run = tmp_path / "run"
    assert main(["train", f"--store={store.path}", f"--run={run}", *flags(ONE_PIXEL, batch=batch)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"landscale: --batch {batch} with {patches} patches on 1 process: a step has one patch a process"
    )
    assert not run.exists()


@pytest.mark.parametrize("batch,patches", [(1, 4), (8, 1)])
def test_a_step_of_one_patch_is_trained_where_maps_have_more_pixels(batch, patches, tmp_path):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": patches, "val": 4})
    learn(replace(PLAIN, batch=batch, epochs=2), store, tmp_path / "run")
    assert np.isfinite(pd.read_csv(tmp_path / "run" / "metrics.csv")["loss"]).all()


@pytest.mark.parametrize(
    "batch,accumulate,patches,world,refused",
    [
        (2, 1, 40, 1, False),
        (1, 4, 40, 1, True),
        (8, 1, 33, 1, False),  # the patch that does not fill a step is left out
        (8, 1, 3, 2, True),  # a process has one, the other two
        (8, 1, 4, 2, False),
        (8, 4, 3, 1, True),  # three batches of one
        (8, 2, 4, 1, False),
    ],
)
def test_which_steps_have_one_patch_a_process(store, batch, accumulate, patches, world, refused):
    recipe = replace(ONE_PIXEL, batch=batch, accumulate=accumulate)
    classifier = build_classifier(recipe, store)
    if refused:
        with pytest.raises(LandscaleError, match="one patch a process"):
            check_smallest_step(recipe, classifier, patches, world)
    else:
        check_smallest_step(recipe, classifier, patches, world)
    check_smallest_step(replace(recipe, sync_norms=True), classifier, patches, max(world, 2))  # statistics of all ranks
