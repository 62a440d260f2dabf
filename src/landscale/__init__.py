"""Land-cover classification for Sentinel-2 at scale: tiles → patch store → measured models → maps.

Importing it registers landscale's families with timm: `timm.create_model("wide_resnet_eca_b4", in_chans=10)`.
"""

from __future__ import annotations

import sys
from multiprocessing import parent_process
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_model", "open_store"]

if TYPE_CHECKING:
    from landscale.models.weights import load_model
    from landscale.store import open_store

# The command and its worker processes import what they need when they need it: `landscale info` waits for no torch.
_IS_COMMAND = sys.argv and sys.argv[0].endswith(("landscale", "-m"))
_IS_WORKER = any("multiprocessing" in word for word in sys.orig_argv) or parent_process() is not None
if not (_IS_COMMAND or _IS_WORKER):
    import landscale.models.families  # noqa: F401


def __getattr__(name: str) -> Any:
    if name == "load_model":
        from landscale.models.weights import load_model

        return load_model
    if name == "open_store":
        from landscale.store import open_store

        return open_store
    raise AttributeError(f"module 'landscale' has no attribute '{name}'")
