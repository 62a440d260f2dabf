"""A network that does not take the side of its input is refused before the training, in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from landscale.errors import LandscaleError
from landscale.training.build import build_classifier
from trainings import PLAIN


@pytest.mark.parametrize("model,side", [("inception_v3", 60), ("efficientformer_l1", 64), ("crossvit_tiny_240", 64)])
def test_a_side_that_a_network_does_not_take(store, model, side):
    with pytest.raises(
        LandscaleError, match=rf"model '{model}' (does not take an input of {side} px|cannot be built)"
    ) as caught:
        build_classifier(replace(PLAIN, model=model, side=side, options={}), store)
    assert "\n" not in str(caught.value)


def test_the_trial_leaves_network_and_mode(store):
    first, second = build_classifier(PLAIN, store), build_classifier(replace(PLAIN, progressive=[[0.5, 8]]), store)
    assert first.network.training
    assert first.digest() == second.digest()
