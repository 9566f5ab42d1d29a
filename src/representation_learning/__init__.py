"""The older name of avex: every module below it *is* avex's module of the same name.

`from representation_learning.models.base_model import ModelBase` and the same import from `avex` give one
object, so classes compare equal and pickles made under either name load under both. It holds as well for
`python -m representation_learning.MODULE`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import avex
from avex import __all__ as __all__
from avex import __version__ as __version__

if TYPE_CHECKING:
    from avex import *  # noqa: F403

_PREFIX = __name__ + "."


# Loader and finder derive from nothing: `importlib.abc` alone would take longer to import than all of this.


class _AliasLoader:
    """Hands out the module of avex that `target` specifies under its older name."""

    def __init__(self, target: ModuleSpec) -> None:
        self._target = target
        self._name = ""
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target.name)
        self._name, self._spec = spec.name, module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just given avex's module the alias's spec: put its own back.
        module.__spec__ = self._spec
        parent, _, child = self._name.rpartition(".")
        public = vars(sys.modules[parent]).get(child)
        if public is not None and public is not module:
            # A package may offer a function under the name of its module (`avex.io.fetch`); that has to stay.
            sys.modules[parent] = _Shield(parent, sys.modules[parent])

    def get_code(self, fullname: str) -> CodeType | None:
        """The code that `python -m` runs."""
        return self._target.loader.get_code(self._target.name)  # type: ignore[union-attr]


class _Shield(ModuleType):
    """Stands in for a package until the import system has set a sub-module on it, and keeps it as it is."""

    def __init__(self, name: str, package: ModuleType) -> None:
        super().__init__(name)
        self.__dict__["package"] = package

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["package"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        sys.modules[self.__name__] = self.__dict__["package"]


class _AliasFinder:
    """Finds `representation_learning.x.y` as `avex.x.y`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        from importlib.util import find_spec

        found = find_spec("avex." + fullname[len(_PREFIX) :])
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        loader: Any = _AliasLoader(found)
        return ModuleSpec(fullname, loader, origin=found.origin, is_package=is_package)


if not any(isinstance(finder, _AliasFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, _AliasFinder())


def __getattr__(name: str) -> Any:
    return getattr(avex, name)


def __dir__() -> list[str]:
    return dir(avex)
