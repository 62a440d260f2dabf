"""Data sets: which patches each of them contains (a survey), and how to read them.

A data set is a module with `OPTIONS`, the options that it takes (`datasets.options`), and a function
`survey(inputs, **options)`, which returns a `Survey` or a `SequentialSurvey`. `inputs` is a list of (split or None, path). If
`survey` has a parameter `workers`, it is given the number of processes that will read. A module whose inputs may be archives
that are read in file order also has `is_sequential(inputs)`.

To add one, write such a module and add its line to `_MODULES`. A package outside landscale registers its own, either by an
entry point (`[project.entry-points."landscale.datasets"]`, `NAME = "package.module"`) or by calling `register_dataset`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landscale.errors import LandscaleError, UnknownName, reason

if TYPE_CHECKING:  # a data set's module is imported when it is used
    from landscale.datasets.options import Option
    from landscale.datasets.sequential import SequentialSurvey
    from landscale.datasets.survey import Survey

SplitInputs = Sequence[tuple[str | None, Path]]
ENTRY_POINTS = "landscale.datasets"
_MODULES = {  # landscale's own; those of other packages are looked for only if another one is asked for
    "bigearthnet": "landscale.datasets.bigearthnet.dataset",
    "tiles": "landscale.datasets.tiles.survey",
    "lmdb": "landscale.datasets.bigearthnet.lmdb",
    "eurosat": "landscale.datasets.eurosat",
    "folder": "landscale.datasets.folder",
    "uc_merced": "landscale.datasets.uc_merced",
    "sen12ms": "landscale.datasets.sen12ms",
    "so2sat": "landscale.datasets.so2sat",
    "torchgeo": "landscale.datasets.torchgeo",
    "synthetic": "landscale.datasets.synthetic.bigearthnet_archive",
}


@dataclass(frozen=True)
class Dataset:
    """A registered data set: its name, its options, and its module's functions `survey` and `is_sequential`."""

    name: str
    options: tuple[Option, ...]
    survey_function: Callable[..., Survey | SequentialSurvey]
    sequential_function: Callable[[SplitInputs], bool]

    def is_sequential(self, inputs: SplitInputs) -> bool:
        """Whether these inputs are read once, in file order, by one process."""
        return self.sequential_function(inputs)

    def survey(self, inputs: SplitInputs, workers: int, options: Mapping[str, Any]) -> Survey | SequentialSurvey:
        """Survey the inputs.

        Args:
            inputs: split or None, and a path.
            workers: the number of processes that will read.
            options: values by name, of `self.options`.

        Raises:
            LandscaleError: an option that the data set does not take, or see the data set.
        """
        known = {option.name for option in self.options}
        if foreign := [name for name in options if name not in known]:
            raise LandscaleError(f"prepare {self.name}: takes no --{foreign[0].replace('_', '-')}")
        given = dict(options)
        if "workers" in inspect.signature(self.survey_function).parameters:
            given["workers"] = workers
        return self.survey_function(list(inputs), **given)


def register_dataset(name: str, module: str) -> None:
    """Register the data set of an importable module under a name.

    Raises:
        LandscaleError: another data set has that name.
    """
    if _modules().setdefault(name, module) != module:
        raise LandscaleError(f"data set {name}: is registered already, as {_modules()[name]}; choose another name")


def dataset_names() -> list[str]:
    """The names of all registered data sets."""
    return list(_modules())


def own_dataset_names() -> list[str]:
    """The names of landscale's own data sets."""
    return list(_MODULES)


def load_dataset(name: str) -> Dataset:
    """Import a data set's module.

    Raises:
        UnknownName: no data set has that name. LandscaleError: its module cannot be imported, or is not one of a data set.
    """
    path = _MODULES.get(name) or _modules().get(name)
    if path is None:
        raise UnknownName("data set", name, _modules())
    try:
        module = import_module(path)
        return Dataset(name, module.OPTIONS, module.survey, getattr(module, "is_sequential", lambda _: False))
    except (ImportError, AttributeError) as error:
        raise LandscaleError(f"data set {name}: module {path} cannot be used ({reason(error)})") from None


@cache
def _modules() -> dict[str, str]:
    """Module by name: landscale's own data sets, and those of installed packages whose names landscale does not use."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)} | _MODULES
