"""Losses: each is its published equation, finite wherever logits go, and right for mixed labels; weights come from counts."""

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
every_loss = pytest.mark.parametrize("kind", FOCUS)
NONE = np.zeros((4, 3), np.uint8)


def drawn(*shape, soft=True):
    """Logits (float64) and targets."""
    logits = 3 * torch.randn(shape, dtype=torch.float64)
    wanted = torch.rand(shape, dtype=torch.float64)
    return logits, wanted if soft else wanted.round()


def plainly(logits, wanted, positive, negative, margin, weight=1.0):
    """The equation as the module's docstring has it, in the precision of its arguments."""
    p = torch.sigmoid(logits)
    q = (p - margin).clamp(min=0)
    on = -weight * (1 - p) ** positive * p.log()
    off = -(q**negative) * (1 - q).log()
    return wanted * on + (1 - wanted) * off


# ---- the equations


@every_loss
@pytest.mark.parametrize("soft", [False, True])
def test_each_is_its_equation(kind, soft):
    logits, wanted = drawn(32, 7, soft=soft)
    weight = torch.rand(7) + 0.5
    found = binary_loss(logits, wanted, *FOCUS[kind], weight)
    torch.testing.assert_close(found.double(), plainly(logits, wanted, *FOCUS[kind], weight), rtol=1e-4, atol=1e-6)


@every_loss
def test_gradients_are_those_of_the_equation(kind):
    logits, wanted = drawn(32, 7)
    ours, theirs = logits.float().requires_grad_(), logits.clone().requires_grad_()
    binary_loss(ours, wanted.float(), *FOCUS[kind]).mean().backward()
    plainly(theirs, wanted, *FOCUS[kind]).mean().backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-7)


@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=3), margin=st.sampled_from([0.0, 0.05, 0.3]))
@settings(max_examples=25, deadline=None)
def test_any_shape(shape, margin):
    logits, wanted = drawn(*shape)
    found = binary_loss(logits, wanted, 1.0, 3.0, margin)
    assert found.shape == tuple(shape)
    assert (found >= 0).all()
    torch.testing.assert_close(found.double(), plainly(logits, wanted, 1.0, 3.0, margin), rtol=1e-3, atol=1e-6)


def test_without_focus_and_margin_each_is_binary_cross_entropy():
    logits, wanted = drawn(16, 5)
    expected = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").float()
    torch.testing.assert_close(binary_loss(logits, wanted, 0.0, 0.0, 0.0).float(), expected)
    loss = build_loss(Recipe(loss="bce"), NONE, multi_label=True, device=CPU)
    torch.testing.assert_close(loss(logits, wanted).float(), expected.mean())
    for kind in ("focal", "asymmetric"):
        other = build_loss(Recipe(loss=kind), NONE, multi_label=True, device=CPU)
        assert other(logits, wanted) < 0.9 * expected.mean()


def test_the_recipe_names_the_loss():
    assert set(LOSSES) == set(FOCUS)
    logits, wanted = drawn(16, 5, soft=False)
    for kind, (positive, negative, margin) in FOCUS.items():
        loss = build_loss(Recipe(loss=kind), NONE, multi_label=True, device=CPU)
        expected = plainly(logits, wanted, positive, negative, margin).mean()
        assert loss(logits, wanted).item() == pytest.approx(expected.item(), rel=1e-5)


def test_focal_by_hand():
    """Lin et al. 2017: a decision at p_t = 0.9 has a hundredth of its cross-entropy."""
    logits, wanted = torch.tensor([[math.log(9.0), -math.log(9.0)]]), torch.tensor([[1.0, 0.0]])
    expected = torch.full((1, 2), -0.01 * math.log(0.9))
    torch.testing.assert_close(binary_loss(logits, wanted, *FOCUS["focal"]), expected)


def test_the_margin_drops_easy_negatives():
    logits = torch.tensor([-3.0, -2.9]).requires_grad_()  # p = 0.047 and 0.052
    loss = binary_loss(logits, torch.zeros(2), *FOCUS["asymmetric"])
    loss.sum().backward()
    assert loss[0] == 0
    assert logits.grad[0] == 0
    assert loss[1] > 0
    assert logits.grad[1] > 0
    assert binary_loss(logits, torch.zeros(2), 0.0, 4.0, 0.0)[0] > 0


def test_asymmetric_is_timms_for_hard_labels():
    logits, wanted = drawn(64, 19, soft=False)
    theirs = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0.05, reduction="none")
    found = binary_loss(logits, wanted, *FOCUS["asymmetric"])
    torch.testing.assert_close(found, theirs(logits, wanted).abs(), rtol=1e-4, atol=1e-6, check_dtype=False)


@every_loss
def test_the_loss_of_a_mixture_is_the_mixture_of_losses(kind):
    """As mixup means it, and label smoothing with it."""
    logits, one = drawn(8, 5, soft=False)
    other, share = one.flip(0), 0.3
    mixed = binary_loss(logits, share * one + (1 - share) * other, *FOCUS[kind])
    apart = share * binary_loss(logits, one, *FOCUS[kind]) + (1 - share) * binary_loss(logits, other, *FOCUS[kind])
    torch.testing.assert_close(mixed, apart)


@every_loss
def test_smoothing_moves_targets_to_a_half(kind):
    wanted = drawn(8, 5, soft=False)[1]
    logits = 6 * wanted - 3  # all of them right, so that smoothing costs something
    smooth = build_loss(Recipe(loss=kind, smoothing=0.2), NONE, multi_label=True, device=CPU)
    plain = build_loss(Recipe(loss=kind), NONE, multi_label=True, device=CPU)
    assert smooth(logits, wanted) == pytest.approx(plain(logits, 0.8 * wanted + 0.1).item())
    assert smooth(logits, wanted) > 1.5 * plain(logits, wanted)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [20.0, 200.0, 1e4, 1e30])
def test_extreme_logits_are_finite(kind, dtype, size):
    logits = torch.tensor([[size, -size, size, -size, size]], dtype=dtype).requires_grad_()
    wanted = torch.tensor([[1.0, 0.0, 0.0, 1.0, 0.5]])
    loss = binary_loss(logits, wanted, *FOCUS[kind])
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()
    assert loss[0, :2].sum() < 1e-6  # what is right costs nothing
    assert loss[0, 3].item() == pytest.approx(size, rel=1e-2)
    assert logits.grad[0, 3].item() == pytest.approx(-1, rel=1e-2)  # a confident mistake still has a gradient


# ---- weights


def labels(*counts, patches):
    out = np.zeros((patches, len(counts)), np.uint8)
    for column, count in enumerate(counts):
        out[:count, column] = 1
    return out


def test_positive_weights_by_hand():
    targets = labels(50, 20, 1, 0, 100, patches=100)
    # 50/50, 80/20, 99/1 cut to 20; never seen: 1; always seen: the least
    assert positive_weights(targets, 1.0).tolist() == pytest.approx([1, 4, 20, 1, 0.05])
    assert positive_weights(targets, 0.5).tolist() == pytest.approx([1, 2, math.sqrt(99), 1, 0.05])
    assert positive_weights(targets, 0.0).tolist() == pytest.approx([1, 1, 1, 1, 1])
    # β = 0.5 of 2 and 1 patches: (1 − 0.25) / 0.5 = 1.5 and 1
    assert positive_weights(labels(1, 2, patches=3), 1.0, 0.5).tolist() == pytest.approx([1.5, 1 / 1.5])


def test_class_weights_by_hand():
    targets = np.eye(4, dtype=np.uint8)[[0] * 6 + [1] * 3 + [2]]  # 6, 3, 1 and no patch
    # 1/6, 1/3, 1 over their mean over patches, (6/6 + 3/3 + 1/1) / 10 = 0.3
    assert class_weights(targets, 1.0).tolist() == pytest.approx([1 / 1.8, 1 / 0.9, 1 / 0.3, 1])
    numbers = [(1 - 0.9**n) / 0.1 for n in (6, 3, 1)]
    raw = np.array([1 / n for n in numbers])
    mean = (raw * [6, 3, 1]).sum() / 10
    assert class_weights(targets, 1.0, 0.9).tolist() == pytest.approx([*(raw / mean), 1])


@given(
    st.lists(st.integers(1, 400), min_size=2, max_size=6), st.floats(0.1, 1), st.sampled_from([0.0, 0.9, 0.999, 1.0])
)
@settings(max_examples=40, deadline=None)
def test_rarer_weighs_no_less(counts, power, beta):
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


def test_weights_reach_the_losses():
    targets = labels(20, 50, patches=100)
    logits, wanted = torch.zeros(4, 2), torch.tensor([[1.0, 0.0]]).expand(4, 2)
    loss = build_loss(Recipe(balance=1.0), targets, multi_label=True, device=CPU)
    assert loss(logits, wanted).item() == pytest.approx(math.log(2) * (4 + 1) / 2)
    single = np.eye(2, dtype=np.uint8)[[0] * 30 + [1] * 10]  # weights 2/3 and 2
    weighted = build_loss(Recipe(balance=1.0), single, multi_label=False, device=CPU)
    assert weighted(logits, wanted).item() == pytest.approx(math.log(2) * 2 / 3)
    mean = weighted(torch.zeros(40, 2), torch.tensor(single, dtype=torch.float32))
    assert mean.item() == pytest.approx(math.log(2))  # over the split the loss keeps its size


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_single_label_is_cross_entropy(smoothing):
    logits, _ = drawn(6, 4)
    loss = build_loss(Recipe(smoothing=smoothing), NONE, multi_label=False, device=CPU)
    one_hot = F.one_hot(torch.tensor([0, 1, 2, 3, 0, 1]), 4).double()
    expected = F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 0, 1]), label_smoothing=smoothing)
    assert loss(logits, one_hot).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("multi_label", [True, False])
def test_members_that_learn_side_by_side(multi_label):
    """Logits (n, members, C): the loss is the mean of the members' losses."""
    logits, _ = drawn(6, 3, 4)
    wanted = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0, 1]]
    targets = np.eye(4, dtype=np.uint8)[[0, 0, 0, 1, 2, 3]]
    loss = build_loss(Recipe(balance=1.0), targets, multi_label=multi_label, device=CPU)
    together = loss(logits, wanted[:, None].expand_as(logits))
    apart = torch.stack([loss(logits[:, k], wanted) for k in range(3)]).mean()
    torch.testing.assert_close(together, apart)


def test_a_loss_registered_elsewhere_trains_by_its_name(tmp_path, capsys, monkeypatch):
    """One function and one decorator; the recipe, the flag and the run need no other change."""
    monkeypatch.setattr("landscale.training.losses.LOSSES", dict(LOSSES))
    calls = []

    @register_loss("squared")
    def squared_loss(logits, targets, *, weight=None):
        calls.append(weight)
        return (logits.float().sigmoid() - targets) ** 2

    with pytest.raises(ValueError, match="'squared' is registered already"):
        register_loss("squared")(squared_loss)
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, signal=4.0)
    words = ["train", f"--store={store.path}", f"--run={tmp_path / 'run'}", "--json", "--loss=squared", "--epochs=8"]
    words += ["--model=wide_resnet", '--options={"width": 0.5}', "--bands=B02,B03,B04,B08", "--side=12", "--batch=8"]
    assert main([*words, "--rate=1e-2", "--precision=fp32", "--balance=0.5"]) == 0
    assert len(calls) == 64
    assert calls[0].shape == (4,)
    assert json.loads(capsys.readouterr().out)["scores"]["micro_ap"] > 0.9
    assert "loss: squared" in (tmp_path / "run" / "recipe.yaml").read_text()


def test_beta_without_balance_is_refused():
    with pytest.raises(LandscaleError, match=r"--balance-beta: found 0\.99 without --balance"):
        build_loss(Recipe(balance_beta=0.99), NONE, multi_label=True, device=CPU)
    with pytest.raises(LandscaleError, match="0 to 1"):
        load_recipe(None, ["--balance", "1", "--balance-beta", "1.5"])
    recipe = load_recipe(None, ["--balance", "1", "--balance-beta", "0.99"])
    assert recipe == replace(Recipe(), balance=1.0, balance_beta=0.99)


@pytest.mark.parametrize("multi_label,loss", [(True, "focal"), (True, "asymmetric"), (False, "bce")])
def test_each_learns_through_the_command(tmp_path, capsys, multi_label, loss):
    make_store(
        tmp_path / "s.h5", planes=rgbn_plane(12), splits={"train": 64, "val": 32}, multi_label=multi_label, signal=4.0
    )
    words = ["train", f"--store={tmp_path / 's.h5'}", f"--run={tmp_path / 'run'}", "--json", f"--loss={loss}"]
    words += ["--model=wide_resnet", '--options={"width": 0.5}', "--bands=B02,B03,B04,B08", "--side=12", "--epochs=8"]
    words += ["--batch=8", "--rate=1e-2", "--balance=0.5", "--balance-beta=0.999", "--mixup=0.2", "--precision=fp32"]
    assert main(words) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["micro_ap" if multi_label else "accuracy"] > 0.9
    assert load_model(tmp_path / "run").description.multi_label == multi_label
