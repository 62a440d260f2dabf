"""The files of a map: their names, and by what `landscale predict` recognises those that it wrote earlier."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import rasterio
from PIL import Image
from rasterio.errors import RasterioError

from landscale.errors import BadInput
from landscale.runtime.outputs import check_output

SOFTWARE = "landscale predict"  # is written into every file
GENERATOR = f'<meta name="generator" content="{SOFTWARE}">'  # of the viewer
COMMENT = f"<!-- {SOFTWARE} -->"  # in files of XML
_BEGINNING = 2000  # bytes of a text file that are searched for them


def map_files(
    out: Path, *, probabilities: bool, entropy: bool, viewer: bool, polygons: str | Path | None
) -> dict[str, Path]:
    """The paths of a map's files by what they are; the class map, named by the user, is the last."""
    paths = {"style": out.with_suffix(".qml"), "quick_look": out.with_suffix(".png")}
    paths["legend"] = out.with_name(f"{out.name}.aux.xml")  # the name that GDAL expects
    if probabilities:
        paths["probabilities"] = out.with_name(f"{out.stem}-probabilities.tif")
    if entropy:
        paths["entropy"] = out.with_name(f"{out.stem}-entropy.tif")
    if viewer:
        paths["viewer"] = out.with_suffix(".html")
    if polygons is not None:
        paths["polygons"] = Path(polygons)
    return paths | {"map": out}


def check_files(paths: dict[str, Path], inputs: Iterable[str | Path]) -> None:
    """Refuse the paths of a map before anything is computed.

    Raises:
        BadInput: a path is an input or in one, is taken twice, or has what `landscale predict` did not write as this.
    """
    inputs = list(inputs)
    taken: dict[str, str] = {}
    for kind, path in [*paths.items()][::-1]:  # the path that the user gave is checked first
        about, recognises = _KINDS[kind]
        check_output(path, about, recognises, inputs)
        place = os.path.realpath(path)
        if place in taken:
            raise BadInput(
                paths["map"], f"would have {path.name} as {about} and as {taken[place]}; end its name with .tif"
            )
        taken[place] = about


def written_by(software: str) -> Callable[[Path], bool]:
    """Recognise rasters by the program in their tags."""

    def recognises(path: Path) -> bool:
        try:
            with rasterio.open(path, driver="GTiff") as file:
                return bool(file.tags().get("TIFFTAG_SOFTWARE") == software)
        except RasterioError:
            return False

    return recognises


_is_raster = written_by(SOFTWARE)


def mentions(text: str) -> Callable[[Path], bool]:
    """Recognise text files by a text near their beginning."""

    def recognises(path: Path) -> bool:
        with path.open("rb") as file:
            return text.encode() in file.read(_BEGINNING)

    return recognises


def _is_legend(path: Path) -> bool:
    """Whether a legend was written here, or belongs to a map that was: QGIS adds statistics to it, and drops the comment."""
    return mentions(COMMENT)(path) or _is_raster(path.with_name(path.name.removesuffix(".aux.xml")))


def is_quick_look(path: Path) -> bool:
    with Image.open(path, formats=["PNG"]) as image:
        return image.info.get("Software") == SOFTWARE


def _is_polygons(path: Path) -> bool:
    from pyogrio import read_info

    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return False
    try:
        metadata = read_info(path, layer=LAYER)["layer_metadata"]
    except (RuntimeError, ValueError):  # pyogrio's errors
        return False
    return bool((metadata or {}).get("SOFTWARE") == SOFTWARE)


LAYER = "map"  # of the polygons

_KINDS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "map": ("a map of landscale", _is_raster),
    "probabilities": ("the probabilities of a map of landscale", _is_raster),
    "entropy": ("the entropy of a map of landscale", _is_raster),
    "style": ("the style of a map of landscale", mentions(COMMENT)),
    "legend": ("the legend of a map of landscale", _is_legend),
    "quick_look": ("the quick look of a map of landscale", is_quick_look),
    "viewer": ("the viewer of a map of landscale", mentions(GENERATOR)),
    "polygons": ("the polygons of a map of landscale", _is_polygons),
}
