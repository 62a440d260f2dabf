"""Compare the unit and processing level of a scene or store with those of super-resolution networks.

The networks take digital numbers. The relation between their bands differs between levels: the atmosphere blurs and brightens
short wavelengths in level 1C.
"""

from __future__ import annotations

from pathlib import Path

from landscale.errors import BadInput
from landscale.runtime.progress import print_notes
from landscale.scenes.pixels import ScenePixels
from landscale.scenes.scene import Scene
from landscale.superres.planes import GROUPS
from landscale.vocabulary.units import RANGES, Level, differ, unit_name


def check_units(scene: Scene, pixels: ScenePixels, level: Level = "unknown") -> None:
    """Print a line where a scene is converted, is of another level than the networks, or has implausible pixels.

    Args:
        scene: with all bands of 10 m open in `pixels`.
        level: that of the networks; unknown before a training.

    Raises:
        BadInput: its unit cannot be converted into digital numbers, or its offset is unknown and its numbers look shifted.
    """
    if scene.pixel_unit not in ("digital number", "unknown"):
        raise BadInput(scene.folder, f"holds {unit_name(scene.pixel_unit)}, expected digital numbers or reflectance")
    pixels.check_offset()
    notes = []
    if scene.unit == "reflectance":
        notes.append(f"{scene.folder}: {unit_name(scene.unit)} converted into digital numbers")
    if scene.unit == "unknown":
        largest = max(int(pixels.harmonise(pixels.sample(band)).max()) for band in GROUPS[10])
        if largest <= RANGES["8-bit"][1]:
            notes.append(
                f"{scene.folder}: warning: its numbers reach {largest} only, like those of 8-bit pictures, but are taken for"
                " digital numbers"
            )
    print_notes(notes + compare_levels(scene.folder, scene.level, level))


def compare_levels(path: Path | str, found: Level, level: Level) -> list[str]:
    """A line if a scene or store is of another level than the networks, else none."""
    if not differ(found, level):
        return []
    return [f"{path}: warning: is of level {found}, but the networks were trained on {level}"]
