"""Land-cover classification for Sentinel-2 at scale: tiles → patch store → measured models → maps.

Importing it registers landscale's families with timm: `timm.create_model("wide_resnet_eca_b4", in_chans=10)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from landscale.models.registration import register_when_timm_is_imported

__version__ = "0.1.0"
__all__ = ["__version__", "load_model", "open_store"]

if TYPE_CHECKING:
    from landscale.models.weights import load_model
    from landscale.store import open_store

register_when_timm_is_imported()


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from landscale.models.weights import load_model

        return load_model
    if name == "open_store":
        from landscale.store import open_store

        return open_store
    raise AttributeError(f"module 'landscale' has no attribute '{name}'")
