"""What more ranks cost, by a model with few numbers: its laws, its fit and paper 1's points."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.models.registry import create
from landscale.studies.rank_scaling.cost_model import (
    BUCKET_BYTES,
    JUWELS,
    SEDONA_GRADIENT_BYTES,
    Cluster,
    Link,
    StepCost,
    all_reduce_seconds,
    exposed_seconds,
    fit_step_cost,
    measured_cluster,
    ring_seconds,
    tree_seconds,
)

LINKS = st.builds(Link, st.floats(1e6, 1e12), st.floats(0, 1e-2))
MACHINES = st.builds(Cluster, st.integers(1, 16), LINKS, LINKS)
SIZES, RANKS = st.floats(1, 1e10), st.integers(1, 4096)


def faster(link, times):
    return replace(link, bandwidth=link.bandwidth * times)


@given(SIZES, MACHINES, st.floats(0, 10))
def test_one_rank_does_not_talk(size, machine, hiding):
    assert all_reduce_seconds(size, 1, machine) == exposed_seconds(size, 1, machine, hiding) == 0
    assert StepCost(0.3, 2.0).step_seconds(size, 1, machine) == 0.3


@given(SIZES, RANKS, MACHINES, st.floats(1, 100), st.floats(0, 10))
def test_better_links_are_never_slower(size, ranks, machine, times, hiding):
    wide = replace(machine, inside=faster(machine.inside, times), between=faster(machine.between, times))
    prompt = replace(machine, between=replace(machine.between, latency=machine.between.latency / times))
    for better in (wide, prompt):
        assert exposed_seconds(size, ranks, better, hiding) <= exposed_seconds(size, ranks, machine, hiding) * (
            1 + 1e-9
        )


@given(SIZES, SIZES, RANKS, MACHINES, st.floats(0, 10), st.floats(0, 10))
def test_more_bytes_are_never_faster_and_more_overlap_never_slower(size, more, ranks, machine, hiding, longer):
    wait = exposed_seconds(size, ranks, machine, hiding)
    assert exposed_seconds(size + more, ranks, machine, hiding) >= wait * (1 - 1e-9)
    assert exposed_seconds(size, ranks, machine, hiding + longer) <= wait
    assert wait >= all_reduce_seconds(min(size, BUCKET_BYTES), ranks, machine)  # the last bucket hides behind nothing


@given(SIZES, st.integers(2, 4096), LINKS)
def test_a_ring_is_what_its_paper_says(size, ranks, link):
    sent = 2 * (ranks - 1) / ranks * size
    assert ring_seconds(size, ranks, link) == pytest.approx(sent / link.bandwidth + 2 * (ranks - 1) * link.latency)
    assert ring_seconds(size, ranks, replace(link, latency=0)) < tree_seconds(size, ranks, replace(link, latency=0))
    one = Cluster(ranks, link, Link(1.0, 1.0))  # between the nodes of one node nothing is sent
    assert all_reduce_seconds(size, ranks, one) == ring_seconds(size, ranks, link)


@given(SIZES, st.integers(2, 64), LINKS)
def test_a_measured_machine_costs_what_was_measured(size, ranks, link):
    small, large = ring_seconds(0, ranks, link), ring_seconds(size, ranks, link)
    machine = measured_cluster(small, large, size, ranks)
    assert all_reduce_seconds(size, ranks, machine) == pytest.approx(max(large, small + 1e-9), rel=1e-6)


@given(
    st.floats(1e-3, 10),
    st.floats(0, 3),
    st.lists(st.sampled_from([1, 2, 4, 8, 32]), min_size=2, max_size=5, unique=True),
)
def test_a_fit_finds_what_made_the_times(compute, factor, ranks):
    size = BUCKET_BYTES  # one bucket, so that nothing hides
    truth = StepCost(compute, factor)
    times = {k: truth.epoch_seconds(10**6, 64, size, k, JUWELS) for k in ranks}
    found = fit_step_cost(times, 10**6, 64, size, JUWELS)
    for k, seconds in times.items():
        assert found.epoch_seconds(10**6, 64, size, k, JUWELS) == pytest.approx(seconds, rel=1e-6)
    assert found.compute == pytest.approx(compute, rel=1e-3)


@given(st.floats(0.5, 0.999))
def test_times_that_fall_faster_than_the_ranks_grow(share):
    """Communication is no gain: it is 0, and the prediction lies between the two points' own."""
    found = fit_step_cost({4: 100.0, 8: 50.0 * share}, 10**5, 64, SEDONA_GRADIENT_BYTES, JUWELS)
    assert found.communication_factor == 0
    assert 25.0 * share <= found.epoch_seconds(10**5, 64, SEDONA_GRADIENT_BYTES, 16, JUWELS) <= 25.0


def test_the_gradients_are_those_of_paper_1():
    network = create("resnet50", 12, 43)
    assert 4 * sum(p.numel() for p in network.parameters()) == pytest.approx(SEDONA_GRADIENT_BYTES, rel=1e-3)
