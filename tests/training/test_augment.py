"""Random changes: exactly the ones announced, all bands alike, labels in proportion to the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from landscale.training.augmentation import Augmentation
from symmetries import symmetries

NONE = {"turns": False, "shift": 0, "zoom": 0.0, "jitter": 0.0, "mixup": 0.0, "cutmix": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def augmentation(**changes):
    return Augmentation(**{**NONE, **changes})


def patches(n, bands, side, seed=0):
    return torch.randn(n, bands, side, side, generator=generator(seed))


def targets(n, classes=5, seed=0):
    return (torch.rand(n, classes, generator=generator(seed)) < 0.4).float()


def test_nothing_asked_nothing_done():
    values, labels = patches(4, 3, 8), targets(4)
    out, wanted = augmentation()(values, labels, generator())
    assert torch.equal(out, values)
    assert torch.equal(wanted, labels)


def test_turns_draw_all_eight_evenly_and_turn_bands_together():
    n = 1600
    base = torch.arange(25.0).reshape(5, 5)
    values = torch.stack([base, 100 - 2 * base, base**2]).expand(n, 3, 5, 5)
    out, wanted = augmentation(turns=True)(values, targets(n), generator(3))
    known = {s.tobytes(): k for k, s in enumerate(symmetries(base.numpy()))}
    drawn = np.array([known[image.numpy().tobytes()] for image in out[:, 0].contiguous()])
    counts = np.bincount(drawn, minlength=8)
    assert len(counts) == 8
    assert ((counts - n / 8) ** 2 / (n / 8)).sum() < 24.3  # χ² of 7 degrees of freedom, p = 0.001
    assert torch.equal(out[:, 1], 100 - 2 * out[:, 0])
    assert torch.equal(out[:, 2], out[:, 0] ** 2)
    assert torch.equal(wanted, targets(n))


@pytest.mark.parametrize("most", [1, 3, 7])  # 7 is the most that 8 px can be mirrored by
def test_shift_moves_by_whole_pixels_and_mirrors_the_border(most):
    n, side = 300, 8
    values = patches(n, 2, side)
    values[:, 1] = -values[:, 0]
    out, wanted = augmentation(shift=most)(values, targets(n), generator(1))
    padded = np.pad(values[:, 0].numpy(), ((0, 0), (most, most), (most, most)), mode="reflect")
    moves = set()
    for i in range(n):
        fits = [
            (y, x)
            for y in range(2 * most + 1)
            for x in range(2 * most + 1)
            if np.array_equal(out[i, 0].numpy(), padded[i, y : y + side, x : x + side])
        ]
        assert fits
        if len(fits) == 1:  # a move to the end of an axis may look like the one to its other end
            moves.add(fits[0])
    if most < 7:
        assert {y for y, _ in moves} == {x for _, x in moves} == set(range(2 * most + 1))  # to the ends, both axes
    if most == 1:
        assert len(moves) == 9
    assert torch.equal(out[:, 1], -out[:, 0])
    assert torch.equal(wanted, targets(n))


def test_zoom_enlarges_a_window_inside_the_patch():
    """Of a ramp remains a ramp: its slope tells the window's size, its middle the window's place."""
    n, side, most = 400, 16, 0.4
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    values = torch.stack([y, x, 2 * x - y]).expand(n, 3, side, side)
    out, wanted = augmentation(zoom=most)(values, targets(n), generator(5))
    inner = out[:, :, 2:-2, 2:-2]
    slope = inner[:, 0, 1:] - inner[:, 0, :-1]
    size = slope.mean((1, 2))
    assert (slope - size[:, None, None]).abs().max() < 1e-4
    assert torch.allclose(inner[:, 1, :, 1:] - inner[:, 1, :, :-1], size[:, None, None].expand(n, 12, 11), atol=1e-4)
    assert torch.allclose(inner[:, 2], 2 * inner[:, 1] - inner[:, 0], atol=1e-4)  # bands together
    assert 1 - most - 1e-4 <= size.min() < 1 - 0.9 * most
    assert 1 - 0.1 * most < size.max() <= 1 + 1e-4
    for axis in (0, 1):
        middle = inner[:, axis].mean((1, 2)) + 0.5
        room = side * (1 - size) / 2  # how far a window may lie from the middle
        assert ((middle - side / 2).abs() <= room + 1e-3).all()
        assert ((middle - side / 2) / room)[room > 0.5].abs().max() > 0.95
    assert abs(np.corrcoef(inner[:, 0].mean((1, 2)), inner[:, 1].mean((1, 2)))[0, 1]) < 0.2  # the axes on their own
    assert out.amax((0, 2, 3))[:2].max() <= 15
    assert torch.equal(wanted, targets(n))


def test_jitter_is_a_gain_and_an_offset_for_each_patch_and_band():
    values = patches(400, 3, 6)
    out, wanted = augmentation(jitter=0.1)(values, targets(400), generator(2))
    x, y = values.flatten(2), out.flatten(2)
    gain = (y[..., -1] - y[..., 0]) / (x[..., -1] - x[..., 0])
    offset = y[..., 0] - gain * x[..., 0]
    assert torch.allclose(gain[..., None] * x + offset[..., None], y, atol=1e-2)
    apart = (x[..., -1] - x[..., 0]).abs() > 0.5  # where the quotient is exact enough
    for drawn, centre in ((gain[apart], 1.0), (offset[apart], 0.0)):
        assert abs(drawn.mean() - centre) < 0.02
        assert abs(drawn.std() - 0.1) < 0.02
    assert len(gain[apart].round(decimals=4).unique()) > 100
    assert torch.equal(wanted, targets(400))


def test_jitter_is_drawn_for_each_band():
    """Of one patch, every band has its own gain and offset; one for the whole patch would keep the bands' ratio."""
    values = patches(1, 6, 4).abs() + 1
    out, _ = augmentation(jitter=0.2)(values, targets(1), generator(4))
    gains = (out[0, :, 0, 1] - out[0, :, 0, 0]) / (values[0, :, 0, 1] - values[0, :, 0, 0])
    offsets = out[0, :, 0, 0] - gains * values[0, :, 0, 0]
    for drawn in (gains, offsets):
        assert len(drawn.round(decimals=3).unique()) == 6
        assert drawn.std() > 0.05


def constants(n, side=12):
    """Patch i is i everywhere in one band and i² in another, and its target is class i."""
    level = torch.arange(n, dtype=torch.float32)
    values = torch.stack([level, level**2], 1)[:, :, None, None].expand(n, 2, side, side).contiguous()
    return values, torch.eye(n)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.05, 0.2, 1.0, 4.0]), n=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_mixup_blends_labels_as_it_blends_pixels(seed, alpha, n):
    values, labels = constants(n)
    out, wanted = augmentation(mixup=alpha)(values, labels, generator(seed))
    level = torch.arange(n, dtype=torch.float32)
    assert torch.allclose(wanted.sum(1), torch.ones(n), atol=1e-5)
    assert (wanted >= 0).all()
    assert ((wanted > 0).sum(1) <= 2).all()  # a patch and one other
    assert torch.allclose(out[:, 0], (wanted @ level)[:, None, None].expand(n, 12, 12), atol=1e-4)
    assert torch.allclose(out[:, 1], (wanted @ level**2)[:, None, None].expand(n, 12, 12), atol=1e-3)


def test_mixup_draws_from_the_beta_distribution():
    values, labels = constants(4000, 1)
    _, wanted = augmentation(mixup=0.4)(values, labels, generator(0))
    own = wanted.diagonal().numpy()
    assert abs(own.mean() - 0.5) < 0.02
    assert abs(own.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # of Beta(α, α)


@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.2, 1.0, 4.0]), n=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_cutmix_pastes_rectangles_and_counts_their_ground(seed, alpha, n):
    values, labels = constants(n)
    out, wanted = augmentation(cutmix=alpha)(values, labels, generator(seed))
    for i in range(n):
        for j in range(n):
            share = float((out[i, 0] == j).float().mean())
            assert wanted[i, j] == pytest.approx(share, abs=1e-6)
        strange = (out[i, 0] != i).numpy()
        if strange.any():  # what is foreign fills a rectangle
            rows, columns = np.flatnonzero(strange.any(1)), np.flatnonzero(strange.any(0))
            assert strange[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert strange.sum() == len(rows) * len(columns)
    assert torch.equal(out[:, 1], out[:, 0] ** 2)


def test_cutmix_reaches_every_pixel():
    values, labels = constants(6, 8)
    foreign = torch.zeros(8, 8)
    for seed in range(200):
        out, _ = augmentation(cutmix=1.0)(values, labels, generator(seed))
        foreign += (out[:, 0] != torch.arange(6.0)[:, None, None]).any(0)
    assert (foreign > 5).all()


def test_with_both_each_batch_gets_one():
    pasted = mixed = 0
    for seed in range(60):
        values, labels = constants(6)
        out, _ = augmentation(mixup=1.0, cutmix=1.0)(values, labels, generator(seed))
        whole = (out[:, 0] == out[:, 0].round()).all()
        even = (out[:, 0].flatten(1).std(1) == 0).all()
        assert whole or even
        pasted += int(whole and not even)
        mixed += int(even and not whole)
    assert pasted > 15
    assert mixed > 15


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
def test_the_generator_decides_everything(changes):
    change = augmentation(**changes)
    values, labels = patches(16, 3, 10), targets(16)
    kept = values.clone(), labels.clone()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = change(values, labels, generator(7))
    assert torch.equal(torch.get_rng_state(), state)  # the global one, dropout's, is not drawn from
    torch.manual_seed(2)
    again = change(values, labels, generator(7))
    other = change(values, labels, generator(8))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(values, kept[0])  # the batch's memory is not written to
    assert torch.equal(labels, kept[1])
    mixing = "mixup" in changes or "cutmix" in changes
    assert torch.equal(first[1], labels) != mixing
    assert first[0].shape == values.shape
    assert first[1].dtype == torch.float32


def test_the_default_is_turns_alone():
    values, labels = patches(64, 1, 5), targets(64)
    out, wanted = Augmentation()(values, labels, generator(0))
    assert torch.equal(wanted, labels)
    for image, before in zip(out[:, 0].contiguous(), values[:, 0], strict=True):
        assert image.numpy().tobytes() in {s.tobytes() for s in symmetries(before.numpy())}
