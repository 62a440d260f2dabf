"""The public Python interface: complete, documented, typed, and usable with paths as text."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import landscale
from landscale.errors import BadStore

NAMES = {
    *("open_store", "prepare", "train", "evaluate", "predict", "embed", "probe", "load_model", "create_model"),
    *("list_models", "export_model", "explain"),
    *(
        "Recipe",
        "Scores",
        "PixelScores",
        "LandscaleError",
        "UnknownName",
        "BadInput",
        "BadStore",
        "Diverged",
        "LostRank",
        "__version__",
    ),
}


def test_the_interface_is_exactly_these_names():
    assert set(landscale.__all__) == NAMES
    assert set(dir(landscale)) >= NAMES
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = landscale.trian


@pytest.mark.parametrize("name", sorted(NAMES - {"__version__"}))
def test_every_name_is_documented_and_typed(name):
    value = getattr(landscale, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())


def test_importing_it_needs_no_torch():
    code = "import sys, landscale; print(sorted({'torch', 'timm', 'pandas', 'rasterio'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", [str, pytest.param(Path, marks=pytest.mark.slow)])
def test_from_data_to_map_in_python(kind, tmp_path):
    """Prepare, train, evaluate, load and predict, with every path as text or as a Path."""
    archive, store, run, chart = (kind(tmp_path / name) for name in ("archive", "store.h5", "run", "map.tif"))
    result = landscale.prepare("synthetic", archive, store, patches=24)
    assert result.patches == 24
    assert landscale.open_store(store).layout.side == 120

    recipe = landscale.Recipe(model="wide_resnet", bands="rgb", side=24, epochs=1, batch=8, precision="fp32")
    scores = landscale.train(recipe, store, run)
    assert isinstance(scores, landscale.Scores)

    tested = landscale.evaluate(run, store, split="test", show=False)
    assert tested.split == "test"
    assert tested == landscale.evaluate(landscale.load_model(run), landscale.open_store(store), show=False)
    assert dataclasses.is_dataclass(tested)

    (scene,) = Path(archive).glob("scene/*")
    landscale.predict(landscale.load_model(run), kind(scene), chart, stride=120)
    assert Path(chart).stat().st_size > 0


def test_a_missing_store_is_an_error_of_one_line(tmp_path):
    with pytest.raises(BadStore) as caught:
        landscale.open_store(str(tmp_path / "none.h5"))
    assert "\n" not in str(caught.value)
    assert issubclass(BadStore, landscale.LandscaleError)


def test_models_by_name():
    names = landscale.list_models()
    assert "wide_resnet_eca_b4" in names
    network = landscale.create_model("wide_resnet", bands=4, classes=3)
    assert sum(p.numel() for p in network.parameters()) > 0
    with pytest.raises(landscale.UnknownName, match="wide_resnet"):
        landscale.create_model("wide_resnett", bands=4, classes=3)
