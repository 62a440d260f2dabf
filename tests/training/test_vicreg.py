"""The loss of VICReg, its two views and its expander, compared with their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscale.models.registry import create_model
from landscale.training.augmentation import Augmentation
from landscale.training.vicreg import Expanded, VicReg, expanded, two_views

NO_TARGETS = torch.zeros(8, 0)


def terms_of_definition(first, second):
    """Bardes et al. 2022, equations 1 to 4, with NumPy; the variance is the mean of the two views, as in the authors' code."""
    invariance = np.mean((first - second) ** 2)
    variance = np.mean(
        [np.maximum(0, 1 - np.sqrt(np.var(view, axis=0, ddof=1) + 1e-4)).mean() for view in (first, second)]
    )
    covariance = 0.0
    for view in (first, second):
        matrix = np.cov(view, rowvar=False)
        covariance += ((matrix**2).sum() - (np.diag(matrix) ** 2).sum()) / view.shape[1]
    return [25 * invariance, 25 * variance, covariance]


def test_the_loss_is_the_sum_of_the_three_terms_of_its_definition():
    vectors = (0.6 * torch.randn(16, 5) + torch.randn(5)).requires_grad_()
    loss, *figures = VicReg()(vectors, NO_TARGETS).detach()
    views = vectors.detach().double().numpy()
    expected = terms_of_definition(views[:8], views[8:])
    assert torch.stack(figures[:3]).tolist() == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(sum(expected), rel=1e-4)
    deviations = [np.sqrt(np.var(view, axis=0, ddof=1) + 1e-4) for view in (views[:8], views[8:])]
    assert float(figures[3]) == pytest.approx(np.mean(deviations), rel=1e-4)
    assert all(expected)


def test_the_figures_have_no_gradient_and_the_loss_has_that_of_its_definition():
    vectors = torch.randn(16, 4, dtype=torch.float64).float().requires_grad_()
    values = VicReg()(vectors, NO_TARGETS)
    (of_loss,) = torch.autograd.grad(values[0], vectors, retain_graph=True)
    (of_sum,) = torch.autograd.grad(values.sum(), vectors)
    assert torch.equal(of_loss, of_sum)
    step = 1e-3
    for row, column in ((0, 0), (9, 3)):
        moved = vectors.detach().double().numpy()
        moved[row, column] += step
        above = sum(terms_of_definition(moved[:8], moved[8:]))
        moved[row, column] -= 2 * step
        below = sum(terms_of_definition(moved[:8], moved[8:]))
        assert float(of_loss[row, column]) == pytest.approx((above - below) / (2 * step), rel=0.02, abs=1e-3)


def test_equal_vectors_have_a_deviation_near_zero_and_still_a_finite_gradient():
    vectors = torch.ones(16, 4, requires_grad=True)
    loss, invariance, variance, covariance, deviation = VicReg()(vectors, NO_TARGETS)
    terms = torch.stack([invariance, variance, covariance, deviation])
    assert terms.tolist() == pytest.approx([0, 25 * 0.99, 0, 0.01])
    loss.backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


def test_all_first_views_come_before_the_second_ones_and_differ_from_them():
    values = torch.arange(6.0)[:, None, None, None].expand(6, 2, 8, 8) + torch.rand(6, 2, 8, 8) / 4
    generator = torch.Generator().manual_seed(1)
    augment = replace(Augmentation(), jitter=0.01)
    views, targets = two_views(lambda v, t: augment(v, t, generator), values, NO_TARGETS)
    assert views.shape == (12, 2, 8, 8)
    assert targets is NO_TARGETS
    assert views.mean((1, 2, 3)).round().tolist() == [0, 1, 2, 3, 4, 5] * 2
    assert not torch.equal(views[:6], views[6:])


def test_a_dropped_band_is_at_its_mean_and_about_the_asked_fraction_is_dropped():
    values = torch.full((200, 10, 4, 4), 3.0)
    found, _ = replace(Augmentation(), turns=False, drop_bands=0.25)(
        values, NO_TARGETS, torch.Generator().manual_seed(0)
    )
    means = found.mean((2, 3))
    assert set(means.unique().tolist()) == {0.0, 3.0}  # the whole band of a patch, or nothing of it
    assert float((means == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert (values == 3).all()


def test_the_expander_fits_the_features_and_its_weights_depend_on_the_seed_only():
    encoder = torch.nn.Sequential(torch.nn.Conv2d(3, 7, 3), torch.nn.BatchNorm2d(7), torch.nn.AdaptiveAvgPool2d(1))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    encoder.train()
    first = expanded(encoder, (3, 6, 6), 16, seed=4)
    torch.rand(5)
    same, other = (expanded(encoder, (3, 6, 6), 16, seed) for seed in (4, 5))
    assert encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert isinstance(first, Expanded)
    assert first(torch.randn(4, 3, 6, 6)).shape == (4, 16)
    assert torch.equal(first.expander[0].weight, same.expander[0].weight)
    assert not torch.equal(first.expander[0].weight, other.expander[0].weight)


@pytest.mark.parametrize("name", ["k_branch", "mlp_mixer_tiny", "trio", "vit_20", "wide_resnet_eca"])
def test_every_parameter_of_any_network_gets_a_gradient(name):
    """DistributedDataParallel waits for all of them."""
    options = {"gsd": [10, 10, 20, 60]} if name == "k_branch" else {}
    network = expanded(create_model(name, 4, 0, 60, **options), (4, 60, 60), 8, seed=0)
    VicReg()(network(torch.randn(4, 4, 60, 60)), NO_TARGETS)[0].backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []
