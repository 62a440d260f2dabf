"""What the metadata of a product say of its pixels: level, offset, numbers per reflectance; by one folder, or one file.

Read are ESA's XML of a product or granule (`MTD_MSIL2A.xml`, `S2A_OPER_MTD_SAFL1C….xml`, `MTD_TL.xml`), those of the AWS buckets
(`metadata.xml`, `tileInfo.json`, `productInfo.json`), a STAC item, the note of `superres apply`, and the name of the folder.
Products of processing baseline 04.00 and later add 1000 to every digital number (`BOA_ADD_OFFSET` −1000, in level 1C
`RADIO_ADD_OFFSET`; ESA, Sentinel-2 Products Specification Document).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from landscale.errors import BadInput
from landscale.runtime.documents import json_object, parse_json
from landscale.scenes.names import PRODUCT, level_in_name, offset_in_name, offset_of_baseline
from landscale.scenes.product_files import MAX_METADATA, files_in, read_file, read_metadata_text
from landscale.scenes.stac_item import find_item
from landscale.vocabulary.units import LEVELS, Level

NOTE_FILE = "scene.json"  # written by superres apply: the offset of the digital numbers, {"offset": 1000, …}
_DEPTH = 6  # folders from the bands up to their product: IMG_DATA, R10m, granule, GRANULE …
_PRODUCT_FOLDER = re.compile(r"S2[A-D]_(?:[A-Z]{4}_PRD_)?MSIL[12][AC]")
_PRODUCT_XML = re.compile(r"MTD_MSI(L..)\.xml|S2[A-D]_\w+_MTD_SAF(L..)\w*\.xml", re.IGNORECASE)
_OTHER_XML = re.compile(r"MTD_TL\.xml|S2[A-D]_\w+_MTD_L..\w*\.xml|(?:product_|granule_)?metadata\.xml", re.IGNORECASE)
_INFO = re.compile(r"(?:tile_?info(?:_metadata)?|productInfo)\.json", re.IGNORECASE)
_ROOT = re.compile(r"<(?:\w+:)?Level-(\d\w)p?_(?:User_Product|Tile_ID|Granule_ID)\b")
_OFFSET = re.compile(r"<(?:BOA|RADIO)_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<")
_NUMBERS = re.compile(r"<(?:(?:L2A_)?BOA_)?QUANTIFICATION_VALUE[^>]*>\s*(\d+)(?:\.0*)?\s*<")
_BASELINE = re.compile(r"<PROCESSING_BASELINE>\s*(\d\d)\.(\d\d)\s*<|<TILE_ID[^>]*>[^<]*_N(\d\d)\.(\d\d)\s*<")


@dataclass(frozen=True)
class Statement:
    """What one folder or file states; `unknown`, None, 0 or empty where it states nothing.

    offset: that was added to the digital numbers.
    certain: False if the offset is that of a catalogue, or of ESA's metadata beside files that someone may have converted.
    per_reflectance: digital numbers per reflectance of 1.
    product: name of the product, without `.SAFE`.
    source: the folder or file that states the offset.
    """

    level: Level = "unknown"
    offset: int | None = None
    certain: bool = True
    per_reflectance: float = 0
    product: str = ""
    source: Path = Path()


def statement_of(folder: Path) -> Statement:
    """What a folder states; its own metadata count before its name, and these before copies of metadata in a catalogue or bucket.

    Raises:
        BadInput: metadata cannot be read, contradict each other, or are those of images in the geometry of the sensor.
    """
    files = files_in(folder)
    own = [_read_xml(path, certain=True) for path in files if _PRODUCT_XML.fullmatch(path.name)]
    found = first([*_noted(folder / NOTE_FILE, files), *own, _by_name(folder), *_copies(files)])
    return replace(found, source=folder)


def find_statement(folder: Path, files: Iterable[Path]) -> Statement:
    """What the folders of a scene state: of each attribute the first that is stated.

    Folders are read from the product that contains `folder`, if there is one, down to the common folder of its files.

    Raises:
        BadInput: as `statement_of`.
    """
    inner = Path(os.path.commonpath([path.parent for path in files])).relative_to(folder)
    place = folder.absolute()
    above = [outer for outer in (place, *place.parents)[:_DEPTH] if _PRODUCT_FOLDER.match(outer.name)]
    product = [
        outer for outer in (place, *place.parents) if above and outer.is_relative_to(above[-1]) and outer != place
    ]
    found = first(
        [
            *map(statement_of, reversed(product)),
            *(statement_of(folder / part) for part in (*reversed(inner.parents), inner)),
        ]
    )
    return found if found.level != "unknown" else replace(found, level=_level_above(place))


def _level_above(place: Path) -> Level:
    """The level by names alone: the folders above a scene may be those of thousands of others."""
    for outer in place.parents[:_DEPTH]:
        for name in (outer.name, outer.resolve().name):
            if (level := level_in_name(name)) != "unknown":
                return level
        if (outer / "MTD_MSIL1C.xml").is_file() or (outer / "MTD_MSIL2A.xml").is_file():
            return "L1C" if (outer / "MTD_MSIL1C.xml").is_file() else "L2A"
    return "unknown"


def checked_offset(path: Path, offset: object) -> int:
    """The offset that was found at a path, once it is a number that pixels can have.

    Raises:
        BadInput: it is not.
    """
    if not isinstance(offset, int) or not 0 <= offset < 1 << 16:
        raise BadInput(path, f"has an offset of {offset}, expected an integer from 0 to 65535")
    return offset


def first(parts: Iterable[Statement]) -> Statement:
    """Of each attribute the first that is stated."""
    found = Statement()
    for part in parts:
        if found.offset is None and part.offset is not None:
            found = replace(found, offset=part.offset, certain=part.certain, source=part.source)
        level = found.level if found.level != "unknown" else part.level
        found = replace(
            found,
            level=level,
            per_reflectance=found.per_reflectance or part.per_reflectance,
            product=found.product or part.product,
        )
    return found


def _noted(path: Path, files: list[Path]) -> list[Statement]:
    if path not in files:
        return []
    note = json_object(path, parse_json(path, read_file(path, MAX_METADATA)), "a note on a scene", ("offset",))
    level = note.get("level")
    return [Statement(level if level in LEVELS else "unknown", checked_offset(path, note["offset"]))]


def _read_xml(path: Path, *, certain: bool) -> Statement:
    text = read_metadata_text(path)
    root, named = _ROOT.search(text), _PRODUCT_XML.fullmatch(path.name)
    level = f"L{root[1]}" if root else (named[1] or named[2]).upper() if named else ""
    if level and level not in ("L1C", "L2A"):
        raise BadInput(path, f"is that of level {level}, whose images are not on the map's grid, expected L1C or L2A")
    offsets = {-int(value) for value in _OFFSET.findall(text)}
    if len(offsets) > 1:
        raise BadInput(path, f"has different offsets for different bands: {sorted(offsets)}")
    baseline, numbers = _BASELINE.search(text), _NUMBERS.search(text)
    offset = offset_of_baseline(int("".join(filter(None, baseline.groups())))) if baseline else None
    return Statement(
        "L1C" if level == "L1C" else "L2A" if level == "L2A" else "unknown",
        checked_offset(path, offsets.pop()) if offsets else offset,
        certain,
        float(numbers[1]) if numbers else 0,
        next((match[0] for match in PRODUCT.finditer(text) if match[1] == level), ""),
    )


def _by_name(folder: Path) -> Statement:
    """What the name of a folder states, or that of the folder a link leads to."""
    name = folder.resolve().name
    levels = (level for level in map(level_in_name, (folder.name, name)) if level != "unknown")
    product = PRODUCT.match(name)
    return Statement(next(levels, "unknown"), offset_in_name(name), product=product[0] if product else "")


def _copies(files: list[Path]) -> list[Statement]:
    """What a STAC item among the files of a folder states, then the metadata that buckets keep beside the bands."""
    stated = []
    if (item := find_item([path for path in files if not _INFO.fullmatch(path.name)])) is not None:
        stated.append(Statement(item.level, item.offset, certain=False, product=item.product))
    others = [path for path in files if _OTHER_XML.fullmatch(path.name)]
    others.sort(key=lambda path: not path.name.lower().startswith("product"))  # states more than that of a granule
    stated += [_read_xml(path, certain=False) for path in others]
    for path in files:
        if _INFO.fullmatch(path.name) and (product := PRODUCT.search(read_metadata_text(path))):
            name = product[0]
            stated.append(Statement(level_in_name(name), offset_in_name(name), certain=False, product=name))
    return stated
