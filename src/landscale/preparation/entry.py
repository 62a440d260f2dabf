"""Prepare a store: from a data set's name and files, or from a survey."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.datasets import load_dataset
from landscale.datasets.sequential import SequentialSurvey
from landscale.datasets.survey import Survey
from landscale.errors import LandscaleError
from landscale.preparation.random_access import prepare_random_access
from landscale.preparation.ranks import on_first_rank
from landscale.preparation.result import PreparationResult
from landscale.runtime.workers import start_fork_server

if TYPE_CHECKING:  # it imports torch, which a preparation by one process does not need
    from landscale.distributed import Ranks

AnySurvey = Survey | SequentialSurvey
Inputs = str | Path | Sequence[str | Path | tuple[str | None, str | Path]] | Mapping[str, str | Path]


def prepare(
    dataset: str,
    inputs: Inputs,
    store: str | Path,
    *,
    workers: int = 1,
    skip_bad: bool = False,
    scheduler: str | None = None,
    ranks: Ranks | None = None,
    extend: Callable[[AnySurvey], AnySurvey] | None = None,
    **options: Any,
) -> PreparationResult:
    """Read a data set's files into a patch store. Call it again to resume after a kill.

        landscale.prepare("eurosat", "EuroSAT_RGB.zip", "eurosat.h5")
        landscale.prepare("bigearthnet", {"train": "north", "test": "south"}, "ben.h5", workers=8, labels="ben19")

    Args:
        dataset: a name of `landscale.datasets.dataset_names()`.
        inputs: a path, several paths, or paths by the split that all of their patches go to (train, val or test).
        store: the file to make; its folder is created.
        workers: processes on this machine, for each rank. A script that asks for more than one needs
            `if __name__ == "__main__":`, as everywhere in Python.
        skip_bad: leave damaged patches out.
        scheduler: address of a dask scheduler whose workers do the work instead.
        ranks: processes of a launcher that divide the work; `store` and `inputs` must be on a shared file system.
        extend: changes the survey before anything is read; `landscale.superres.stored` makes one that adds upsampled bands.
        options: what the data set takes: see `landscale prepare DATASET --help`, with underscores instead of hyphens.

    Raises:
        UnknownName: no such data set. BadInput: the files are not those of the data set, or damaged.
        LandscaleError: an option that the data set does not take; a damaged patch, unless `skip_bad`.
        BadStore: `store` holds something else already.
    """
    alone = not scheduler and ranks is None
    if workers > 1 and alone and not load_dataset(dataset).is_sequential(_pairs(inputs)):
        start_fork_server()  # it imports what the workers need while this process surveys the data set
    survey = survey_dataset(
        dataset, inputs, workers=workers, scheduler=scheduler, ranks=ranks, extend=extend, options=options
    )
    return prepare_survey(survey, store, workers, skip_bad=skip_bad, scheduler=scheduler, ranks=ranks)


def survey_dataset(
    dataset: str,
    inputs: Inputs,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    ranks: Ranks | None = None,
    extend: Callable[[AnySurvey], AnySurvey] | None = None,
    options: Mapping[str, Any],
) -> AnySurvey:
    """Survey a data set's files; arguments and errors are those of `prepare`. All ranks get the survey of the first."""
    found, pairs = load_dataset(dataset), _pairs(inputs)
    given = {name: value for name, value in options.items() if value is not None}
    readers = workers * (ranks.world if ranks else 1)

    def survey() -> AnySurvey:
        surveyed = found.survey(pairs, readers, given)
        if isinstance(surveyed, SequentialSurvey) and (scheduler or ranks):
            problem = "it takes no --scheduler" if scheduler else "found several ranks"
            raise LandscaleError(f"prepare {dataset}: an archive is read by one process; {problem}")
        return extend(surveyed) if extend else surveyed

    return on_first_rank(ranks, survey)


def prepare_survey(
    survey: AnySurvey,
    store: str | Path,
    workers: int = 1,
    *,
    skip_bad: bool = False,
    scheduler: str | None = None,
    ranks: Ranks | None = None,
) -> PreparationResult:
    """Read the patches of a survey into a patch store. Call it again to resume after a kill.

    Args:
        survey: the same on all ranks. A `SequentialSurvey` is read by this process alone.
        store: the file to make; its folder is created.
        workers: processes on this machine, for each rank.
        skip_bad: leave damaged patches out.
        scheduler: address of a dask scheduler whose workers do the work instead.
        ranks: processes of a launcher that divide the work; the store must be on a shared file system.

    Raises:
        LandscaleError: a damaged patch (unless `skip_bad`); patches that are written are kept for the next call.
        BadStore: `store` holds something else already.
    """
    path = Path(store)
    if isinstance(survey, SequentialSurvey):
        from landscale.preparation.sequential import prepare_sequential  # folders do not need it

        return prepare_sequential(survey, path, skip_bad=skip_bad)
    result = prepare_random_access(survey, path, workers, skip_bad=skip_bad, scheduler=scheduler, ranks=ranks)
    return replace(result, notes=survey.notes)


def _pairs(inputs: Inputs) -> list[tuple[str | None, Path]]:
    """Split or None, and path, of each input."""
    if isinstance(inputs, Mapping):
        return [(split, Path(path)) for split, path in inputs.items()]
    if isinstance(inputs, str | Path):
        return [(None, Path(inputs))]
    pairs = [one if isinstance(one, tuple) else (None, one) for one in inputs]
    return [(split, Path(path)) for split, path in pairs]
