"""The legend of a class map in the three forms that programs read: tags, a raster attribute table, and a style for QGIS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from landscale.maps.files import SOFTWARE

# Names and codes of GDAL: type and use of the columns of a raster attribute table.
_COLUMNS = {"Value": (0, 5), "Class": (2, 2), "Count": (1, 1), "Red": (0, 6), "Green": (0, 7), "Blue": (0, 8)}
_PRINTABLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32)))  # characters that XML does not allow


@dataclass(frozen=True)
class Entry:
    """A class of a map: the number of its pixels, and its colour `#rrggbb`."""

    value: int
    name: str
    colour: str
    pixels: int = 0


def legend_tag(names: Sequence[str], colours: Sequence[str]) -> str:
    """The legend as a tag of the GeoTIFF: a JSON list with value, name and colour of each class."""
    rows = [{"value": k, "name": name, "colour": colours[k]} for k, name in enumerate(names)]
    return json.dumps(rows, ensure_ascii=False)


def attribute_table(entries: Sequence[Entry]) -> str:
    """The names and the raster attribute table of the classes, as GDAL and QGIS read them from `MAP.tif.aux.xml`."""
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    names = ET.SubElement(band, "CategoryNames")
    table = ET.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for k, (column, (kind, usage)) in enumerate(_COLUMNS.items()):
        definition = ET.SubElement(table, "FieldDefn", index=str(k))
        for field, text in (("Name", column), ("Type", str(kind)), ("Usage", str(usage))):
            ET.SubElement(definition, field).text = text
    for k, entry in enumerate(entries):
        name = entry.name.translate(_PRINTABLE)
        ET.SubElement(names, "Category").text = name
        row = ET.SubElement(table, "Row", index=str(k))
        for value in (entry.value, name, entry.pixels, *bytes.fromhex(entry.colour[1:])):
            ET.SubElement(row, "F").text = str(value)
    return _document(root)


def qgis_style(entries: Sequence[Entry]) -> str:
    """The style that QGIS takes from `MAP.qml` when it opens `MAP.tif`: colour and name of each class."""
    root = ET.Element("qgis", version="3.22", styleCategories="Symbology")
    renderer = ET.SubElement(
        ET.SubElement(root, "pipe"), "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1"
    )
    palette = ET.SubElement(renderer, "colorPalette")
    for entry in entries:
        label = entry.name.translate(_PRINTABLE)
        ET.SubElement(palette, "paletteEntry", value=str(entry.value), color=entry.colour, alpha="255", label=label)
    return _document(root)


def _document(root: ET.Element) -> str:
    root.insert(0, ET.Comment(f" {SOFTWARE} "))  # not before the root, where GDAL expects the root itself
    ET.indent(root)
    return f"{ET.tostring(root, encoding='unicode')}\n"
