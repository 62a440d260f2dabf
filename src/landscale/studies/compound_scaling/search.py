"""Which networks a search at φ = 1 tries, and which sizes its best one gives."""

from __future__ import annotations

from collections.abc import Sequence

from landscale.errors import LandscaleError
from landscale.models.compound import Scaling, candidates
from landscale.runtime.progress import progress_bar
from landscale.studies.compound_scaling.networks import Base, Network

TOLERANCE = 0.15  # of the budget; an input side in steps of 10 px changes FLOPs by up to a third
NOMINAL = 0.25  # how far α·β²·γ² may be from what was asked for; rounding has to make up for the rest
AXES = ("depth", "width", "resolution")


def search(base: Base, flops: float, step: float) -> list[Network]:
    """The networks at φ = 1: all of the grid whose FLOPs, after rounding, are those asked for, ± 15%.

    Several (α, β, γ) may round to one network. It counts once, at that of them whose α·β²·γ² is nearest to the budget
    in multiples of the unscaled network, since the powers of that one meet the larger budgets best.

    Args:
        flops: of the forward pass of one patch.
        step: of the grid on which α, β and γ lie, from 1 up.

    Raises:
        LandscaleError: no network meets the budget.
    """
    cost = flops / base.unscaled.flops
    if cost <= 1:
        raise LandscaleError(f"--flops: found {flops:.4g}, expected more than the {base.unscaled.flops:.4g} unscaled")
    grid = sorted(candidates(cost, NOMINAL * cost, step), key=lambda s: abs(s.cost - cost))
    found: dict[tuple[int, int, int], Network] = {}
    with progress_bar("candidates", len(grid), "scalings") as advance:
        for scaling in grid:
            network = base.network(scaling)
            found.setdefault(network.key, network)
            advance(1)
    fit = [network for network in found.values() if abs(network.flops - flops) <= TOLERANCE * flops]
    if not fit:
        near = sorted(found.values(), key=lambda network: abs(network.flops - flops))[:1]
        nearest = f"the nearest has {near[0].flops:.4g}; " if near else ""
        raise LandscaleError(
            f"--flops: no network of {flops:.4g} ± {TOLERANCE:.0%} on a grid of {step:g}; {nearest}"
            "try a smaller --step or another --flops"
        )
    return sorted(fit, key=lambda n: (n.scaling.depth, n.scaling.width, n.scaling.resolution))


def compound(base: Base, best: Scaling, phi: float) -> Network:
    """(α^φ, β^φ, γ^φ), to four digits, as it is written down."""
    power = best.power(phi)
    return base.network(Scaling(*(round(value, 4) for value in (power.depth, power.width, power.resolution))))


def along(base: Base, axis: str, flops: int, step: float) -> Network:
    """Scaled in one of `AXES` only: the network of that axis whose FLOPs are nearest to `flops`."""
    most = 2 * flops / base.unscaled.flops  # depth costs its factor, the others its square
    nearest = base.unscaled
    factor = 1.0
    while factor < most and base.network(Scaling(**{axis: factor})).flops < flops:
        factor = round(factor + step, 10)
        network = base.network(Scaling(**{axis: factor}))
        if abs(network.flops - flops) < abs(nearest.flops - flops):
            nearest = network
    return nearest


def sizes(base: Base, best: Scaling, phis: Sequence[float], step: float) -> list[tuple[float, str, Network]]:
    """(φ, axis, network): for each φ the compound network, and each axis alone at the same FLOPs."""
    rows: list[tuple[float, str, Network]] = []
    for phi in phis:
        grown = compound(base, best, phi)
        rows += [(phi, axis, along(base, axis, grown.flops, step)) for axis in AXES]
        rows.append((phi, "compound", grown))
    return rows
