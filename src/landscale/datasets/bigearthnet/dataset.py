"""The data set `bigearthnet` of `landscale prepare`: folders, or the published archives.

The readers are imported by `survey`, since the options are needed earlier: the workers' fork server then imports its
modules at the same time as this process imports pandas, which takes as long as preparing a thousand patches.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from landscale.datasets.options import LISTS, Option, labels_option
from landscale.errors import BadInput
from landscale.formats.names import is_archive

if TYPE_CHECKING:
    from landscale.datasets.sequential import SequentialSurvey
    from landscale.datasets.survey import Survey

REFERENCE_MAPS = Option(
    "reference_maps", "the folder Reference_Maps of v2: also store the class of every pixel", Path, "DIR"
)
OPTIONS = (labels_option("clc43 or ben19 (default: ben19, and clc43 for v1)"), LISTS, REFERENCE_MAPS)


def survey(
    inputs: list[tuple[str | None, Path]],
    labels: str | None = None,
    lists: Path | None = None,
    reference_maps: Path | None = None,
) -> Survey | SequentialSurvey:
    """Survey folders (`folders.survey`), or, if all inputs are archives, the archives (`survey_archives`)."""
    if is_sequential(inputs):
        from landscale.datasets.bigearthnet.archive import survey_archives

        if reference_maps is not None:
            raise BadInput(
                reference_maps, "reference maps are read with folders of patches; unpack BigEarthNet-S2 first"
            )

        return survey_archives(inputs, labels, lists)
    from landscale.datasets.bigearthnet import folders

    return folders.survey(inputs, labels, lists, reference_maps)


def is_sequential(inputs: list[tuple[str | None, Path]]) -> bool:
    """Whether the inputs are archives to be read without unpacking them."""
    return all(is_archive(path) for _, path in inputs)
