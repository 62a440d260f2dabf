"""The registry of data sets, and a data set that is added from outside the package."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest

import landscale.datasets
from conftest import Cli
from landscale.datasets import dataset_names, load_dataset, register_dataset
from landscale.errors import LandscaleError
from landscale.preparation import prepare
from landscale.store import open_store

# Patches of one band whose pixels all have the value in the file's name.
MODULE = '''
"""A data set for this test: patches `VALUE.patch`."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from landscale.datasets.options import SEED, Option
from landscale.datasets.splits import split_code
from landscale.datasets.survey import PatchDetails, OneByOne, Survey
from landscale.store import Layout, Plane

OPTIONS = (SEED, Option("added", "a number added to every pixel", int))


@dataclass(frozen=True)
class ConstantReader:
    added: int

    def __call__(self, where, planes, classes):
        planes["data_10m"][:] = int(Path(where).stem) + self.added
        return PatchDetails()


def survey(inputs, seed=0, added=0, workers=None):
    rows = [(path.stem, str(path), split) for split, folder in inputs for path in sorted(folder.glob("*.patch"))]
    table = pd.DataFrame(rows, columns=["name", "location", "split"])
    table["split"] = [split_code(split or "train", "here") for split in table["split"]]
    layout = Layout((Plane("data_10m", ("B02",), 8, gsd=10.0),), ("Forest", "River"), "custom", multi_label=False)
    classes = np.eye(2, dtype=np.uint8)[np.arange(len(table)) % 2]
    return Survey(layout, table, classes, OneByOne(ConstantReader(added)), {"source": "constant", "workers": workers})
'''


@pytest.fixture
def constant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three patches; the module that reads them can be imported as `constant_patches`."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "constant_patches.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    known = landscale.datasets._modules().copy()
    monkeypatch.setattr(landscale.datasets, "_modules", lambda: known)
    monkeypatch.delitem(sys.modules, "constant_patches", raising=False)
    folder = tmp_path / "patches"
    folder.mkdir()
    for value in (7, 20, 300):
        (folder / f"{value}.patch").touch()
    return folder


def test_the_command_prepares_a_data_set_of_another_package(constant: Path, tmp_path: Path, cli: Cli) -> None:
    register_dataset("constant", "constant_patches")
    words = ("prepare", "constant", f"test={constant}", "--added", 5, tmp_path / "s.h5", "--workers", 1)
    answer = cli(*words)
    assert answer.code == 0, answer.lines
    store = open_store(tmp_path / "s.h5")
    values = dict(
        zip(store.column("name").tolist(), store.pixels("data_10m", range(3))[:, 0, 0, 0].tolist(), strict=True)
    )
    assert values == {"7": 12, "20": 25, "300": 305}
    assert store.split_sizes() == {"test": 3}
    assert store.attributes["provenance"]["workers"] == 1
    shown = cli("prepare", "constant", "--help").out
    assert "--added" in shown
    assert "--corine" not in shown
    refused = cli("prepare", "constant", constant, tmp_path / "t.h5", "--corine", "map.gpkg")
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert "prepare constant: takes no --corine" in refused.lines[0]


def test_python_prepares_a_data_set_of_another_package(constant: Path, tmp_path: Path) -> None:
    register_dataset("constant", "constant_patches")
    result = prepare("constant", {"val": str(constant)}, str(tmp_path / "s.h5"), added=1, seed=None)
    assert (result.store, result.patches, result.written, result.skipped) == (tmp_path / "s.h5", 3, 3, [])
    assert np.array_equal(np.sort(open_store(result.store).pixels("data_10m", range(3))[:, 0, 3, 3]), [8, 21, 301])
    assert prepare("constant", [("val", constant)], tmp_path / "s.h5", added=1).written == 0
    with pytest.raises(LandscaleError, match="prepare constant: takes no --lists"):
        prepare("constant", constant, tmp_path / "t.h5", lists=tmp_path)


def test_installed_packages_register_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("constant", "constant_patches", "landscale.datasets")]
    points.append(EntryPoint("eurosat", "elsewhere", "landscale.datasets"))  # a name of landscale's own
    monkeypatch.setattr(
        landscale.datasets, "entry_points", lambda group: points if group == "landscale.datasets" else []
    )
    modules = landscale.datasets._modules.__wrapped__()
    assert modules["constant"] == "constant_patches"
    assert modules["eurosat"] == "landscale.datasets.eurosat"


def test_a_registered_name_is_refused_for_another_module(constant: Path) -> None:
    register_dataset("constant", "constant_patches")
    register_dataset("constant", "constant_patches")
    with pytest.raises(LandscaleError, match="is registered already, as constant_patches"):
        register_dataset("constant", "other_patches")
    assert dataset_names().count("constant") == 1


def test_modules_that_are_no_data_sets_are_refused(constant: Path) -> None:
    for name, module in (("missing", "there.is.no.such"), ("json", "json")):
        register_dataset(name, module)
        with pytest.raises(LandscaleError, match=f"data set {name}: module {module} cannot be used"):
            load_dataset(name)


@pytest.mark.parametrize("name", dataset_names())
def test_declared_options_are_the_arguments_of_the_survey(name: str) -> None:
    dataset = load_dataset(name)
    arguments = set(inspect.signature(dataset.survey_function).parameters) - {"inputs", "workers"}
    assert {option.name for option in dataset.options} == arguments


def test_help_imports_no_data_set() -> None:
    code = (
        "import sys; sys.argv = ['landscale']\n"
        "from landscale.cli import main\n"
        "try: main(['prepare', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'pandas', 'rasterio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
