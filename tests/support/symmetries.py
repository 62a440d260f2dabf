"""The eight rotations and reflections of an image, computed without the package's own `turn`."""

from __future__ import annotations

import numpy as np


def symmetries(image):
    """All 8, by applying each signed permutation of the axes to the coordinates (y, x)."""
    side = image.shape[-1]
    y, x = np.mgrid[:side, :side]
    z = side - 1
    places = [(y, x), (y, z - x), (z - y, x), (z - y, z - x), (x, y), (x, z - y), (z - x, y), (z - x, z - y)]
    return [np.asarray(image)[..., a, b] for a, b in places]
