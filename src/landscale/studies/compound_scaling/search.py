"""The candidates of the search at φ = 1, and the network sizes that follow from the best of them."""

from __future__ import annotations

from collections.abc import Sequence

from landscale.errors import LandscaleError
from landscale.models.compound import Scaling, candidates
from landscale.runtime.progress import progress_bar
from landscale.studies.compound_scaling.networks import ScalableNetwork, ScaledNetwork

TOLERANCE = 0.15  # fraction of the budget; an input side in steps of 10 px changes FLOPs by up to a third
NOMINAL_TOLERANCE = 0.25  # fraction by which α·β²·γ² may differ from the budget; rounding accounts for the difference
AXES = ("depth", "width", "resolution")


def search_candidates(base: ScalableNetwork, flops: float, step: float) -> list[ScaledNetwork]:
    """The candidates at φ = 1: all networks of the grid whose FLOPs, after rounding, are within 15 % of `flops`.

    Several (α, β, γ) may round to the same network. It is listed once, with the (α, β, γ) whose α·β²·γ² is nearest to the
    budget in multiples of the unscaled network, because the FLOPs at a larger φ are about that product to the power of φ.

    Args:
        flops: budget for the forward pass of one patch.
        step: distance between the values of α, β and γ in the grid, which starts at 1.

    Raises:
        LandscaleError: no network is near enough to the budget.
    """
    cost = flops / base.unscaled.flops
    if cost <= 1:
        raise LandscaleError(
            f"--flops: found {flops:.4g}, expected more than the unscaled network has, {base.unscaled.flops:.4g}"
        )
    grid = sorted(candidates(cost, NOMINAL_TOLERANCE * cost, step), key=lambda s: abs(s.cost - cost))
    found: dict[tuple[int, int, int], ScaledNetwork] = {}
    with progress_bar("candidates", len(grid), "scalings") as advance:
        for scaling in grid:
            network = base.network(scaling)
            found.setdefault(network.key, network)
            advance(1)
    fit = [network for network in found.values() if abs(network.flops - flops) <= TOLERANCE * flops]
    if not fit:
        near = sorted(found.values(), key=lambda network: abs(network.flops - flops))[:1]
        nearest = f"the nearest network has {near[0].flops:.4g}; " if near else ""
        raise LandscaleError(
            f"--flops: no network within {TOLERANCE:.0%} of {flops:.4g} FLOPs on a grid of step {step:g}; {nearest}"
            "try a smaller --step or another --flops"
        )
    return sorted(fit, key=lambda n: (n.scaling.depth, n.scaling.width, n.scaling.resolution))


def compound_network(base: ScalableNetwork, best: Scaling, phi: float) -> ScaledNetwork:
    """The network at (α^φ, β^φ, γ^φ), each rounded to four digits as in the study's results."""
    power = best.power(phi)
    return base.network(Scaling(*(round(value, 4) for value in (power.depth, power.width, power.resolution))))


def network_along_axis(base: ScalableNetwork, axis: str, flops: int, step: float) -> ScaledNetwork:
    """The network scaled in only one of `AXES` whose FLOPs are nearest to `flops`, on a grid of `step`."""
    most = 2 * flops / base.unscaled.flops  # FLOPs grow at least with the factor of an axis
    nearest = base.unscaled
    factor = 1.0
    while factor < most and base.network(Scaling(**{axis: factor})).flops < flops:
        factor = round(factor + step, 10)
        network = base.network(Scaling(**{axis: factor}))
        if abs(network.flops - flops) < abs(nearest.flops - flops):
            nearest = network
    return nearest


def networks_of_sizes(
    base: ScalableNetwork, best: Scaling, phis: Sequence[float], step: float
) -> list[tuple[float, str, ScaledNetwork]]:
    """Rows of (φ, axis, network): for each φ the compound network, and each axis alone at the same FLOPs."""
    rows: list[tuple[float, str, ScaledNetwork]] = []
    for phi in phis:
        grown = compound_network(base, best, phi)
        rows += [(phi, axis, network_along_axis(base, axis, grown.flops, step)) for axis in AXES]
        rows.append((phi, "compound", grown))
    return rows
