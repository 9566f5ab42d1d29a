"""Labels and splits: what recordings hold, and which of them a model may learn from. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.registry import load_attribute

if TYPE_CHECKING:
    from avex.data.labels import LabelTable
    from avex.data.splits import Split, check_leakage, make_folds, make_split, split_from_column

__all__ = ["LabelTable", "Split", "check_leakage", "make_folds", "make_split", "split_from_column"]

_HOMES = {
    "labels": ("LabelTable",),
    "splits": ("Split", "check_leakage", "make_folds", "make_split", "split_from_column"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = load_attribute(f"{__name__}.{_MODULE_OF[name]}:{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
