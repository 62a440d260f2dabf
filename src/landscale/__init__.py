"""Land-cover classification for Sentinel-2 at scale: patch store, preparation, training, scores and maps.

    import landscale

    landscale.prepare("bigearthnet", "BigEarthNet-v2", "ben.h5")
    scores = landscale.train("papoutsis2022", "ben.h5", "runs/eca")
    model = landscale.load_model("runs/eca")
    landscale.evaluate(model, "ben.h5", split="test")
    landscale.predict(model, "S2A_MSIL2A_20220706T085611_N0400_R007_T33NZA.SAFE", "map.tif")

Every path may be text or a `Path`. Errors that a user can correct are `LandscaleError`s with a message of one line.

The names in `__all__` are the public interface. Each is imported when it is first used, so that `import landscale` does
not import torch. It also registers the networks with timm: `timm.create_model("wide_resnet_eca_b4", in_chans=10)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from landscale.errors import BadInput, BadStore, Diverged, LandscaleError, LostRank, UnknownName
from landscale.models.registration import register_when_timm_is_imported

if TYPE_CHECKING:
    from landscale.explain.explain import explain
    from landscale.export.weights import export_model
    from landscale.inference.embed import embed
    from landscale.inference.evaluate import evaluate
    from landscale.inference.pixel_scores import PixelScores
    from landscale.inference.scores import Scores
    from landscale.maps.predict import predict
    from landscale.models.encoders import load_encoder as load_model
    from landscale.models.registry import create_model, list_models
    from landscale.preparation import prepare
    from landscale.probing import probe
    from landscale.store import open_store
    from landscale.training.recipe import Recipe
    from landscale.training.training import train

__version__ = "0.1.0"
__all__ = [
    "BadInput",
    "BadStore",
    "Diverged",
    "LandscaleError",
    "LostRank",
    "PixelScores",
    "Recipe",
    "Scores",
    "UnknownName",
    "__version__",
    "create_model",
    "embed",
    "evaluate",
    "explain",
    "export_model",
    "list_models",
    "load_model",
    "open_store",
    "predict",
    "prepare",
    "probe",
    "train",
]

_MODULES = {
    "PixelScores": "landscale.inference.pixel_scores",
    "Recipe": "landscale.training.recipe",
    "Scores": "landscale.inference.scores",
    "create_model": "landscale.models.registry",
    "embed": "landscale.inference.embed",
    "evaluate": "landscale.inference.evaluate",
    "explain": "landscale.explain.explain",
    "export_model": "landscale.export.weights",
    "list_models": "landscale.models.registry",
    "load_model": "landscale.models.encoders:load_encoder",
    "open_store": "landscale.store",
    "predict": "landscale.maps.predict",
    "prepare": "landscale.preparation",
    "probe": "landscale.probing",
    "train": "landscale.training.training",
}

register_when_timm_is_imported()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'landscale' has no attribute '{name}'")
    module, _, called_there = _MODULES[name].partition(":")
    return getattr(import_module(module), called_there or name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
