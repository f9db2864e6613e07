"""Modules that libraries import for what no command of ours does: they are loaded once something is asked of them.

In a command's own process alone: elsewhere other code may rely on what such a module does when it is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

MODULES = ("torch._meta_registrations",)
"""Shapes of operators without data, for compilers and exporters of models: a third of torch's import."""


class _Late(ModuleType):
    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what `inspect` asks of all modules
            raise AttributeError(name)
        self.__class__ = ModuleType
        loader = self.__loader__
        assert isinstance(loader, _Later)
        loader.own.exec_module(self)
        return getattr(self, name)


class _Later(Loader):
    def __init__(self, own: Loader) -> None:
        self.own = own

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Late(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in MODULES else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


def load_late() -> None:
    """From now on `MODULES` wait."""
    sys.meta_path.insert(0, _Finder())
