"""Register landscale's networks with timm as soon as any module imports timm.

`import landscale` must not import timm, which takes seconds because it imports torch. But once both are imported, in
either order, `timm.create_model("wide_resnet_eca_b4")` must work. So if timm is not imported yet, a finder is added to
`sys.meta_path`. It finds no modules itself, but wraps the loaders of timm and of the modules of `landscale.models`.

The networks are registered at the end of the outermost of these imports. It cannot be done earlier: if a module of
`landscale.models` imports timm, that module is incomplete until then, and the networks need it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_when_timm_is_imported() -> None:
    """Register the networks now if timm is imported already, else right after it has been imported."""
    if "timm" in sys.modules:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _register() -> None:
    import_module("landscale.models.families")


class _Finder(MetaPathFinder):
    """Finds timm and the modules of `landscale.models` by the other finders, and wraps their loaders."""

    def __init__(self) -> None:
        self._nested = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm" and not fullname.startswith("landscale.models."):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(fullname, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Wrapped(spec.loader, self)
        return spec

    def execute(self, loader: Loader, module: ModuleType) -> None:
        """Execute a module; after the outermost one, register the networks if timm has been imported."""
        depth = getattr(self._nested, "depth", 0)
        self._nested.depth = depth + 1
        try:
            loader.exec_module(module)
        finally:
            self._nested.depth = depth
        if depth == 0 and "timm" in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            _register()


class _Wrapped(Loader):
    """Wraps a loader: modules are executed by the finder; everything else is forwarded to the wrapped loader."""

    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._finder.execute(self._loader, module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
