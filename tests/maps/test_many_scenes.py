"""`predict --each`: a map for each scene; the same for any workers, kept when it is there, and without stopping at a bad one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch

from landscale.maps import many
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from mapped import SIDE, description_with, draw_scene, write_scene

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
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    (tmp_path / "out" / "scene_0.tif").unlink()
    assert states("--stride", SIDE // 3) == ["written", "kept"]


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
