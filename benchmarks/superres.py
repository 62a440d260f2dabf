"""DSen2 learned from one scene, and how well it restores others that it never saw, against bicubic at the reduced scale.

    python benchmarks/superres.py SCENE OTHER… [--max-time 30m]

OTHER is a scene, or a folder with many of them, as BigEarthNet's patches are; their errors are put together. The root mean
square error is in digital numbers; a ratio below 1 is better than bicubic.
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

from landscale.superres.evaluate import evaluate
from landscale.superres.superresolver import Superresolver
from landscale.superres.weights import read_superres_config


def main(scene: Path, others: list[Path], max_time: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "dsen2"
        program = Path(sys.executable).with_name("landscale")
        subprocess.run([program, "superres", "train", scene, weights, "--max-time", max_time], check=True)
        superresolver = Superresolver.load(weights, torch.device("cpu"))
        learned = read_superres_config(weights)["provenance"]
        figures = {path.name: together(superresolver, path) for path in (scene, *others)}
    learned = {key: value for key, value in learned.items() if key.startswith(("seconds", "steps"))}
    record("superres", {"scene": scene.name, "max_time": max_time, **learned, "figures": figures})


def together(superresolver: Superresolver, path: Path) -> dict[str, Any]:
    """The errors over all scenes in a folder that are of one size."""
    rows = [evaluate(superresolver, scene) for scene in scenes(path)]
    found: dict[str, Any] = {"scenes": len(rows)}
    for gsd in (gsd for gsd in superresolver.networks if f"rmse_{gsd}m" in rows[0]):
        ours, bicubic = (
            math.sqrt(sum(row[f"{key}_{gsd}m"] ** 2 for row in rows) / len(rows)) for key in ("rmse", "bicubic_rmse")
        )
        found |= {f"rmse_{gsd}m": ours, f"bicubic_rmse_{gsd}m": bicubic, f"ratio_{gsd}m": ours / bicubic}
    return found


def scenes(path: Path) -> list[Path]:
    """All patches below a path, or the scene that it is."""
    return sorted({file.parent for file in path.rglob("*_B02.tif")}) or [path]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("scene", type=Path)
    parser.add_argument("others", nargs="+", type=Path)
    parser.add_argument("--max-time", default="30m")
    options = parser.parse_args()
    main(options.scene, options.others, options.max_time)
