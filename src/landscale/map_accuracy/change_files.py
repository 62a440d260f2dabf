"""The files of a comparison of two maps: their names, and by what `landscale compare` recognises those that it wrote earlier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from landscale.errors import BadInput
from landscale.maps.files import COMMENT, is_quick_look, mentions, written_by
from landscale.runtime.outputs import check_output

SOFTWARE = "landscale compare"  # a tag of the map of changes
TABLE_CORNER = "hectares, from"  # the first cell of the table


def change_files(out: Path) -> dict[str, Path]:
    """The paths by what they are; the map of changes, named by the user, is the last.

    Raises:
        BadInput: `out` has another suffix than a GeoTIFF, so two files might have the same name.
    """
    if out.suffix.lower() not in {".tif", ".tiff"}:
        raise BadInput(out, "has the wrong suffix for a map of changes, expected .tif")
    return {
        "style": out.with_suffix(".qml"),
        "quick_look": out.with_suffix(".png"),
        "legend": out.with_name(f"{out.name}.aux.xml"),  # the name that GDAL expects
        "table": out.with_suffix(".csv"),
        "map": out,
    }


def check_change_files(paths: dict[str, Path], inputs: Iterable[str | Path]) -> None:
    """Refuse the paths before anything is computed.

    Raises:
        BadInput: a path is an input or in one, or has a file that `landscale compare` did not write as this.
    """
    inputs = list(inputs)
    for kind in reversed(paths):  # the path that the user gave is checked first
        about, recognises = _KINDS[kind]
        check_output(paths[kind], about, recognises, inputs)


_is_map = written_by(SOFTWARE)


def _is_legend(path: Path) -> bool:
    """Whether it belongs to a map of changes: QGIS adds statistics to it, and drops the comment."""
    return _is_map(path.with_name(path.name.removesuffix(".aux.xml")))


_KINDS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "map": ("a comparison of landscale", _is_map),
    "table": ("the table of a comparison of landscale", mentions(TABLE_CORNER)),
    "style": ("the style of a comparison of landscale", mentions(COMMENT)),
    "legend": ("the legend of a comparison of landscale", _is_legend),
    "quick_look": ("the quick look of a comparison of landscale", is_quick_look),
}
