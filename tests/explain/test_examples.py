"""Which patches are chosen, and the orders in which the deletion test removes pixels."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscale.explain.deletion import ORDERS, _ranks
from landscale.explain.examples import PICKS, choose_examples, decisions

P = np.array([[0.9, 0.1], [0.8, 0.9], [0.7, 0.2], [0.1, 0.9], [0.2, 0.3]], np.float32)
T = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [1, 0]], bool)


def test_the_most_confident_of_each_kind() -> None:
    found = decisions(P, [0.5, 0.5], multi_label=True)
    chosen = choose_examples(P, T, found, [0, 1], 1, "confident", 0)
    assert [(e.place, e.wanted, e.kind) for e in chosen] == [
        (0, 0, "true positive"),
        (1, 0, "false positive"),
        (3, 0, "false negative"),
        (1, 1, "true positive"),
        (3, 1, "false positive"),
        (2, 1, "false negative"),
    ]


def test_decisions_follow_thresholds_or_the_highest_probability() -> None:
    assert decisions(P, [0.85, 0.25], multi_label=True).tolist()[2:] == [[False, False], [False, True], [False, True]]
    assert decisions(P, (), multi_label=True)[:, 0].tolist() == [True, True, True, False, False]
    assert decisions(P, (), multi_label=False)[:, 1].tolist() == [False, True, False, True, True]


@given(st.integers(0, 40), st.integers(0, 3), st.sampled_from(PICKS), st.integers(0, 5))
def test_each_example_is_of_its_kind(n: int, patches: int, pick: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, t = rng.random((n, 3)).astype(np.float32), rng.random((n, 3)) > 0.5
    found = decisions(p, (), multi_label=True)
    chosen = choose_examples(p, t, found, [0, 2], patches, pick, seed)  # type: ignore[arg-type]
    assert chosen == choose_examples(p, t, found, [0, 2], patches, pick, seed)  # type: ignore[arg-type]
    assert len({(e.place, e.wanted) for e in chosen}) == len(chosen)
    for c in (0, 2):
        for kind, members in (
            ("true positive", t & found),
            ("false positive", ~t & found),
            ("false negative", t & ~found),
        ):
            own = [e for e in chosen if (e.wanted, e.kind) == (c, kind)]
            assert len(own) == min(patches, int(members[:, c].sum()))
            assert all(members[e.place, c] and e.probability == p[e.place, c] for e in own)


def test_every_order_removes_each_pixel_once_and_marked_the_hottest_first() -> None:
    heat = torch.zeros(8, 8)
    heat[1:3, 2:4] = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    for order in ORDERS:
        ranks = _ranks(heat, order, np.random.default_rng(0))
        assert sorted(ranks.flatten().tolist()) == list(range(64))
        first = {tuple(place) for place in (ranks < 4).nonzero().tolist()}
        assert (first == {(1, 2), (1, 3), (2, 2), (2, 3)}) == (order == "marked")
        if order == "moved":
            where = (ranks < 4).nonzero()
            assert all(len({int(v) for v in where[:, axis]}) == 2 for axis in (0, 1))  # still a square
