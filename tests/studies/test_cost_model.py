"""The cost model of training on many ranks: its formulas and its fit to measured times."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscale.models.registry import create_model
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
CLUSTERS = st.builds(Cluster, st.integers(1, 16), LINKS, LINKS)
SIZES, RANKS = st.floats(1, 1e10), st.integers(1, 4096)


def with_bandwidth(link, times):
    return replace(link, bandwidth=link.bandwidth * times)


@given(SIZES, CLUSTERS, st.floats(0, 10))
def test_one_rank_does_not_communicate(size, cluster, hiding):
    assert all_reduce_seconds(size, 1, cluster) == exposed_seconds(size, 1, cluster, hiding) == 0
    assert StepCost(0.3, 2.0).step_seconds(size, 1, cluster) == 0.3


@given(SIZES, RANKS, CLUSTERS, st.floats(1, 100), st.floats(0, 10))
def test_better_links_are_never_slower(size, ranks, cluster, times, hiding):
    faster_bandwidth = replace(
        cluster, inside=with_bandwidth(cluster.inside, times), between=with_bandwidth(cluster.between, times)
    )
    lower_latency = replace(cluster, between=replace(cluster.between, latency=cluster.between.latency / times))
    for better in (faster_bandwidth, lower_latency):
        assert exposed_seconds(size, ranks, better, hiding) <= exposed_seconds(size, ranks, cluster, hiding) * (
            1 + 1e-9
        )


@given(SIZES, SIZES, RANKS, CLUSTERS, st.floats(0, 10), st.floats(0, 10))
def test_more_bytes_are_never_faster_and_more_overlap_is_never_slower(size, more, ranks, cluster, hiding, longer):
    wait = exposed_seconds(size, ranks, cluster, hiding)
    assert exposed_seconds(size + more, ranks, cluster, hiding) >= wait * (1 - 1e-9)
    assert exposed_seconds(size, ranks, cluster, hiding + longer) <= wait
    assert wait >= all_reduce_seconds(min(size, BUCKET_BYTES), ranks, cluster)  # no computation hides the last bucket


@given(SIZES, st.integers(2, 4096), LINKS)
def test_ring_matches_the_formula_of_its_paper(size, ranks, link):
    sent = 2 * (ranks - 1) / ranks * size
    assert ring_seconds(size, ranks, link) == pytest.approx(sent / link.bandwidth + 2 * (ranks - 1) * link.latency)
    assert ring_seconds(size, ranks, replace(link, latency=0)) < tree_seconds(size, ranks, replace(link, latency=0))
    one = Cluster(ranks, link, Link(1.0, 1.0))  # with one node, links between nodes are not used
    assert all_reduce_seconds(size, ranks, one) == ring_seconds(size, ranks, link)


@given(SIZES, st.integers(2, 64), LINKS)
def test_measured_cluster_reproduces_both_measurements(size, ranks, link):
    small, large = ring_seconds(0, ranks, link), ring_seconds(size, ranks, link)
    cluster = measured_cluster(small, large, size, ranks)
    assert all_reduce_seconds(size, ranks, cluster) == pytest.approx(max(large, small + 1e-9), rel=1e-6)


@given(
    st.floats(1e-3, 10),
    st.floats(0, 3),
    st.lists(st.sampled_from([1, 2, 4, 8, 32]), min_size=2, max_size=5, unique=True),
)
def test_fit_recovers_the_cost_that_made_the_times(compute, factor, ranks):
    size = BUCKET_BYTES  # one bucket, which no computation hides
    true_cost = StepCost(compute, factor)
    times = {k: true_cost.epoch_seconds(10**6, 64, size, k, JUWELS) for k in ranks}
    fitted = fit_step_cost(times, 10**6, 64, size, JUWELS)
    for k, seconds in times.items():
        assert fitted.epoch_seconds(10**6, 64, size, k, JUWELS) == pytest.approx(seconds, rel=1e-6)
    assert fitted.compute == pytest.approx(compute, rel=1e-3)


@given(st.floats(0.5, 0.999))
def test_communication_is_never_negative(fraction):
    """If times fall faster than the ranks grow, communication is 0, and predictions lie between those of the two points."""
    fitted = fit_step_cost({4: 100.0, 8: 50.0 * fraction}, 10**5, 64, SEDONA_GRADIENT_BYTES, JUWELS)
    assert fitted.communication_factor == 0
    assert 25.0 * fraction <= fitted.epoch_seconds(10**5, 64, SEDONA_GRADIENT_BYTES, 16, JUWELS) <= 25.0


def test_gradient_bytes_are_those_of_the_network_of_sedona_2019():
    network = create_model("resnet50", 12, 43)
    assert 4 * sum(p.numel() for p in network.parameters()) == pytest.approx(SEDONA_GRADIENT_BYTES, rel=1e-3)
