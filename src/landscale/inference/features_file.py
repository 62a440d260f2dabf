"""The file of features: Parquet with a row for each patch, which GeoPandas and QGIS open as polygons (GeoParquet 1.1).

    name       text                       of the patch
    split      text                       train, val, test or none
    labels     list of text               names of its classes
    features   list of F float32          what the last layer of the network would have got
    geometry   well-known binary or null  footprint in longitude and latitude (OGC:CRS84); null for a patch without a place
    bbox       struct or null             xmin, ymin, xmax, ymax of the footprint, by which readers skip row groups

Patches are in the order of the store, one row group for each part. The metadata of the file has the key `geo`, and `landscale`
with everything that determines the content: see `embed`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from landscale.errors import BadInput, reason
from landscale.inference.footprints import as_wkb, boxes, footprint_corners
from landscale.runtime.files import atomic_file
from landscale.store import SPLITS, PatchStore

_KEY, _GEO = b"landscale", b"geo"
_KIND = "features"
_EDGES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class Features:
    """Features of patches, read from a file of features.

    values: (n, F) float32. names, splits: (n,) text. about: the metadata that `embed` wrote.
    """

    values: NDArray[np.float32]
    names: NDArray[np.str_]
    splits: NDArray[np.str_]
    about: Mapping[str, Any]


def write_features(
    out: Path,
    store: PatchStore,
    rows: NDArray[np.int64],
    parts: Iterable[NDArray[np.float32]],
    width: int,
    about: Mapping[str, Any],
) -> None:
    """Write the file completely or not at all. The same arguments give the same bytes.

    Args:
        out: replaced if it exists.
        rows: the patches, in order.
        parts: their features (≤ n, width), which together have a row for each of `rows`; each becomes a row group.
        width: number of features.
        about: metadata, as JSON.
    """
    corners = footprint_corners(store, rows)
    bounds = boxes(corners)
    names, splits = store.column("name")[rows], np.array(SPLITS)[store.splits[rows]]
    classes = np.array(store.layout.classes, object)
    metadata = {
        _KEY: json.dumps({"kind": _KIND, "width": width, **about}, ensure_ascii=False),
        _GEO: json.dumps(_geo(bounds)),
    }
    schema = pa.schema(
        {
            "name": pa.string(),
            "split": pa.string(),
            "labels": pa.list_(pa.string()),
            "features": pa.list_(pa.float32(), width),
            "geometry": pa.binary(),
            "bbox": pa.struct(dict.fromkeys(_EDGES, pa.float64())),
        },
        metadata,
    )
    small = [
        name for name in schema.names if name != "features"
    ]  # a dictionary of all features would be as large again
    start = 0
    with (
        atomic_file(out) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=small) as writer,
    ):
        for part in parts:
            here = slice(start, start + len(part))
            labels = [classes[flags.astype(bool)].tolist() for flags in store.classes[rows[here]]]
            placed = np.isfinite(bounds[here]).all(axis=1)
            columns = [
                pa.array(names[here].tolist(), pa.string()),
                pa.array(splits[here].tolist(), pa.string()),
                pa.array(labels, pa.list_(pa.string())),
                pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), width),
                pa.array(as_wkb(corners[here]), pa.binary()),
                pa.StructArray.from_arrays(
                    [pa.array(edge) for edge in bounds[here].T], list(_EDGES), mask=pa.array(~placed)
                ),
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=max(len(part), 1))
            start += len(part)


def read_about(file: Path) -> dict[str, Any]:
    """The metadata that `embed` wrote to a file of features.

    Raises:
        BadInput: it is missing, damaged, or no file of features.
    """
    try:
        metadata = pq.read_schema(file).metadata or {}
        about = json.loads(metadata.get(_KEY, b"null"))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise BadInput(file, f"is not a file of features ({reason(error)})") from None
    if not isinstance(about, dict) or about.get("kind") != _KIND:
        raise BadInput(file, "is not a file of features, as `landscale embed` writes it")
    return about


def read_features(file: str | Path) -> Features:
    """Read a file of features into memory, without labels and footprints.

    Raises:
        BadInput: it is missing, damaged, or no file of features.
    """
    file = Path(file)
    about = read_about(file)
    try:
        with pq.ParquetFile(file) as opened:
            table = opened.read(columns=["name", "split", "features"])
        width = table.schema.field("features").type.list_size
        # Row group by row group, because one array of Arrow holds at most 2³¹ values.
        parts = [chunk.flatten().to_numpy().reshape(-1, width) for chunk in table["features"].chunks]
        names, splits = (table[key].to_numpy().astype(str) for key in ("name", "split"))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(file, f"is not a file of features ({reason(error)})") from None
    return Features(np.concatenate(parts), names, splits, about)


def _geo(bounds: NDArray[np.float64]) -> dict[str, Any]:
    """The metadata `geo` of GeoParquet 1.1; without `crs`, coordinates are longitude and latitude (OGC:CRS84)."""
    placed = bounds[np.isfinite(bounds).all(axis=1)]
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": ["Polygon"],
        "orientation": "counterclockwise",
        "covering": {"bbox": {edge: ["bbox", edge] for edge in _EDGES}},
    }
    if len(placed):
        column["bbox"] = [*placed[:, :2].min(axis=0).tolist(), *placed[:, 2:].max(axis=0).tolist()]
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
