"""Explain the bundled classifiers on published patches of BigEarthNet v2: the deletion test and the importance of bands.

    python benchmarks/explain.py BigEarthNet-v2 [--picture docs/images/explain.png]

BigEarthNet-v2 is the folder of the data set with metadata.parquet. The patches are those of the val split, on which the recipe of
the weights was tuned. The picture shows the most certain true positives of six classes, each next to its heat map.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from command_line import landscale
from rounds import record

from landscale.explain.page import overlay
from landscale.report.charts import Picture, picture_sheet
from landscale.report.true_colour import true_colour
from landscale.runtime.documents import read_json
from landscale.store import PatchStore, open_store

WEIGHTS = ("bigearthnet-s2-12", "bigearthnet-s2-10")
PATCHES, PICTURES = 5, 6


def measure(name: str, store: Path, out: Path) -> dict[str, Any]:
    words = ("--split", "val", "--patches", str(PATCHES))
    seconds = landscale("explain", f"bundled:{name}", store, out, *words)
    summary: Any = read_json(out / "explanation.json")
    deletion = summary["deletion"]
    deletion["faster_share"] = deletion["faster_than_moved"] / deletion["patches"]
    bands = {row["bands"]: row["importance"] for row in summary["bands"] if row["method"] == "permutation"}
    return {"patches": summary["patches"], "deletion": deletion, "permutation": bands, "seconds": round(seconds, 1)}


def picture(store: PatchStore, out: Path) -> bytes:
    listed = pd.read_csv(out / "heat_maps.csv")
    listed = listed[listed["kind"] == "true positive"].sort_values("probability", ascending=False, kind="stable")
    chosen = listed.drop_duplicates("class").head(PICTURES)
    names = store.column("name").tolist()
    colours = true_colour(store, np.array([names.index(name) for name in chosen["patch"]], np.int64))
    sheet = []
    for row, pixels in zip(chosen.to_dict("records"), colours, strict=True):
        with rasterio.open(out / str(row["file"])) as file:
            heat = file.read(1)
        shown = [f"probability {row['probability']:.2f}"]
        sheet += [Picture(pixels, [str(row["class"])]), Picture(overlay(pixels, heat), shown)]
    return picture_sheet(sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "v2.h5"
        landscale("prepare", "bigearthnet", options.data, store)
        found = {name: measure(name, store, Path(folder) / name) for name in WEIGHTS}
        if options.picture:
            options.picture.write_bytes(picture(open_store(store), Path(folder) / WEIGHTS[0]))
    record("explain", {"weights": found})


if __name__ == "__main__":
    main()
