"""Every network of the zoo: windows computed together are close to those given to the network one by one, or it is not `dense`.

Weights are random. The scene changes smoothly over a few windows, with noise on every pixel. Differences are relative to the
standard deviation of the logits between windows.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from landscale.maps.dense import Tiling, dense_rows, positions, runs
from landscale.models import ZOO, create_model, list_models
from landscale.models.classifier import Classifier, Description
from landscale.models.dense import map_side
from landscale.models.encoders import load_encoder
from landscale.models.registry import zoo

pytestmark = pytest.mark.usefixtures("seeded")

BANDS = ("B02", "B03", "B04")
CLASSES = tuple(f"class {k}" for k in range(19))
BOUND = 0.6  # root mean square difference; 1.4 if windows had nothing in common
QUICK = ("wide_resnet", "wide_resnet_eca_ghost", "resnet18", "convnextv2_atto")
OTHERS = ("seresnet18", "resnet26d")  # of timm, in a family that is dense
DENSE = [name for name in list_models() if ZOO[name].dense]


def draw_area(side, seed):
    """(bands, side, side), near mean 0 and standard deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    fields = torch.randn(1, len(BANDS), 2, 2, generator=generator)
    smooth = F.interpolate(fields, size=(side, side), mode="bilinear")[0]
    return smooth + 0.3 * torch.randn(len(BANDS), side, side, generator=generator)


def random_classifier(name, side):
    network = create_model(name, len(BANDS), len(CLASSES), side)
    for norm in [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.2, 0.5)
    areas = [draw_area(3 * side, seed) for seed in range(2)]
    with torch.no_grad():  # running statistics of such windows
        network.train()(torch.stack([a[:, k * side :, k * side :][:, :side, :side] for a in areas for k in range(3)]))
    statistics = dict.fromkeys(BANDS, (0.0, 1.0))
    description = Description(name, BANDS, CLASSES, "custom", True, statistics, side, 10 * side)
    classifier = Classifier(description, network).eval()
    classifier.activate = lambda logits: logits.float()  # compare logits
    return classifier


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in (*DENSE, *OTHERS)]
)
def test_windows_computed_together_are_close_to_single_windows(name, monkeypatch):
    monkeypatch.setattr("landscale.models.dense.reduced_precision", lambda device: False)
    side = 32 if zoo(name)[0].family == "wide_resnet" else 128
    classifier, area = random_classifier(name, side), draw_area(3 * side, 7).numpy()
    cells = map_side(classifier)
    axis = runs(3 * side, side, cells, cells // 2 * side // cells, 1)
    tiling, pixels = Tiling(side, cells, axis, axis), SimpleNamespace(ratios=dict.fromkeys(BANDS, 1))
    strips = [dict(zip(BANDS, area[:, top : top + side], strict=True)) for top in tiling.tops]
    found = np.concatenate([rows for rows in dense_rows(classifier, strips, tiling, pixels, {}) if rows is not None])
    starts = positions(axis, side, cells)
    windows = [area[:, y : y + side, x : x + side] for y in starts for x in starts]
    with torch.no_grad():
        expected = classifier.network(torch.from_numpy(np.stack(windows))).numpy().reshape(found.shape)
    difference = (found - expected) / expected.std((0, 1)).mean()
    given = [k for k, start in enumerate(starts) if start % side == 0]
    assert np.abs(difference[np.ix_(given, given)]).max() < 1e-3
    assert np.sqrt(np.mean(difference**2)) < BOUND


@pytest.mark.parametrize(
    "name", ["swinv2_tiny_window8_256", "maxvit_tiny_tf_224", "vit_20", "trio", "k_branch", "lambda_resnet"]
)
def test_networks_with_attention_over_the_patch_or_without_a_map_are_not_dense(name):
    assert not ZOO[name].dense


def test_other_networks_of_timm_are_dense_by_their_family():
    assert zoo("resnet34")[0].dense
    assert not zoo("vit_tiny_patch16_224")[0].dense


@pytest.mark.parametrize("name", ["bigearthnet-s2-10", "eurosat-rgb"])
def test_probabilities_of_bundled_weights_are_within_the_documented_bound(name, monkeypatch):
    """Probabilities: 0.02 on average, and 0.2 at most; the page on the architecture has the figures of a real scene."""
    monkeypatch.setattr("landscale.models.dense.reduced_precision", lambda device: False)
    monkeypatch.setattr("landscale.models.classifier.reduced_precision", lambda device: False)
    classifier = load_encoder(f"bundled:{name}")
    d, side = classifier.description, round(classifier.description.ground / 10)
    generator = np.random.default_rng(0)
    axis = runs(2 * side, side, cells := map_side(classifier), side // cells * max(1, cells // 4), 1)
    tiling, pixels = Tiling(side, cells, axis, axis), SimpleNamespace(ratios=dict.fromkeys(d.bands, 1))
    smooth = torch.from_numpy(generator.normal(size=(1, 1, 3, 3)))
    field = F.interpolate(smooth, size=(2 * side, 2 * side), mode="bilinear")[0, 0].numpy()
    area = {}
    for band in d.bands:
        mean, deviation = d.statistics[band]
        noise = generator.normal(size=field.shape) * 0.1
        area[band] = np.clip(mean + deviation * (0.5 * field + noise), 1, None).astype(np.uint16)
    strips = [{band: values[top : top + side] for band, values in area.items()} for top in tiling.tops]
    found = np.concatenate([rows for rows in dense_rows(classifier, strips, tiling, pixels, {}) if rows is not None])
    starts = positions(axis, side, cells)
    cut = [[area[band][y : y + side, x : x + side] for band in d.bands] for y in starts for x in starts]
    expected = classifier.probabilities({d.bands: torch.from_numpy(np.array(cut))}).numpy().reshape(found.shape)
    assert expected.std((0, 1)).max() > 0.01
    difference = np.abs(found - expected)
    assert difference.mean() < 0.02
    assert difference.max() < 0.2
