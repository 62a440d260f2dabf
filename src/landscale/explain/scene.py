"""Heat maps of a whole scene: those of windows half a window apart, blended, on one scale.

The heat map of a window (`heat_maps`) is in units of the logit, and is multiplied by the probability of the class there, so that
windows without the class stay dark. Each pixel is the mean of the windows that cover it, with weights that fall linearly from the
centre of a window to its border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

from landscale.distributed import local_device
from landscale.errors import UnknownName
from landscale.explain.examples import decisions
from landscale.explain.folder import SUMMARY, check_folder
from landscale.explain.heat_maps import heat_maps
from landscale.explain.page import scene_page
from landscale.loading.resize import resize
from landscale.maps.area import Area
from landscale.maps.encoding import to_bytes
from landscale.maps.frame import Frame
from landscale.maps.layers import Layer, open_layers
from landscale.maps.rasters import growing_raster
from landscale.maps.reduced import ReducedMap
from landscale.maps.strips import EmptyPixels, cut_windows, read_strips
from landscale.maps.viewer import check_true_colour, true_colour_picture
from landscale.maps.windows import WindowGrid, one_by_one, window_starts
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.models.input_units import convert
from landscale.runtime.documents import write_json
from landscale.runtime.files import atomic_folder
from landscale.runtime.progress import print_notes, progress_bar

MOST_FREQUENT = 3  # classes that are explained if none is named
LONGEST = 900  # pixels of the pictures in the page
_ROWS = 512
_SAMPLED = 1000  # rows and columns from which the common scale is computed
_SCALE = 99.9  # percentile of the heat that is shown as 1; a single hot pixel would make everything else dark

Heat = NDArray[np.float32]


def explain_scene(
    model: Classifier | str | Path,
    scene: str | Path,
    out: str | Path,
    classes: Sequence[str] = (),
    *,
    aoi: str | Path | None = None,
    offset: int | None = None,
    batch: int = 32,
    show: bool = True,
) -> dict[str, Any]:
    """Write heat maps of a scene as a folder.

    The folder holds `heat.tif`, a cloud-optimised GeoTIFF on the grid of the scene with a band for each class: uint8, 0…250 for
    0…1 on a scale that all bands share (its tag HEAT_OF_ONE is the heat of 1, in units of the logit times probability), and 255
    without data; `index.html`, a page with pictures; and `explanation.json`, the summary that is returned.

    Args:
        model: a classifier, which is used on the device it is on, or the name of weights.
        scene: a scene, see `scenes.scene.open_scene`; it has the bands of true colour.
        out: the folder: a new or empty one, or an older explanation, which is replaced.
        classes: names; none: the classes that most windows have, at most `MOST_FREQUENT`.
        aoi: a vector file with the area; None: the whole scene.
        offset: see `scenes.scene.open_scene`.
        batch: windows per batch.
        show: whether to show progress.

    Returns:
        The summary: `classes`, `heat_of_one`, `width`, `height`, `crs`, `windows`, and digests of what it was computed from.

    Raises:
        BadInput: scene, area or weights cannot be used, or `out` is an input or holds something else.
        UnknownName: there is no such class. LandscaleError: the weights have no classes, or the network has no maps of features.
    """
    out, scene = Path(out), Path(scene)
    inputs = [scene, *([Path(aoi)] if aoi else [])]
    inputs += [] if isinstance(model, Classifier) else [Path(model), find_encoder(model)]
    check_folder(out, [path for path in inputs if path.exists()])
    classifier = model if isinstance(model, Classifier) else load_encoder(model).to(local_device())
    classifier.check_patches("explain")
    classifier.eval()
    d = classifier.description
    for name in classes:
        if name not in d.classes:
            raise UnknownName("class", name, d.classes)
    with rasterio.Env(GDAL_CACHEMAX=1024), ExitStack() as stack:
        frame, area, (layer,) = open_layers(
            [scene], classifier, None, stack, offset=offset, mask=False, aoi=Path(aoi) if aoi else None
        )
        check_true_colour([layer])
        print_notes(layer.notes)
        grid = _grid(layer, layer.windows.side // 2)
        wanted = [d.classes.index(name) for name in classes] or _most_frequent(classifier, layer, show=show)
        names = [d.classes[c] for c in wanted]
        folder = stack.enter_context(atomic_folder(out))
        raw = folder / "heat.raw"
        heat: Heat = np.memmap(raw, np.float32, "w+", shape=(len(wanted), frame.height, frame.width))
        heat[:] = np.nan
        with progress_bar("explain", grid.windows, "windows", visible=show) as advance:
            for top, rows in _heat_rows(classifier, layer, grid, wanted, batch, advance):
                _place(heat, rows, top + layer.row, layer.column, frame, area)
        highest = _common_scale(heat)
        summary: dict[str, Any] = {
            "kind": "explanation",
            "model": d.model,
            "weights": classifier.digest(),
            "scene": layer.name,
            "classes": names,
            "heat_of_one": highest,
            "width": frame.width,
            "height": frame.height,
            "crs": str(frame.crs),
            "windows": grid.windows,
            "landscale": version("landscale"),
        }
        tags = {
            "SCENE": layer.name,
            "WEIGHTS_DIGEST": summary["weights"],
            "HEAT_OF_ONE": str(highest),
            "UNIT": "logit times probability",
        }
        path = folder / "heat.tif"
        with growing_raster(path, out / "heat.tif", frame, names, tags, numbers="uint8") as write:
            for top in range(0, frame.height, _ROWS):
                write(top, to_bytes(np.clip(heat[:, top : top + _ROWS] / highest, 0, 1)))
        reduced = ReducedMap(frame, LONGEST)
        small = heat[:, reduced.rows][:, :, reduced.columns] / highest
        picture = np.asarray(true_colour_picture(frame, reduced, [layer]))
        (folder / "index.html").write_text(scene_page(summary, picture, np.nan_to_num(np.clip(small, 0, 1))), "utf-8")
        write_json(folder / SUMMARY, summary)
        del heat
        raw.unlink()
    return summary


def _grid(layer: Layer, stride: int) -> WindowGrid:
    """Windows one by one, a stride apart, rounded down to whole pixels of the coarsest band."""
    unit, side = lcm(*layer.pixels.ratios.values()), layer.windows.side
    stride = max(unit, stride // unit * unit)
    rows, columns = (window_starts(n, side, stride, unit) for n in (layer.pixels.height, layer.pixels.width))
    # A scene that ends with a whole stride would have its last window twice.
    return WindowGrid(side, stride, sorted(set(rows)), sorted(set(columns)))


def _most_frequent(classifier: Classifier, layer: Layer, *, show: bool) -> list[int]:
    """The classes that most windows side by side have; the one of highest mean probability if none has any."""
    d, grid = classifier.description, _grid(layer, layer.windows.side)
    found = []
    with progress_bar("classes", grid.windows, "windows", visible=show) as advance:
        strips = _strips(layer, grid, EmptyPixels(layer.pixels))
        for probabilities in one_by_one(classifier, strips, grid, layer.pixels, layer.factors):
            assert probabilities is not None
            found.append(probabilities[0])
            advance(len(grid.columns))
    values = np.concatenate(found)
    counts = decisions(values, d.thresholds, multi_label=d.multi_label).sum(0)
    order = np.lexsort((-values.mean(0), -counts))
    return [int(c) for c in order[:MOST_FREQUENT] if counts[c]] or [int(order[0])]


def _strips(layer: Layer, grid: WindowGrid, empty: EmptyPixels) -> Iterator[Any]:
    across = max(layer.pixels.width, grid.side)
    return read_strips(layer.pixels, grid.rows, [True] * len(grid.rows), grid.side, across, empty)


def _heat_rows(
    classifier: Classifier,
    layer: Layer,
    grid: WindowGrid,
    wanted: Sequence[int],
    batch: int,
    advance: Callable[[int], None],
) -> Iterator[tuple[int, Heat]]:
    """Yield finished rows of the layer from top to bottom: index of the first, and heat (C, rows, width), NaN without data."""
    side, width, empty = grid.side, layer.pixels.width, EmptyPixels(layer.pixels)
    tent = 1 - np.abs(np.arange(side) + 0.5 - side / 2) / (side / 2)
    window = np.outer(tent, tent).astype(np.float32)
    total = np.zeros((len(wanted), side, max(width, side)), np.float32)
    weight = np.zeros(total.shape[1:], np.float32)
    for top, following, strip in zip(grid.rows, [*grid.rows[1:], None], _strips(layer, grid, empty), strict=True):
        for k in range(0, len(grid.columns), batch):
            lefts = grid.columns[k : k + batch]
            planes = cut_windows([(strip, left) for left in lefts], layer.pixels, side, classifier.device)
            heat = _window_heat(classifier, convert(planes, layer.factors), wanted, side)
            for left, values in zip(lefts, heat, strict=True):
                total[:, :, left : left + side] += values * window
                weight[:, left : left + side] += window
            advance(len(lefts))
        rows = min(side if following is None else following - top, layer.pixels.height - top)
        with np.errstate(invalid="ignore"):  # 0 / 0 where no window reaches, which becomes NaN
            finished = total[:, :rows, :width] / weight[:rows, :width]
        finished[:, empty.get(top, top + rows)] = np.nan
        yield top, finished.astype(np.float32, copy=False)
        for array in (total, weight):
            array[..., : side - rows, :] = array[..., rows:, :].copy()
            array[..., side - rows :, :] = 0


def _window_heat(
    classifier: Classifier, planes: Mapping[tuple[str, ...], torch.Tensor], wanted: Sequence[int], side: int
) -> Heat:
    """Heat times probability (n, C, side, side) of n windows."""
    given = dict(planes)
    probabilities = classifier.probabilities(given)[:, list(wanted)]
    n = len(probabilities)
    heat = torch.stack([heat_maps(classifier, given, [c] * n) for c in wanted], dim=1)
    scaled: Heat = resize(heat * probabilities[:, :, None, None], side, "bilinear").cpu().numpy()
    return scaled


def _place(heat: Heat, rows: Heat, row: int, column: int, frame: Frame, area: Area | None) -> None:
    """Copy rows of a layer, whose first pixel lies at `row` and `column` of the frame, into the frame; NaN outside the area."""
    first, last = max(0, row), min(frame.height, row + rows.shape[1])
    left, right = max(0, column), min(frame.width, column + rows.shape[2])
    if first >= last or left >= right:
        return
    part = heat[:, first:last, left:right]
    part[:] = rows[:, first - row : last - row, left - column : right - column]
    if area is not None:
        part[:, area.outside(frame, first, last - first)[:, left:right]] = np.nan


def _common_scale(heat: Heat) -> float:
    """The heat that is shown as 1, above 0."""
    steps = [-(-length // _SAMPLED) for length in heat.shape[1:]]
    sample = heat[:, :: steps[0], :: steps[1]]
    known = sample[np.isfinite(sample)]
    return max(float(np.percentile(known, _SCALE)), 1e-12) if known.size else 1.0
