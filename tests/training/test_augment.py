"""Augmentation: only the enabled changes, geometry the same in all bands, labels mixed in proportion to the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.training.augmentation import Augmentation, augmentation_at
from landscale.training.recipe import Recipe
from symmetries import symmetries

DISABLED = {"turns": False, "shift": 0, "zoom": 0.0, "jitter": 0.0, "mixup": 0.0, "cutmix": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augmentation(**changes):
    return Augmentation(**{**DISABLED, **changes})


def patches(n, bands, side, seed=0):
    return torch.randn(n, bands, side, side, generator=generator(seed))


def targets(n, classes=5, seed=0):
    return (torch.rand(n, classes, generator=generator(seed)) < 0.4).float()


def test_disabled_augmentation_returns_the_batch_unchanged():
    values, labels = patches(4, 3, 8), targets(4)
    out, new_targets = augmentation()(values, labels, generator())
    assert torch.equal(out, values)
    assert torch.equal(new_targets, labels)


def test_turns_draw_all_eight_symmetries_evenly_and_the_same_for_all_bands():
    n = 1600
    base = torch.arange(25.0).reshape(5, 5)
    values = torch.stack([base, 100 - 2 * base, base**2]).expand(n, 3, 5, 5)
    out, new_targets = augmentation(turns=True)(values, targets(n), generator(3))
    number_of = {s.tobytes(): k for k, s in enumerate(symmetries(base.numpy()))}
    drawn = np.array([number_of[image.numpy().tobytes()] for image in out[:, 0].contiguous()])
    counts = np.bincount(drawn, minlength=8)
    assert len(counts) == 8
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3  # χ² of 7 degrees of freedom, p = 0.001
    assert torch.equal(out[:, 1], 100 - 2 * out[:, 0])
    assert torch.equal(out[:, 2], out[:, 0] ** 2)
    assert torch.equal(new_targets, targets(n))


@pytest.mark.parametrize("limit", [1, 3, 7])  # 8 px can be mirrored by at most 7
def test_shift_moves_by_whole_pixels_and_mirrors_the_border(limit):
    n, side = 300, 8
    values = patches(n, 2, side)
    values[:, 1] = -values[:, 0]
    out, new_targets = augmentation(shift=limit)(values, targets(n), generator(1))
    padded = np.pad(values[:, 0].numpy(), ((0, 0), (limit, limit), (limit, limit)), mode="reflect")
    moves = set()
    for i in range(n):
        fits = [
            (y, x)
            for y in range(2 * limit + 1)
            for x in range(2 * limit + 1)
            if np.array_equal(out[i, 0].numpy(), padded[i, y : y + side, x : x + side])
        ]
        assert fits
        if len(fits) == 1:  # shifts to both ends of an axis may give the same pixels
            moves.add(fits[0])
    if limit < 7:
        assert {y for y, _ in moves} == {x for _, x in moves} == set(range(2 * limit + 1))  # every shift, both axes
    if limit == 1:
        assert len(moves) == 9
    assert torch.equal(out[:, 1], -out[:, 0])
    assert torch.equal(new_targets, targets(n))


def test_zoom_enlarges_a_window_inside_the_patch():
    """A zoomed ramp is a ramp: its slope gives the size of the window, its middle the position of the window."""
    n, side, limit = 400, 16, 0.4
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    values = torch.stack([y, x, 2 * x - y]).expand(n, 3, side, side)
    out, new_targets = augmentation(zoom=limit)(values, targets(n), generator(5))
    inner = out[:, :, 2:-2, 2:-2]
    slope = inner[:, 0, 1:] - inner[:, 0, :-1]
    size = slope.mean((1, 2))
    assert (slope - size[:, None, None]).abs().max() < 1e-4
    assert torch.allclose(inner[:, 1, :, 1:] - inner[:, 1, :, :-1], size[:, None, None].expand(n, 12, 11), atol=1e-4)
    assert torch.allclose(inner[:, 2], 2 * inner[:, 1] - inner[:, 0], atol=1e-4)  # the same window in all bands
    assert 1 - limit - 1e-4 <= size.min() < 1 - 0.9 * limit
    assert 1 - 0.1 * limit < size.max() <= 1 + 1e-4
    for axis in (0, 1):
        middle = inner[:, axis].mean((1, 2)) + 0.5
        largest_offset = side * (1 - size) / 2  # from the middle of the patch
        assert ((middle - side / 2).abs() <= largest_offset + 1e-3).all()
        assert ((middle - side / 2) / largest_offset)[largest_offset > 0.5].abs().max() > 0.95
    assert abs(np.corrcoef(inner[:, 0].mean((1, 2)), inner[:, 1].mean((1, 2)))[0, 1]) < 0.2  # independent axes
    assert out.amax((0, 2, 3))[:2].max() <= 15
    assert torch.equal(new_targets, targets(n))


def test_jitter_applies_a_normal_gain_and_offset_to_each_band_of_each_patch():
    values = patches(400, 3, 6)
    out, new_targets = augmentation(jitter=0.1)(values, targets(400), generator(2))
    x, y = values.flatten(2), out.flatten(2)
    gain = (y[..., -1] - y[..., 0]) / (x[..., -1] - x[..., 0])
    offset = y[..., 0] - gain * x[..., 0]
    assert torch.allclose(gain[..., None] * x + offset[..., None], y, atol=1e-2)
    distinct = (x[..., -1] - x[..., 0]).abs() > 0.5  # here the quotient is exact enough
    for drawn, centre in ((gain[distinct], 1.0), (offset[distinct], 0.0)):
        assert abs(drawn.mean() - centre) < 0.02
        assert abs(drawn.std() - 0.1) < 0.02
    assert len(gain[distinct].round(decimals=4).unique()) > 100
    assert torch.equal(new_targets, targets(400))


def test_jitter_differs_between_the_bands_of_one_patch():
    """Each band has its own gain and offset; a common one for all bands of the patch would keep the ratio of the bands."""
    values = patches(1, 6, 4).abs() + 1
    out, _ = augmentation(jitter=0.2)(values, targets(1), generator(4))
    gains = (out[0, :, 0, 1] - out[0, :, 0, 0]) / (values[0, :, 0, 1] - values[0, :, 0, 0])
    offsets = out[0, :, 0, 0] - gains * values[0, :, 0, 0]
    for drawn in (gains, offsets):
        assert len(drawn.round(decimals=3).unique()) == 6
        assert drawn.std() > 0.05


def constant_patches(n, side=12):
    """Patches whose pixels identify them: patch i is i in the first band, i² in the second, and has class i."""
    level = torch.arange(n, dtype=torch.float32)
    values = torch.stack([level, level**2], 1)[:, :, None, None].expand(n, 2, side, side).contiguous()
    return values, torch.eye(n)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.05, 0.2, 1.0, 4.0]), n=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_mixup_blends_labels_and_pixels_with_the_same_weights(seed, alpha, n):
    values, labels = constant_patches(n)
    out, new_targets = augmentation(mixup=alpha)(values, labels, generator(seed))
    level = torch.arange(n, dtype=torch.float32)
    assert torch.allclose(new_targets.sum(1), torch.ones(n), atol=1e-5)
    assert (new_targets >= 0).all()
    assert ((new_targets > 0).sum(1) <= 2).all()  # at most two patches are blended
    assert torch.allclose(out[:, 0], (new_targets @ level)[:, None, None].expand(n, 12, 12), atol=1e-4)
    assert torch.allclose(out[:, 1], (new_targets @ level**2)[:, None, None].expand(n, 12, 12), atol=1e-3)


def test_mixup_weights_have_the_moments_of_the_beta_distribution():
    values, labels = constant_patches(4000, 1)
    _, new_targets = augmentation(mixup=0.4)(values, labels, generator(0))
    own_weight = new_targets.diagonal().numpy()
    assert abs(own_weight.mean() - 0.5) < 0.02
    assert abs(own_weight.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # variance of Beta(α, α)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.2, 1.0, 4.0]), n=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_cutmix_pastes_rectangles_and_weights_labels_by_their_area(seed, alpha, n):
    values, labels = constant_patches(n)
    out, new_targets = augmentation(cutmix=alpha)(values, labels, generator(seed))
    for i in range(n):
        for j in range(n):
            fraction = float((out[i, 0] == j).float().mean())
            assert new_targets[i, j] == pytest.approx(fraction, abs=1e-6)
        pasted_pixels = (out[i, 0] != i).numpy()
        if pasted_pixels.any():  # the pasted pixels fill a rectangle
            rows, columns = np.flatnonzero(pasted_pixels.any(1)), np.flatnonzero(pasted_pixels.any(0))
            assert pasted_pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert pasted_pixels.sum() == len(rows) * len(columns)
    assert torch.equal(out[:, 1], out[:, 0] ** 2)


def test_cutmix_can_replace_every_pixel():
    values, labels = constant_patches(6, 8)
    times_pasted = torch.zeros(8, 8)
    for seed in range(200):
        out, _ = augmentation(cutmix=1.0)(values, labels, generator(seed))
        times_pasted += (out[:, 0] != torch.arange(6.0)[:, None, None]).any(0)
    assert (times_pasted > 5).all()


def test_with_mixup_and_cutmix_enabled_each_batch_gets_one_of_them():
    cutmix_batches = mixup_batches = 0
    for seed in range(60):
        values, labels = constant_patches(6)
        out, _ = augmentation(mixup=1.0, cutmix=1.0)(values, labels, generator(seed))
        unblended = (out[:, 0] == out[:, 0].round()).all()
        uniform = (out[:, 0].flatten(1).std(1) == 0).all()
        assert unblended or uniform
        cutmix_batches += int(unblended and not uniform)
        mixup_batches += int(uniform and not unblended)
    assert cutmix_batches > 15
    assert mixup_batches > 15


@pytest.mark.parametrize(
    "changes",
    [
        {"turns": True},
        {"shift": 3},
        {"zoom": 0.3},
        {"jitter": 0.2},
        {"mixup": 0.3},
        {"cutmix": 0.7},
        {"turns": True, "shift": 2, "zoom": 0.2, "jitter": 0.1, "mixup": 0.4, "cutmix": 0.4},
    ],
    ids=str,
)
def test_the_given_generator_determines_all_changes(changes):
    augment = augmentation(**changes)
    values, labels = patches(16, 3, 10), targets(16)
    original = values.clone(), labels.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = augment(values, labels, generator(7))
    assert torch.equal(torch.get_rng_state(), state)  # torch's global generator is not used
    torch.manual_seed(2)
    again = augment(values, labels, generator(7))
    other = augment(values, labels, generator(8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(values, original[0])  # the input tensors are not modified
    assert torch.equal(labels, original[1])
    mixing = "mixup" in changes or "cutmix" in changes
    assert torch.equal(first[1], labels) != mixing
    assert first[0].shape == values.shape
    assert first[1].dtype == torch.float32


def test_the_default_augmentation_is_turns_only():
    values, labels = patches(64, 1, 5), targets(64)
    out, new_targets = Augmentation()(values, labels, generator(0))
    assert torch.equal(new_targets, labels)
    for image, before in zip(out[:, 0].contiguous(), values[:, 0], strict=True):
        assert image.numpy().tobytes() in {s.tobytes() for s in symmetries(before.numpy())}


STRONG = {"zoom": 0.3, "jitter": 0.1, "drop_bands": 0.2, "mixup": 0.4, "cutmix": 0.5}


def test_only_turns_and_shift_remain_after_augment_until():
    recipe = Recipe(turns=True, shift=2, augment_until=0.75, **STRONG)
    assert augmentation_at(recipe, 0.0) == augmentation_at(recipe, 0.7499) == Augmentation(shift=2, **STRONG)
    assert augmentation_at(recipe, 0.75) == augmentation_at(recipe, 0.99) == Augmentation(shift=2)
    assert augmentation_at(Recipe(turns=False, augment_until=0.0, **STRONG), 0.0) == Augmentation(turns=False)


def test_by_default_the_augmentation_lasts_to_the_end():
    assert augmentation_at(Recipe(**STRONG), 0.9999) == Augmentation(**STRONG)
