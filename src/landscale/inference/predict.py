"""A scene → a map: one band of probability per class, on the scene's own finest grid, as a cloud-optimised GeoTIFF.

The classifier is applied to windows as large on the ground as the patches it was trained on, a stride apart. The probability of a
pixel is the mean over the windows that contain it. The last windows of a row and of the scene are moved inward, so that
they cover every pixel without padding. A scene smaller than a window is padded with copies of its border pixels.
The probabilities of each row of windows are stored until the map is complete, so a killed process loses one row at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from math import lcm
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import torch
from numpy.typing import NDArray
from rasterio.windows import Window

from landscale.distributed import local_device
from landscale.errors import BadInput, reason
from landscale.loading import Native
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.models.input_units import compare_units, convert, scene_source
from landscale.runtime.files import atomic_file
from landscale.runtime.outputs import check_output
from landscale.runtime.parts import Parts, resumable_parts
from landscale.runtime.progress import console, print_notes, progress_bar
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene

BATCH = 64
_SOFTWARE = "landscale predict"  # by which a map is recognised
_PROFILE = {
    "driver": "GTiff",
    "tiled": True,
    "blockxsize": 512,
    "blockysize": 512,
    "compress": "deflate",
    "BIGTIFF": "IF_SAFER",
}


@dataclass(frozen=True)
class MapSummary:
    """Description of the map that `predict` wrote.

    Attributes:
        map: path of the GeoTIFF.
        width, height: pixels of the map.
        crs: its coordinate reference system.
        pixel: side of a pixel in metres.
        classes: names of its bands.
        windows: number of windows that were classified.
        stride: pixels between windows.
        offset: number that was subtracted from the scene's digital numbers.
    """

    map: str
    width: int
    height: int
    crs: str
    pixel: float
    classes: tuple[str, ...]
    windows: int
    stride: int
    offset: int

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self) | {"classes": list(self.classes)}


def window_starts(length: int, side: int, stride: int, grid: int) -> list[int]:
    """First pixels of windows of `side` pixels that cover `length` pixels; all are multiples of `grid`.

    At most `grid` − 1 pixels at the end remain uncovered, because no multiple reaches them.
    """
    last = max(0, (length - side) // grid * grid)
    return [*range(0, last, stride), last]


def predict(
    model: Classifier | str | Path,
    scene: str | Path,
    out: str | Path,
    stride: int | None = None,
    *,
    offset: int | None = None,
) -> MapSummary:
    """Write the map of a scene. After an interruption, the same call resumes.

    Args:
        model: a classifier in eval mode, which is used on the device it is on, or the name of weights
            (`models.encoders.find_encoder`).
        scene: a product in any layout of `scenes.scene`; offsets of digital numbers are removed.
        out: the GeoTIFF to write: float32, one band per class, in 0…1; NaN where the scene has no data, that is where
            all bands of its finest grid are 0.
        stride: distance between windows in pixels of the finest grid, rounded down to whole pixels of the coarsest band;
            half a window by default.
        offset: the offset that was added to the scene's digital numbers; by default that of its metadata or name.

    Raises:
        LandscaleError: the weights have no classes.
        BadInput: the weights or the scene cannot be read, the scene lacks bands or has a unit that cannot be converted into that
            of the weights, or `out` is part of an input, or exists and is not a map.
    """
    out = Path(out)
    inputs = [scene] if isinstance(model, Classifier) else [scene, find_encoder(model)]
    check_output(out, "a map of landscale", _is_map, inputs)
    classifier = model if isinstance(model, Classifier) else load_encoder(model).to(local_device())
    classifier.check_classes()
    d = classifier.description
    product = open_scene(Path(scene), offset)
    with rasterio.Env(GDAL_CACHEMAX=1024), ScenePixels(product, d.bands) as pixels, ExitStack() as stack:
        pixels.check_offset()
        if not product.offset_known and product.unit in ("digital number", "unknown"):
            console.print(
                f"{product.folder}: no processing baseline found, so the digital numbers are taken as they are"
            )
        compared = compare_units(d, scene_source(product, pixels))
        print_notes(compared.notes)
        grid = lcm(*pixels.ratios.values())
        side = max(grid, round(d.ground / pixels.gsd) // grid * grid)
        stride = min(side, max(grid, (stride or side // 2) // grid * grid))
        plan = {**product.identity(), "classifier": classifier.digest(), "side": side, "stride": stride}
        done = stack.enter_context(resumable_parts(out, plan))
        temporary = stack.enter_context(atomic_file(out))
        rows, columns = (
            window_starts(pixels.height, side, stride, grid),
            window_starts(pixels.width, side, stride, grid),
        )
        profile = _PROFILE | {
            "width": pixels.width,
            "height": pixels.height,
            "count": len(d.classes),
            "dtype": "float32",
            "nodata": float("nan"),
            "crs": pixels.crs,
            "transform": pixels.transform,
        }
        plain = temporary.with_name(temporary.name + ".plain")
        try:
            with (
                rasterio.open(plain, "w", **profile) as file,
                progress_bar("predict", len(rows) * len(columns), "windows") as advance,
            ):
                file.descriptions = d.classes
                file.update_tags(
                    TIFFTAG_SOFTWARE=_SOFTWARE, WINDOW_METRES=side * pixels.gsd, STRIDE_METRES=stride * pixels.gsd
                )
                for top, values in _strips(classifier, pixels, done, rows, columns, side, compared.factors, advance):
                    file.write(values, window=Window(0, top, values.shape[2], values.shape[1]))
            rasterio.shutil.copy(
                plain, temporary, driver="COG", compress="DEFLATE", bigtiff="IF_SAFER", overview_resampling="average"
            )
        except Exception as error:
            if type(error).__module__.startswith("rasterio"):  # GDAL's errors of writing have classes of their own
                raise BadInput(out, f"cannot be written ({reason(error)})") from None
            raise
        finally:
            plain.unlink(missing_ok=True)
    return MapSummary(
        map=str(out),
        width=pixels.width,
        height=pixels.height,
        crs=str(pixels.crs),
        pixel=pixels.gsd,
        classes=d.classes,
        windows=len(rows) * len(columns),
        stride=stride,
        offset=product.offset,
    )


def _is_map(path: Path) -> bool:
    """Whether `predict` wrote a file."""
    with rasterio.open(path, driver="GTiff") as file:
        return bool(file.tags().get("TIFFTAG_SOFTWARE") == _SOFTWARE)


def _strips(
    classifier: Classifier,
    pixels: ScenePixels,
    done: Parts,
    rows: list[int],
    columns: list[int],
    side: int,
    factors: Mapping[str, float],
    advance: Callable[[int], None],
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield finished rows of the map from top to bottom: index of the first row, and probabilities (C, rows, width)."""
    classes = len(classifier.description.classes)
    width, height = pixels.width, pixels.height
    across = max(width, side)
    total = np.zeros((classes, side, across), np.float32)  # sums for the rows that are not finished
    seen = np.zeros((side, across), np.float32)
    for k, top in enumerate(rows):
        probabilities = done.get(str(top))
        if probabilities is None:
            strip = _read_strip(pixels, top, side, across)
            probabilities = _probabilities(classifier, strip, columns, side, pixels, factors, advance)
            done.put(str(top), probabilities)
        else:
            advance(len(columns))
        for left, values in zip(columns, probabilities, strict=True):
            total[:, :, left : left + side] += values[:, None, None]
            seen[:, left : left + side] += 1
        last = k + 1 == len(rows)
        ready = side if last else rows[k + 1] - top
        values = total[:, :ready] / np.maximum(seen[:ready], 1)
        if width > columns[-1] + side:  # uncovered pixels at the end take the value of their neighbour
            values[:, :, columns[-1] + side :] = values[:, :, columns[-1] + side - 1, None]
        if last and top + ready < height:
            values = np.concatenate([values, np.repeat(values[:, -1:], height - top - ready, axis=1)], axis=1)
        values = values[:, : height - top, :width]
        values[:, _nodata(pixels, top, values.shape[1])] = np.nan
        yield top, values
        total[:, : side - ready], seen[: side - ready] = total[:, ready:].copy(), seen[ready:].copy()
        total[:, side - ready :], seen[side - ready :] = 0, 0


def _read_strip(pixels: ScenePixels, top: int, side: int, across: int) -> dict[str, NDArray[np.uint16]]:
    """The rows of a strip, every band at its native resolution, without offset, padded to whole windows by the border pixels."""
    strip = {}
    for band, ratio in pixels.ratios.items():
        raw = pixels.harmonise(pixels.read(band, top // ratio, side // ratio))
        down, right = side // ratio - raw.shape[0], max(0, across // ratio - raw.shape[1])
        strip[band] = np.pad(raw, ((0, down), (0, right)), mode="edge")
    return strip


def _nodata(pixels: ScenePixels, top: int, rows: int) -> NDArray[np.bool_]:
    """(rows, width): whether all bands of the finest grid are 0. These rows are still in GDAL's cache."""
    finest = [band for band, ratio in pixels.ratios.items() if ratio == 1]
    empty: NDArray[np.bool_] = np.all([pixels.read(band, top, rows) == 0 for band in finest], axis=0)
    return empty


def _probabilities(
    classifier: Classifier,
    strip: dict[str, NDArray[np.uint16]],
    columns: list[int],
    side: int,
    pixels: ScenePixels,
    factors: Mapping[str, float],
    advance: Callable[[int], None],
) -> NDArray[np.float32]:
    """Probabilities (n, C) of the n windows of a strip that begin at `columns`."""
    device = next(classifier.network.parameters()).device
    groups: dict[int, list[str]] = {}
    for band, ratio in pixels.ratios.items():
        groups.setdefault(ratio, []).append(band)
    found = []
    for k in range(0, len(columns), BATCH):
        places = columns[k : k + BATCH]
        planes: Native = {}
        for ratio, bands in groups.items():
            edge = side // ratio
            cut = [[strip[b][:, x // ratio : x // ratio + edge] for b in bands] for x in places]
            planes[tuple(bands)] = torch.from_numpy(np.array(cut)).to(device)
        found.append(classifier.probabilities(convert(planes, factors)).cpu().numpy())
        advance(len(places))
    return np.concatenate(found)
