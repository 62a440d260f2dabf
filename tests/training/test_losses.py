"""Losses: each equals its published equation, is finite for extreme logits and correct for mixed labels. Class weights."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.loss import AsymmetricLossMultiLabel

from landscale.cli import main
from landscale.errors import LandscaleError
from landscale.models.weights import load_model
from landscale.testing import make_store, rgbn_plane
from landscale.training.losses import (
    LOSSES,
    binary_loss,
    build_loss,
    class_weights,
    effective_number,
    positive_weights,
    register_loss,
)
from landscale.training.recipe import Recipe, load_recipe

pytestmark = pytest.mark.usefixtures("seeded")

CPU = torch.device("cpu")
# γ₊, γ₋ and m as the papers state them: cross-entropy; Lin et al. 2017; Ridnik et al. 2021.
FOCUS = {"bce": (0.0, 0.0, 0.0), "focal": (2.0, 2.0, 0.0), "asymmetric": (0.0, 4.0, 0.05)}
every_loss = pytest.mark.parametrize("loss_name", FOCUS)
NO_PATCHES = np.zeros((4, 3), np.uint8)


def random_logits_and_targets(*shape, soft=True):
    """Random logits and targets, both float64; soft targets lie between 0 and 1."""
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    truth = torch.rand(shape, dtype=torch.float64)
    return logits, truth if soft else truth.round()


def reference_loss(logits, truth, positive, negative, margin, weight=1.0):
    """The equation in the docstring of `landscale.training.losses`, in the precision of the inputs."""
    p = torch.sigmoid(logits)
    q = (p - margin).clamp(min=0)
    on = -weight * (1 - p) ** positive * p.log()
    off = -(q**negative) * (1 - q).log()
    return truth * on + (1 - truth) * off


# ---- the equations


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_each_loss_equals_its_equation(loss_name, soft):
    logits, truth = random_logits_and_targets(32, 7, soft=soft)
    weight = torch.rand(7) + 0.5
    found = binary_loss(logits, truth, *FOCUS[loss_name], weight)
    torch.testing.assert_close(
        found.double(), reference_loss(logits, truth, *FOCUS[loss_name], weight), rtol=1e-4, atol=1e-6
    )


@every_loss
def test_gradients_equal_those_of_the_equation(loss_name):
    logits, truth = random_logits_and_targets(32, 7)
    tested, reference = logits.float().requires_grad_(), logits.clone().requires_grad_()
    binary_loss(tested, truth.float(), *FOCUS[loss_name]).mean().backward()
    reference_loss(reference, truth, *FOCUS[loss_name]).mean().backward()
    torch.testing.assert_close(tested.grad.double(), reference.grad, rtol=1e-4, atol=1e-7)


@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=3), margin=st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=25, deadline=None)
def test_losses_of_arbitrary_shapes_equal_the_equation(shape, margin):
    logits, truth = random_logits_and_targets(*shape)
    found = binary_loss(logits, truth, 1.0, 3.0, margin)
    assert found.shape == tuple(shape)
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), reference_loss(logits, truth, 1.0, 3.0, margin), rtol=1e-3, atol=1e-6)


def test_without_focus_and_margin_the_loss_is_binary_cross_entropy():
    logits, truth = random_logits_and_targets(16, 5)
    expected = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").float()
    torch.testing.assert_close(binary_loss(logits, truth, 0.0, 0.0, 0.0).float(), expected)
    loss = build_loss(Recipe(loss="bce"), NO_PATCHES, multi_label=True, device=CPU)
    torch.testing.assert_close(loss(logits, truth).float(), expected.mean())
    for loss_name in ("focal", "asymmetric"):
        other = build_loss(Recipe(loss=loss_name), NO_PATCHES, multi_label=True, device=CPU)
        assert other(logits, truth) < 0.9 * expected.mean()


def test_a_recipe_selects_each_loss_by_name():
    assert set(LOSSES) == set(FOCUS)
    logits, truth = random_logits_and_targets(16, 5, soft=False)
    for loss_name, (positive, negative, margin) in FOCUS.items():
        loss = build_loss(Recipe(loss=loss_name), NO_PATCHES, multi_label=True, device=CPU)
        expected = reference_loss(logits, truth, positive, negative, margin).mean()
        assert loss(logits, truth).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_loss_equals_a_value_computed_by_hand():
    """Lin et al. 2017: at p_t = 0.9, the focal loss is a hundredth of the cross-entropy."""
    logits, truth = torch.tensor([[math.log(9.0), -math.log(9.0)]]), torch.tensor([[1.0, 0.0]])
    expected = torch.full((1, 2), -0.01 * math.log(0.9))
    torch.testing.assert_close(binary_loss(logits, truth, *FOCUS["focal"]), expected)


def test_easy_negatives_within_the_margin_have_no_loss():
    logits = torch.tensor([-3.0, -2.9]).requires_grad_()  # p = 0.047 and 0.052
    loss = binary_loss(logits, torch.zeros(2), *FOCUS["asymmetric"])
    loss.sum().backward()
    assert loss[0] == 0
    assert logits.grad[0] == 0
    assert loss[1] > 0
    assert logits.grad[1] > 0
    assert binary_loss(logits, torch.zeros(2), 0.0, 4.0, 0.0)[0] > 0


def test_asymmetric_loss_equals_timms_for_hard_labels():
    logits, truth = random_logits_and_targets(64, 19, soft=False)
    timm_loss = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05, reduction="none")
    found = binary_loss(logits, truth, *FOCUS["asymmetric"])
    torch.testing.assert_close(found, timm_loss(logits, truth).abs(), rtol=1e-4, atol=1e-6, check_dtype=False)


@every_loss
def test_the_loss_is_linear_in_the_targets(loss_name):
    """The loss of mixed targets is the mixture of the losses, which mixup and label smoothing rely on."""
    logits, one = random_logits_and_targets(8, 5, soft=False)
    other, fraction = one.flip(0), 0.3
    mixed = binary_loss(logits, fraction * one + (1 - fraction) * other, *FOCUS[loss_name])
    losses = [binary_loss(logits, truth, *FOCUS[loss_name]) for truth in (one, other)]
    separate = fraction * losses[0] + (1 - fraction) * losses[1]
    torch.testing.assert_close(mixed, separate)


@every_loss
def test_smoothing_moves_targets_towards_a_half(loss_name):
    truth = random_logits_and_targets(8, 5, soft=False)[1]
    logits = 6 * truth - 3  # all predictions are right, so that smoothing raises the loss
    smooth = build_loss(Recipe(loss=loss_name, smoothing=0.2), NO_PATCHES, multi_label=True, device=CPU)
    plain = build_loss(Recipe(loss=loss_name), NO_PATCHES, multi_label=True, device=CPU)
    assert smooth(logits, truth) == pytest.approx(plain(logits, 0.8 * truth + 0.1).item())
    assert smooth(logits, truth) > 1.5 * plain(logits, truth)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [20.0, 200.0, 1e4, 1e30])
def test_losses_and_gradients_of_extreme_logits_are_finite(loss_name, dtype, size):
    logits = torch.tensor([[size, -size, size, -size, size]], dtype=dtype).requires_grad_()
    truth = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5]])
    loss = binary_loss(logits, truth, *FOCUS[loss_name])
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    assert loss[0, :2].sum() < 1e-6  # confident and right: no loss
    assert loss[0, 3].item() == pytest.approx(size, rel=1e-2)
    assert logits.grad[0, 3].item() == pytest.approx(-1, rel=1e-2)  # confident and wrong: the gradient does not vanish


# ---- weights


def labels(*counts, patches):
    """Labels (patches, classes): class k is set in the first counts[k] patches."""
    out = np.zeros((patches, len(counts)), np.uint8)
    for column, count in enumerate(counts):
        out[:count, column] = 1
    return out


def test_positive_weights_equal_values_computed_by_hand():
    targets = labels(50, 20, 1, 0, 100, patches=100)
    # 50/50, 80/20, 99/1 limited to 20; a class without patches: 1; a class in every patch: the minimum, 0.05
    assert positive_weights(targets, 1.0).tolist() == pytest.approx([1, 4, 20, 1, 0.05])
    assert positive_weights(targets, 0.5).tolist() == pytest.approx([1, 2, math.sqrt(99), 1, 0.05])
    assert positive_weights(targets, 0.0).tolist() == pytest.approx([1, 1, 1, 1, 1])
    # β = 0.5 of 2 and 1 patches: (1 − 0.25) / 0.5 = 1.5 and 1
    assert positive_weights(labels(1, 2, patches=3), 1.0, 0.5).tolist() == pytest.approx([1.5, 1 / 1.5])


def test_class_weights_equal_values_computed_by_hand():
    targets = np.eye(4, dtype=np.uint8)[[0] * 6 + [1] * 3 + [2]]  # 6, 3, 1 and 0 patches
    # 1/6, 1/3, 1 divided by their mean over patches, (6/6 + 3/3 + 1/1) / 10 = 0.3
    assert class_weights(targets, 1.0).tolist() == pytest.approx([1 / 1.8, 1 / 0.9, 1 / 0.3, 1])
    effective = [(1 - 0.9**n) / 0.1 for n in (6, 3, 1)]
    raw = np.array([1 / n for n in effective])
    mean = (raw * [6, 3, 1]).sum() / 10
    assert class_weights(targets, 1.0, 0.9).tolist() == pytest.approx([*(raw / mean), 1])


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=6), st.floats(0.1, 1), st.sampled_from([0.0, 0.9, 0.999, 1.0])
)
@settings(max_examples=40, deadline=None)
def test_a_rarer_class_never_has_a_smaller_weight(counts, power, beta):
    single = np.repeat(np.eye(len(counts), dtype=np.uint8), counts, axis=0)
    for weights in (class_weights(single, power, beta), positive_weights(single, power, beta)):
        assert weights.isfinite().all()
        assert ((weights >= 0.05) & (weights <= 20)).all()
        ordered = weights[torch.tensor(np.argsort(counts, kind="stable"))]
        assert (ordered.diff() <= 1e-6).all()


@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.9, 0.99, 0.999, 0.9999]))
@settings(max_examples=40, deadline=None)
def test_effective_number_lies_between_one_and_the_count(n, beta):
    (found,) = effective_number(np.array([float(n)]), beta)
    assert effective_number(np.array([float(n)]), 1.0) == n
    assert min(n, 1) - 1e-9 <= found <= n + 1e-6
    assert found <= 1 / (1 - beta) + 1e-6


def test_balance_weights_the_built_losses():
    targets = labels(20, 50, patches=100)
    logits, truth = torch.zeros(4, 2), torch.tensor([[1.0, 0.0]]).expand(4, 2)
    loss = build_loss(Recipe(balance=1.0), targets, multi_label=True, device=CPU)
    assert loss(logits, truth).item() == pytest.approx(math.log(2) * (4 + 1) / 2)
    single = np.eye(2, dtype=np.uint8)[[0] * 30 + [1] * 10]  # weights 2/3 and 2
    weighted = build_loss(Recipe(balance=1.0), single, multi_label=False, device=CPU)
    assert weighted(logits, truth).item() == pytest.approx(math.log(2) * 2 / 3)
    mean = weighted(torch.zeros(40, 2), torch.tensor(single, dtype=torch.float32))
    assert mean.item() == pytest.approx(math.log(2))  # averaged over the split, the weights do not change the loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_single_label_loss_is_cross_entropy(smoothing):
    logits, _ = random_logits_and_targets(6, 4)
    loss = build_loss(Recipe(smoothing=smoothing), NO_PATCHES, multi_label=False, device=CPU)
    one_hot = F.one_hot(torch.tensor([0, 1, 2, 3, 0, 1]), 4).double()
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0, 1]), label_smoothing=smoothing)
    assert loss(logits, one_hot).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("multi_label", [True, False])
def test_the_loss_of_an_ensemble_is_the_mean_over_its_members(multi_label):
    """Logits have the shape (patches, members, classes)."""
    logits, _ = random_logits_and_targets(6, 3, 4)
    truth = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1]]
    targets = np.eye(4, dtype=np.uint8)[[0, 0, 0, 1, 2, 3]]
    loss = build_loss(Recipe(balance=1.0), targets, multi_label=multi_label, device=CPU)
    together = loss(logits, truth[:, None].expand_as(logits))
    separate = torch.stack([loss(logits[:, k], truth) for k in range(3)]).mean()
    torch.testing.assert_close(together, separate)


def test_a_registered_loss_is_trained_with_by_name(tmp_path, capsys, monkeypatch):
    """A function with a decorator suffices for the recipe, the flag and the run to accept the new loss."""
    monkeypatch.setattr("landscale.training.losses.LOSSES", dict(LOSSES))
    calls = []

    @register_loss("squared")
    def squared_loss(logits, targets, *, weight=None):
        calls.append(weight)
        return (logits.float().sigmoid() - targets) ** 2

    with pytest.raises(ValueError, match="'squared' is registered already"):
        register_loss("squared")(squared_loss)
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, signal=4.0)
    args = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", "--json", "--loss=squared", "--epochs=8"]
    args += ["--model=wide_resnet", '--options={"width": 0.5}', "--bands=B02,B03,B04,B08", "--side=12", "--batch=8"]
    assert main([*args, "--rate=1e-2", "--precision=fp32", "--balance=0.5"]) == 0
    assert len(calls) == 64
    assert calls[0].shape == (4,)
    assert json.loads(capsys.readouterr().out)["scores"]["micro_ap"] > 0.9
    assert "loss: squared" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_beta_without_balance_is_refused():
    with pytest.raises(LandscaleError, match=r"--balance-beta: found 0\.99 without --balance"):
        build_loss(Recipe(balance_beta=0.99), NO_PATCHES, multi_label=True, device=CPU)
    with pytest.raises(LandscaleError, match="0 to 1"):
        load_recipe(None, ["--balance", "1", "--balance-beta", "1.5"])
    recipe = load_recipe(None, ["--balance", "1", "--balance-beta", "0.99"])
    assert recipe == replace(Recipe(), balance=1.0, balance_beta=0.99)


@pytest.mark.parametrize("multi_label,loss", [(True, "focal"), (True, "asymmetric"), (False, "bce")])
def test_the_train_command_learns_with_each_loss(tmp_path, capsys, multi_label, loss):
    make_store(
        tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, multi_label=multi_label, signal=4.0
    )
    args = ["train", f"--store={tmp_path / 's.h5'}", f"--run={tmp_path / 'run'}", "--json", f"--loss={loss}"]
    args += ["--model=wide_resnet", '--options={"width": 0.5}', "--bands=B02,B03,B04,B08", "--side=12", "--epochs=8"]
    args += ["--batch=8", "--rate=1e-2", "--balance=0.5", "--balance-beta=0.999", "--mixup=0.2", "--precision=fp32"]
    assert main(args) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["micro_ap" if multi_label else "accuracy"] > 0.9
    assert load_model(tmp_path / "run").description.multi_label == multi_label
