"""A scene → a map: one band of probability per class, on the scene's own finest grid, as a cloud-optimised GeoTIFF.

Probabilities of windows are stored until the map is complete, so a killed process loses those of three rows of patches at most.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from rasterio.windows import Window

from landscale.distributed import local_device
from landscale.errors import BadInput, reason
from landscale.maps.windows import probability_rows, window_grid
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.models.input_units import compare_units, scene_source
from landscale.runtime.files import atomic_file
from landscale.runtime.outputs import check_output
from landscale.runtime.parts import resumable_parts
from landscale.runtime.progress import console, print_notes, progress_bar
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import open_scene

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
        stride: distance between windows in pixels of the finest grid (`windows.window_grid`); by default that of the features of
            the network, where windows can be computed together, else half a window.
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
        windows = window_grid(classifier, pixels, stride)
        plan = {
            **product.identity(),
            "classifier": classifier.digest(),
            "side": windows.side,
            "stride": windows.stride,
            "dense": windows.tiling is not None,
        }
        done = stack.enter_context(resumable_parts(out, plan))
        temporary = stack.enter_context(atomic_file(out))
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
                progress_bar("predict", windows.windows, "windows") as advance,
            ):
                file.descriptions = d.classes
                file.update_tags(
                    TIFFTAG_SOFTWARE=_SOFTWARE,
                    WINDOW_METRES=windows.side * pixels.gsd,
                    STRIDE_METRES=windows.stride * pixels.gsd,
                )
                for top, values in probability_rows(classifier, pixels, windows, done, compared.factors, advance):
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
        windows=windows.windows,
        stride=windows.stride,
        offset=product.offset,
    )


def _is_map(path: Path) -> bool:
    """Whether `predict` wrote a file."""
    with rasterio.open(path, driver="GTiff") as file:
        return bool(file.tags().get("TIFFTAG_SOFTWARE") == _SOFTWARE)
