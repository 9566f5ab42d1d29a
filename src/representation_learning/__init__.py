"""The older name of avex: every module below it *is* avex's module of the same name.

`from representation_learning.models.base_model import ModelBase` and the same import from `avex` give one
object, so classes compare equal and pickles made under either name load under both.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import avex
from avex import __all__ as __all__
from avex import __version__ as __version__

_PREFIX = __name__ + "."


class _AliasLoader(Loader):
    """Hands out a module of avex under its older name."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just given avex's module the alias's spec: put its own back.
        module.__spec__ = self._spec


class _AliasFinder(MetaPathFinder):
    """Finds `representation_learning.x.y` as `avex.x.y`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        name = "avex." + fullname[len(_PREFIX) :]
        found = importlib.util.find_spec(name)
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(fullname, _AliasLoader(name), origin=found.origin, is_package=is_package)


if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _AliasFinder())


def __getattr__(name: str) -> Any:
    return getattr(avex, name)


def __dir__() -> list[str]:
    return dir(avex)
