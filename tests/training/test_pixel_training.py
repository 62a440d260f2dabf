"""`train --task pixels`: learns the class of every pixel, resumes exactly, begins from other weights, and says what it cannot."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from landscale.cli import main
from landscale.errors import LandscaleError
from landscale.inference.evaluate import evaluate
from landscale.inference.pixel_scores import PixelScores, confusion_matrix, pixel_scores
from landscale.inference.scores import read_scores
from landscale.models.input_stage import turn
from landscale.models.weights import load_model
from landscale.store import NO_CLASS, REFERENCE
from landscale.testing import make_store, rgbn_plane
from landscale.training.augmentation import Augmentation, augment_with_maps
from landscale.training.losses import build_pixel_loss, class_weights
from landscale.training.recipe import Recipe, load_recipe
from trainings import BANDS, CPU, PLAIN, TINY, flags, learn

PIXELS = replace(PLAIN, task="pixels", scale="linear", epochs=6, select="mean_iou", rate=2e-2)


@pytest.fixture(scope="module")
def pixel_store(tmp_path_factory):
    return make_store(
        tmp_path_factory.mktemp("pixels") / "s.h5",
        planes=rgbn_plane(12),
        splits={"train": 40, "val": 16, "test": 16},
        seed=1,
        reference_maps=True,
    )


@pytest.fixture(scope="module")
def run(pixel_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "r"
    learn(PIXELS, pixel_store, folder)
    return folder


def test_pixels_are_learnt_and_weights_know_their_task(run, pixel_store):
    scores = read_scores(run / "scores.json")
    assert isinstance(scores, PixelScores)
    assert (scores.split, scores.patches) == ("val", 16)
    assert scores.mean_iou > 0.8
    model = load_model(run)
    assert model.description.pixels
    assert not model.description.multi_label
    again = evaluate(model, pixel_store, "val")
    assert again == replace(scores, steps=None)


def test_the_command_scores_pixels(run, pixel_store, capsys):
    assert main(["evaluate", str(run), str(pixel_store.path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["split"], content["patches"]) == ("test", 16)
    maps = pixel_store.pixels(REFERENCE, pixel_store.patches("test"))
    assert content["pixels"] == (maps != NO_CLASS).sum() == np.sum(content["confusion"])
    assert main(["evaluate", str(run), str(pixel_store.path)]) == 0
    assert "mean IoU" in capsys.readouterr().out
    assert PixelScores.from_json(content).mean_iou == content["mean_iou"]


def test_every_pixel_gets_the_likeliest_class_of_its_patch_by_weights_of_patches(pixel_store, tmp_path, capsys):
    learn(replace(PLAIN, epochs=1), pixel_store, tmp_path / "run")
    model = load_model(tmp_path / "run").eval()
    rows = pixel_store.patches("test")
    maps = pixel_store.pixels(REFERENCE, rows)[:, 0]
    planes = {model.description.bands: torch.from_numpy(pixel_store.pixels("data_10m", rows))}
    likeliest = model.probabilities(planes).argmax(1).numpy()
    classes = model.description.classes
    expected = confusion_matrix(maps, np.broadcast_to(likeliest[:, None, None], maps.shape), len(classes))
    assert main(["evaluate", str(tmp_path / "run"), str(pixel_store.path), "--pixels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confusion"] == expected.tolist()
    assert found["accuracy"] == pixel_scores(expected, classes).accuracy
    assert [path.name for path in (tmp_path / "run").glob("scores-*")] == ["scores-test-pixels.json"]


def test_a_training_that_was_stopped_ends_with_the_same_weights(run, pixel_store, tmp_path, monkeypatch):
    from landscale.training.trainer import Trainer

    steps = 0
    step = Trainer.step

    def stops(self, *arguments):
        nonlocal steps
        steps += 1
        if steps == 13:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(Trainer, "step", stops)
    with pytest.raises(KeyboardInterrupt):
        learn(PIXELS, pixel_store, tmp_path / "r")
    monkeypatch.undo()
    learn(PIXELS, pixel_store, tmp_path / "r")
    assert load_model(tmp_path / "r").digest() == load_model(run).digest()


def test_a_coarser_input_is_compared_at_the_side_of_the_map(pixel_store, tmp_path):
    scores = learn(
        replace(PIXELS, side=8, epochs=2, shift=1, jitter=0.05, progressive=[[0.5, 6]]), pixel_store, tmp_path / "r"
    )
    assert scores.pixels == (pixel_store.pixels(REFERENCE, pixel_store.patches("val")) != NO_CLASS).sum()


def test_weights_of_patches_begin_a_training_of_pixels_and_the_other_way_round(run, pixel_store, tmp_path, capsys):
    learn(replace(PLAIN, epochs=1, scale="linear"), pixel_store, tmp_path / "patches")
    for task, init in (("pixels", tmp_path / "patches"), ("patches", run), ("pixels", run)):
        folder = tmp_path / f"{task}-{init.name}"
        words = ["train", "--store", str(pixel_store.path), "--run", str(folder), "--init", str(init), "--epochs", "1"]
        words += ["--bands", BANDS]
        assert main([*words, "--task", task, "--batch", "8", "--freeze", "all"]) == 0
        trunk, before = load_model(folder).network, load_model(init).network
        get = [n.trunk if hasattr(n, "trunk") else n for n in (trunk, before)]
        one, other = ({k: v for k, v in n.state_dict().items() if k.startswith("stages")} for n in get)
        assert one.keys() == other.keys()
        assert one
        assert all(torch.equal(one[k], other[k]) for k in one), (task, init)
    capsys.readouterr()


@pytest.mark.parametrize("key", ["head", "zoom", "mixup", "cutmix"])
def test_keys_of_patches_are_refused(key):
    value = {"head": "query"}.get(key, "0.2")
    with pytest.raises(LandscaleError, match=f"--{key}: found .* the task pixels does not take"):
        load_recipe(None, ["--task", "pixels", f"--{key}", value])


def test_a_store_without_maps_or_a_network_of_tokens_is_refused_before_the_run(store, pixel_store, tmp_path, capsys):
    words = ["train", "--run", str(tmp_path / "r"), "--task", "pixels", "--bands", "B02,B03,B04,B08"]
    assert main([*words, "--store", str(store.path)]) == 2
    assert "has no reference maps" in capsys.readouterr().err
    assert main([*words, "--store", str(pixel_store.path), "--model", "vit_40", "--side", "120"]) == 2
    assert "needs a map of features" in capsys.readouterr().err
    assert main([*words, "--store", str(pixel_store.path), "--select", "micro_ap", *flags(TINY)[:2]]) == 2
    assert "micro_ap" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_max_time_plans_with_evaluations_of_pixels(pixel_store, tmp_path):
    scores = learn(replace(PIXELS, epochs=2), pixel_store, tmp_path / "r", max_time=60.0)
    assert scores.pixels > 0


def test_commands_that_need_labels_of_patches_refuse_weights_of_pixels(run, pixel_store, tmp_path, capsys):
    assert main(["explain", str(run), str(pixel_store.path), str(tmp_path / "e")]) == 2
    assert "these weights classify pixels" in capsys.readouterr().err
    assert main(["export", str(run), str(tmp_path / "o"), "--format", "onnx"]) == 2
    assert "these weights classify pixels" in capsys.readouterr().err
    assert not (tmp_path / "e").exists()
    assert main(["export", str(run), str(tmp_path / "w"), "--format", "weights"]) == 0
    assert load_model(tmp_path / "w").description.pixels
    assert main(["embed", str(run), str(pixel_store.path), str(tmp_path / "f.parquet")]) == 0
    capsys.readouterr()


# ---- parts


def test_maps_move_with_their_patches():
    torch.manual_seed(0)
    maps = torch.randint(0, 5, (16, 10, 10), dtype=torch.uint8)
    values = torch.cat([maps[:, None].float(), torch.randn(16, 2, 10, 10)], 1)
    moved, classes = augment_with_maps(
        Augmentation(turns=True, shift=2), values, maps, torch.Generator().manual_seed(0)
    )
    assert torch.equal(moved[:, 0].to(torch.uint8), classes)
    assert not torch.equal(classes, maps)
    still, same = augment_with_maps(Augmentation(turns=False, jitter=0.5), values, maps, torch.Generator())
    assert torch.equal(same, maps)
    assert not torch.equal(still, values)
    turned = {tuple(turn(maps[:1, None], k)[0, 0].flatten().tolist()) for k in range(8)}
    assert (
        tuple(augment_with_maps(Augmentation(), values[:1], maps[:1], torch.Generator())[1][0].flatten().tolist())
        in turned
    )


def test_the_loss_is_the_mean_over_pixels_with_a_class():
    torch.manual_seed(0)
    logits, maps = torch.randn(3, 4, 6, 6), torch.randint(0, 4, (3, 6, 6), dtype=torch.uint8)
    maps[:, 0] = NO_CLASS
    counts = np.array([10, 30, 5, 60])
    for recipe in (Recipe(), Recipe(smoothing=0.1), Recipe(balance=0.5)):
        weight = class_weights(counts[None], recipe.balance) if recipe.balance else None
        known = maps != NO_CLASS
        each = F.cross_entropy(
            logits.permute(0, 2, 3, 1)[known],
            maps[known].long(),
            weight,
            label_smoothing=recipe.smoothing,
            reduction="none",
        )
        assert torch.isclose(build_pixel_loss(recipe, counts, CPU)(logits, maps), each.mean(), rtol=1e-5)
    nothing = build_pixel_loss(Recipe(), counts, CPU)(logits.requires_grad_(), torch.full_like(maps, NO_CLASS))
    nothing.backward()
    assert nothing == 0
    assert (logits.grad == 0).all()
