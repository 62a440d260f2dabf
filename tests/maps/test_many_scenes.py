"""`predict --each`: a map for each scene; the same for any workers, kept when it is there, and without stopping at a bad one."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch

from conftest import command
from landscale.maps import many
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from mapped import ORIGIN, SIDE, description_with, draw_scene, write_band, write_scene
from slurm import slurm

NAMES = ("B02", "B04")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "w", Classifier(description_with(NAMES)).eval(), {})
    return tmp_path / "w"


@pytest.fixture
def scenes(tmp_path):
    for k in range(4):
        write_scene(tmp_path / "in" / f"scene_{k}.SAFE", draw_scene(40, 40 + 6 * k, seed=k, names=NAMES))
    return tmp_path / "in"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_maps_are_those_of_each_scene_alone_for_any_workers_and_parts(cli, weights, scenes, tmp_path):
    paths = sorted(scenes.iterdir())
    answer = cli("predict", weights, *paths, tmp_path / "one", "--each", "--entropy", "--json")
    assert answer.code == 0, answer.err
    assert [one["state"] for one in answer.json["maps"]] == ["written"] * 4
    assert {path.name for path in (tmp_path / "one").glob("*.tif")} == {
        f"scene_{k}{kind}.tif" for k in range(4) for kind in ("", "-entropy")
    }
    assert cli("predict", weights, *paths[::-1], tmp_path / "two", "--each", "--entropy", "--workers", 2).code == 0
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)) + "\n\n")
    for k in (1, 2, 3):
        words = ("--each", "--entropy", "--part", f"{k}/3")
        assert cli("predict", weights, tmp_path / "list.txt", tmp_path / "parts", *words).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "parts")
    assert cli("predict", weights, paths[2], tmp_path / "alone.tif").code == 0
    with rasterio.open(tmp_path / "alone.tif") as alone, rasterio.open(tmp_path / "one" / "scene_2.tif") as each:
        assert np.array_equal(alone.read(), each.read())


def test_a_finished_map_is_kept_until_anything_of_it_changes(cli, weights, scenes, tmp_path):
    paths = sorted(scenes.iterdir())[:2]

    def states(*words):
        answer = cli("predict", weights, *paths, tmp_path / "out", "--each", "--json", *words)
        assert answer.code == 0, answer.err
        return [one["state"] for one in answer.json["maps"]]

    assert states() == ["written", "written"]
    before = contents(tmp_path / "out")
    assert states() == ["kept", "kept"]
    assert contents(tmp_path / "out") == before
    assert states("--stride", SIDE // 3) == ["written", "written"]
    write_scene(paths[1], draw_scene(40, 46, seed=9, names=NAMES))
    assert states("--stride", SIDE // 3) == ["kept", "written"]
    write_band(paths[0] / "SCL.tif", np.full((20, 20), 4, np.uint8), 20)
    assert states("--stride", SIDE // 3) == ["written", "kept"]
    (tmp_path / "out" / "scene_0.tif").unlink()
    assert states("--stride", SIDE // 3) == ["written", "kept"]


def test_an_area_that_changed_under_its_name_is_mapped_again(cli, weights, scenes, tmp_path):
    scene, area = sorted(scenes.iterdir())[0], tmp_path / "area.geojson"
    for rows, expected in ((20, "written"), (20, "kept"), (30, "written")):
        x, y = ORIGIN
        ring = [[x, y], [x + 300, y], [x + 300, y - 10 * rows], [x, y - 10 * rows], [x, y]]
        crs = {"type": "name", "properties": {"name": "EPSG:32632"}}
        area.write_text(json.dumps({"type": "Polygon", "coordinates": [ring], "crs": crs}))
        answer = cli("predict", weights, scene, tmp_path / "out", "--each", "--aoi", area, "--json")
        assert answer.code == 0, answer.lines
        assert [one["state"] for one in answer.json["maps"]] == [expected]
        with rasterio.open(tmp_path / "out" / "scene_0.tif") as file:
            assert file.shape == (rows, 30)


def test_the_number_of_threads_does_not_change_a_byte(cli, weights, scenes, tmp_path):
    threads = torch.get_num_threads()
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        try:
            answer = cli(
                "predict", weights, *scenes.iterdir(), tmp_path / str(n), "--each", "--probabilities", "float32"
            )
        finally:
            torch.set_num_threads(threads)
        assert answer.code == 0, answer.lines
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")


@pytest.mark.parametrize(("kills", "workers"), [(2, 1), pytest.param(12, 2, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_with_the_same_maps(cli, weights, tmp_path, seed, kills, workers):
    """At every moment, a map is complete or absent, and the next call keeps those that are complete."""
    scenes = [write_scene(tmp_path / f"s{k}.SAFE", draw_scene(300, 300, seed=k, names=NAMES)) for k in range(4)]
    assert cli("predict", weights, *scenes, tmp_path / "first", "--each").code == 0
    expected, out, rng = contents(tmp_path / "first"), tmp_path / "second", random.Random(seed)
    words = "predict", weights, *scenes, out, "--each", "--workers", workers
    out.mkdir()
    for _ in range(kills):
        before = out.stat().st_mtime_ns
        process = command(*words)
        while process.poll() is None and out.stat().st_mtime_ns == before:  # until it begins with a scene
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        found = {name: content for name, content in contents(out).items() if not name.startswith(".")}
        assert found.items() <= expected.items()
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    assert contents(out) == expected
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.cluster
def test_the_jobs_of_a_slurm_array_write_the_same_maps(cli, weights, scenes, tmp_path):
    paths = sorted(scenes.iterdir())
    assert cli("predict", weights, *paths, tmp_path / "one", "--each").code == 0
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    program = Path(sys.executable).with_name("landscale")
    words = f"{program} predict {weights} {tmp_path}/list.txt {tmp_path}/two --each --part $SLURM_ARRAY_TASK_ID/3"
    with slurm(tmp_path / "slurm") as environment:
        submit = ["sbatch", "--wait", "--array=1-3", f"--output={tmp_path}/%a.log", f"--wrap={words}"]
        variables = os.environ | environment
        done = subprocess.run(submit, env=variables, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, [path.read_text() for path in tmp_path.glob("*.log")] or done.stderr
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_scene_that_fails_is_named_and_the_others_are_mapped(cli, weights, scenes, tmp_path):
    (scenes / "scene_1.SAFE" / "B04.tif").write_bytes(b"nothing")
    paths = sorted(scenes.iterdir())
    for folder, more in (("one", ()), ("two", ("--workers", "2"))):
        answer = cli("predict", weights, *paths, tmp_path / folder, "--each", *more)
        assert answer.code == 2
        assert "1 of 4 scenes failed" in answer.lines[-1]
        assert "B04.tif" in answer.lines[-1]
        assert len(list((tmp_path / folder).glob("scene_?.tif"))) == 3


def test_what_makes_no_sense_is_refused_before_anything_is_written(cli, weights, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(many, "_TIMEOUT", 1)
    paths = sorted(scenes.iterdir())
    shutil.copytree(paths[0], tmp_path / "again" / paths[0].name)
    out = tmp_path / "out"
    for words, problem in (
        ((*paths, tmp_path / "again" / paths[0].name, out, "--each"), "would have the same map scene_0.tif"),
        ((*paths, out, "--each", "--polygons", tmp_path / "p.gpkg"), "--polygons is for one map"),
        ((*paths, out, "--each", "--part", "5/4"), "expected K/N"),
        ((paths[0], out, "--workers", 2), "belong to --each"),
        ((*paths, out, "--each", "--scheduler", "tcp://127.0.0.1:1"), "no dask scheduler answers"),
        ((*paths, weights / "config.json", "--each"), "is not a folder"),
    ):
        answer = cli("predict", weights, *words)
        assert answer.code == 2
        assert problem in answer.lines[-1]
        assert not list(tmp_path.glob("out/*.tif"))


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_maps(cli, weights, scenes, tmp_path):
    from distributed import LocalCluster

    paths = sorted(scenes.iterdir())
    assert cli("predict", weights, *paths, tmp_path / "one", "--each").code == 0
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        answer = cli("predict", weights, *paths, tmp_path / "two", "--each", "--scheduler", address, "--json")
    assert answer.code == 0
    assert [one["state"] for one in json.loads(answer.out)["maps"]] == ["written"] * 4
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
