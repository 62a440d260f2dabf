"""Read a STAC item: the files of its bands, and what is stated of their pixels (STAC 1.0 and 1.1; stacspec.org).

Nothing is downloaded. Where an asset is on the web, a file of the same name beside the item is used: that is how people download.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct, field

from landscale.errors import BadInput
from landscale.formats.rasters import RASTER_DRIVERS
from landscale.runtime.documents import json_object, parse_json, typed
from landscale.scenes.names import PRODUCT, band_in_name, level_in_name, offset_in_name, offset_of_baseline
from landscale.scenes.product_files import MAX_METADATA, is_file, read_file
from landscale.vocabulary.units import Level

_KIND = "a STAC item"
_REMOTE = re.compile(r"(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_PICTURES = {"overview", "visual", "thumbnail", "metadata"}  # roles of assets that are not bands
_LEVEL = re.compile(r"(?:S2MSI|L|-l)(1C|2A)", re.IGNORECASE)
_Text = Annotated[str, Meta(max_length=4096)]


class _Band(Struct):
    name: _Text | None = None
    common_name: _Text | None = None
    eo_common_name: _Text | None = field(default=None, name="eo:common_name")
    scale: float | None = field(default=None, name="raster:scale")
    offset: float | None = field(default=None, name="raster:offset")


class _Raster(Struct):
    scale: float | None = None
    offset: float | None = None


class _Asset(Struct):
    href: _Text
    roles: list[_Text] | None = None
    bands: list[_Band] | None = None
    eo_bands: list[_Band] | None = field(default=None, name="eo:bands")
    raster_bands: list[_Raster] | None = field(default=None, name="raster:bands")
    scale: float | None = field(default=None, name="raster:scale")
    offset: float | None = field(default=None, name="raster:offset")


class _Properties(Struct):
    product_type: _Text | None = field(default=None, name="s2:product_type")
    type: _Text | None = field(default=None, name="product:type")
    level: _Text | None = field(default=None, name="processing:level")
    uri: _Text | None = field(default=None, name="s2:product_uri")
    baseline: _Text | float | None = field(default=None, name="s2:processing_baseline")
    old_baseline: _Text | float | None = field(default=None, name="sentinel:processing_baseline")
    version: _Text | float | None = field(default=None, name="processing:version")
    applied: bool | None = field(default=None, name="earthsearch:boa_offset_applied")
    old_applied: bool | None = field(default=None, name="sentinel:boa_offset_applied")


class _Document(Struct):
    id: _Text
    properties: _Properties
    assets: dict[str, _Asset]
    collection: _Text | None = None


@dataclass(frozen=True)
class Item:
    """A STAC item.

    bands: by band, the hrefs of the assets that hold it, and its number in each.
    classification: the href of the scene classification, empty without one.
    """

    path: Path
    level: Level
    offset: int | None
    product: str
    bands: dict[str, list[tuple[str, int]]]
    classification: str


def read_item(path: Path) -> Item:
    """Read an item.

    Raises:
        BadInput: it is no STAC item, or states an offset that pixels cannot have.
    """
    content = json_object(path, parse_json(path, read_file(path, MAX_METADATA)), _KIND, ("stac_version", "assets"))
    document = typed(path, content, _Document, _KIND)
    bands: dict[str, list[tuple[str, int]]] = {}
    offsets: set[int] = set()
    classification = ""
    for key, asset in document.assets.items():
        if not _is_raster(key, asset):
            continue
        if key.lower().split("_")[0] == "scl":
            classification = classification or asset.href
        for number, (band, place) in enumerate(_bands(key, asset), start=1):
            if band is not None:
                bands.setdefault(band, []).append((asset.href, number))
                offsets |= place
    return Item(
        path,
        _level(document),
        _offset(path, document, offsets),
        _product(document),
        bands,
        classification,
    )


def find_item(paths: list[Path]) -> Item | None:
    """The one STAC item among files; None if there is none, or several."""
    found = []
    for path in paths:
        if path.suffix.lower() == ".json":
            try:
                found.append(read_item(path))
            except BadInput:  # another JSON file
                continue
    return found[0] if len(found) == 1 else None


def local_files(item: Item, hrefs: list[str]) -> list[Path]:
    """The files of assets: those of relative or absolute paths, and for assets on the web those beside the item.

    Raises:
        BadInput: a file that is not on the web is missing.
    """
    found = []
    for href in hrefs:
        remote = _REMOTE.match(href) is not None
        place = unquote(urlsplit(href).path) if remote or href.startswith("file:") else href
        if remote:
            parts = Path(place).parts[1:]
            beside = (item.path.parent.joinpath(*parts[first:]) for first in range(len(parts)))
            found += [path for path in [next(filter(is_file, beside), None)] if path is not None]
            continue
        path = item.path.parent / place
        if not is_file(path):
            raise BadInput(item.path, f"lists {href}, which is missing")
        found.append(path)
    return found


def _is_raster(key: str, asset: _Asset) -> bool:
    """Whether an asset is a raster of pixels, and not a picture or the original of another asset (`blue-jp2`)."""
    suffix = Path(urlsplit(asset.href).path).suffix.lower()
    return suffix in RASTER_DRIVERS and not _PICTURES & {*(asset.roles or ())} and not key.endswith("-jp2")


def _bands(key: str, asset: _Asset) -> list[tuple[str | None, set[int]]]:
    """The bands of an asset, each with the offsets that it states. A key that is the name of a band names a single band."""
    described = asset.bands or asset.eo_bands or [_Band()]
    rasters = asset.raster_bands or []
    found: list[tuple[str | None, set[int]]] = []
    for k, band in enumerate(described):
        names = [band.name, key if len(described) == 1 else None, band.common_name, band.eo_common_name]
        raster = rasters[k] if k < len(rasters) else _Raster()
        scale = next((s for s in (band.scale, raster.scale, asset.scale) if s is not None), None)
        offset = next((o for o in (band.offset, raster.offset, asset.offset) if o is not None), None)
        found.append((next((b for name in names if name and (b := band_in_name(name))), None), _numbers(scale, offset)))
    return found


def _numbers(scale: float | None, offset: float | None) -> set[int]:
    """The offset in digital numbers, by scale and offset of reflectance."""
    if offset is None or (scale is not None and scale <= 0):
        return set()
    numbers = -offset / (scale or 1)
    return {round(numbers)} if math.isfinite(numbers) else set()


def _offset(path: Path, document: _Document, offsets: set[int]) -> int | None:
    """The offset of the pixels. Earth Search subtracts it and says so, but its bands may state it nevertheless."""
    p = document.properties
    stated = next((b for b in (p.baseline, p.old_baseline, p.version) if b is not None), None)
    try:
        by_baseline = None if stated is None else offset_of_baseline(round(float(stated) * 100))
    except (ValueError, OverflowError):
        by_baseline = None
    if by_baseline is None:
        by_baseline = offset_in_name(_product(document))
    if p.applied or p.old_applied or by_baseline == 0:
        return 0
    if len(offsets) > 1:
        raise BadInput(path, f"has different offsets for different bands: {sorted(offsets)}")
    if offsets and not 0 <= min(offsets) < 1 << 16:
        raise BadInput(path, f"has an offset of {min(offsets)}, expected an integer from 0 to 65535")
    return offsets.pop() if offsets else by_baseline


def _level(document: _Document) -> Level:
    p = document.properties
    for text in (p.product_type, p.type, p.level, p.uri, document.collection):
        if text and (match := _LEVEL.search(text)):
            return "L1C" if match[1].upper() == "1C" else "L2A"
    return level_in_name(document.id)


def _product(document: _Document) -> str:
    match = PRODUCT.match(document.properties.uri or "")
    return match[0] if match else document.id
