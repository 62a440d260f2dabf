"""Write a large synthetic BigEarthNet quickly: the patches of several days, whose files are hard links to those of one day."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import pandas as pd

from landscale.datasets.synthetic import bigearthnet_archive as synthetic

DAY = "20990101"  # date in the names of the synthetic archive


def write_days(root: Path, patches: int, days: int, layout: Literal["v1", "v2"]) -> Path:
    """Write an archive of `days` times `patches` patches with its metadata to `root/days`; returns its folder of patches."""
    one, many = root / "one", root / "days"
    synthetic.write_archive(one, patches, layout=layout)
    top = "BigEarthNet-v1.0" if layout == "v1" else "BigEarthNet-S2"
    names = [f"209901{day:02d}" for day in range(1, days + 1)]
    for folder, _, files in os.walk(one / top):
        for name in names:
            copy = Path(str(many / Path(folder).relative_to(one)).replace(DAY, name))
            copy.mkdir(parents=True, exist_ok=True)
            for file in files:
                os.link(Path(folder) / file, copy / file.replace(DAY, name))
    if layout == "v1":
        (many / "metadata").mkdir()
        for path in (one / "metadata").iterdir():
            (many / "metadata" / path.name).write_text("".join(path.read_text().replace(DAY, name) for name in names))
    else:
        table = pd.read_parquet(one / "metadata.parquet")
        parts = [table.assign(patch_id=table["patch_id"].str.replace(DAY, name)) for name in names]
        pd.concat(parts, ignore_index=True).to_parquet(many / "metadata.parquet")
    return many / top
