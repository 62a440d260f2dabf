"""The colours of a map's classes: those of their nomenclature, or others that colour-blind people can distinguish."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from landscale.vocabulary.nomenclatures import colours

_UNKNOWN = "#888888"  # what `colours` returns for a class of no nomenclature
# Okabe and Ito (2008), without black.
_FIRST = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
_STEPS = range(0, 256, 51)  # of red, green and blue, for further colours
# Colours as people with protanopia, deuteranopia and tritanopia see them, in linear RGB: Machado, Oliveira and Fernandes (2009).
_SEEN = np.array(
    [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _XYZ.sum(axis=1)


def map_colours(names: Sequence[str]) -> list[str]:
    """A colour `#rrggbb` for each class name, all different.

    A class of a nomenclature has the official colour. Others take, one after another, the colour that is most different from
    all before it for the eye to which it is least different: normal, or with one of the three kinds of colour blindness.
    """
    found: list[str] = []
    for colour in colours(names):
        found.append("" if colour == _UNKNOWN or colour in found else colour)
    candidates = [*_FIRST, *("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in product(_STEPS, repeat=3))]
    seen = _as_seen(candidates)
    # White is taken, because pixels without a class are shown so; without another class, Okabe and Ito's order holds.
    distance = _difference(seen, _as_seen(["#ffffff"])[0])
    for taken in filter(None, found):
        distance = np.minimum(distance, _difference(seen, _as_seen([taken])[0]))
    for k, colour in enumerate(found):
        if not colour:
            best = next((j for j in range(len(_FIRST)) if distance[j] > _CLEAR), int(distance.argmax()))
            found[k] = candidates[best] if distance[best] > 0 else _unused(found)
            distance = np.minimum(distance, _difference(seen, seen[best]))
    return found


_CLEAR = 8.0  # difference from which two colours are easily distinguished


def _unused(found: Sequence[str]) -> str:
    """A colour that is not taken, once the candidates are used up."""
    return next(c for c in (f"#{grey:02x}{grey:02x}{0x80:02x}" for grey in range(256)) if c not in found)


def _as_seen(texts: Sequence[str]) -> NDArray[np.float64]:
    """Colours as the four kinds of eyes see them, in CIELAB: (n, 4, 3)."""
    rgb = np.array([list(bytes.fromhex(text[1:])) for text in texts]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(np.einsum("kij,nj->nki", _SEEN, linear), 0, 1) @ _XYZ.T / _WHITE
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _difference(seen: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): the CIE76 difference of each colour from one, for the eye to which it is least different."""
    smallest: NDArray[np.float64] = np.linalg.norm(seen - one, axis=-1).min(axis=-1)
    return smallest
