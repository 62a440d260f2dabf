"""Train DSen2 on one scene and measure it on others by Wald's protocol, against bicubic interpolation.

    python benchmarks/superres.py SCENE OTHER… [--max-time 30m]

OTHER is a scene, or a folder of many (such as BigEarthNet's patches), whose errors are averaged. The root mean square error is
in digital numbers; a ratio below 1 is better than bicubic.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rounds import record

from landscale.superres.evaluate import evaluate_on_scene
from landscale.superres.superresolver import Superresolver
from landscale.superres.weights import read_superres_config


def main(scene: Path, others: list[Path], max_time: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "dsen2"
        program = Path(sys.executable).with_name("landscale")
        subprocess.run([program, "superres", "train", scene, weights, "--max-time", max_time], check=True)
        superresolver = Superresolver.load(weights, torch.device("cpu"))
        provenance = read_superres_config(weights)["provenance"]
        figures = {path.name: mean_errors(superresolver, path) for path in (scene, *others)}
    provenance = {key: value for key, value in provenance.items() if key.startswith(("seconds", "steps"))}
    record("superres", {"scene": scene.name, "max_time": max_time, **provenance, "figures": figures})


def mean_errors(superresolver: Superresolver, path: Path) -> dict[str, Any]:
    """Root mean square errors over the scenes in a folder, which all have the same size."""
    rows = [evaluate_on_scene(superresolver, scene) for scene in scenes(path)]
    found: dict[str, Any] = {"scenes": len(rows)}
    for gsd in (gsd for gsd in superresolver.networks if f"rmse_{gsd}m" in rows[0]):
        dsen2, bicubic = (
            math.sqrt(sum(row[f"{key}_{gsd}m"] ** 2 for row in rows) / len(rows)) for key in ("rmse", "bicubic_rmse")
        )
        found |= {f"rmse_{gsd}m": dsen2, f"bicubic_rmse_{gsd}m": bicubic, f"ratio_{gsd}m": dsen2 / bicubic}
    return found


def scenes(path: Path) -> list[Path]:
    """All patches below a folder, or the folder itself if it is a scene."""
    return sorted({file.parent for file in path.rglob("*_B02.tif")}) or [path]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("others", nargs="+", type=Path)
    parser.add_argument("--max-time", default="30m")
    options = parser.parse_args()
    main(options.scene, options.others, options.max_time)
