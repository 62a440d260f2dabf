"""DSen2's networks: their receptive field, and that untrained ones interpolate bilinearly."""

from __future__ import annotations

import pytest
import torch

from landscale.superres.network import DSen2, NetworkShape, network_shape, stack_inputs
from landscale.superres.planes import GROUPS


def random_planes(shape: NetworkShape, side: int) -> dict[int, torch.Tensor]:
    """One patch of `side` × `side` pixels at 10 m."""
    return {g: 4000 * torch.rand(1, len(GROUPS[g]), side * 10 // g, side * 10 // g) for g in shape.groups}


@torch.inference_mode()
@pytest.mark.parametrize("gsd", [20, 60])
@pytest.mark.parametrize("blocks", [0, 2, 6])
def test_no_output_pixel_depends_on_input_beyond_the_margin(gsd: int, blocks: int) -> None:
    shape = NetworkShape(gsd, features=4, blocks=blocks)
    network = DSen2(shape).eval()
    for parameter in network.parameters():  # all positive, so that no input is lost to a ReLU or cancels out
        parameter.copy_(torch.rand_like(parameter) / 8)
    beyond, inner = 12, 12
    start = shape.margin + beyond
    planes = random_planes(shape, 2 * start + inner)
    expected = network(stack_inputs(planes, shape))[..., start : start + inner, start : start + inner]

    def without_the_border(margin: int) -> torch.Tensor:
        cut = {g: (start - margin) * 10 // g for g in planes}
        part = {g: values[..., cut[g] : -cut[g], cut[g] : -cut[g]] for g, values in planes.items()}
        found: torch.Tensor = network(stack_inputs(part, shape))
        return found[..., margin : margin + inner, margin : margin + inner]

    torch.testing.assert_close(without_the_border(shape.margin), expected, rtol=1e-5, atol=0)
    if blocks == 6:  # check of the test itself: a margin of 6 pixels would be too small
        assert ((without_the_border(6) / expected - 1).abs() > 1e-5).any()


def test_margins_of_the_published_networks() -> None:
    margins = [network_shape(gsd, deep=deep).margin for deep in (False, True) for gsd in (20, 60)]
    assert margins == [18, 24, 72, 72]


@pytest.mark.parametrize("gsd", [20, 60])
def test_untrained_network_interpolates_bilinearly(gsd: int) -> None:
    shape = NetworkShape(gsd, features=8, blocks=1)
    inputs = stack_inputs(random_planes(shape, 24), shape)
    assert torch.equal(DSen2(shape)(inputs), inputs[:, -len(shape.outputs) :])
