"""Land-cover classification for Sentinel-2 at scale: tiles → patch store → measured models → maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model", "open_store"]

if TYPE_CHECKING:
    from landscale.store import open_store
    from landscale.weights import load_model


def __getattr__(name: str) -> Any:
    """The public names, imported when first used: the command line and the workers of `prepare` start without torch."""
    if name == "load_model":
        from landscale.weights import load_model

        return load_model
    if name == "open_store":
        from landscale.store import open_store

        return open_store
    raise AttributeError(f"module 'landscale' has no attribute '{name}'")
