"""Training probes on embeddings: one call, with splits, metrics and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.registry import load_attribute

if TYPE_CHECKING:
    from avex.training.probes.crossval import CrossValidation, cross_validate_probe
    from avex.training.probes.fit import fit_probe
    from avex.training.probes.options import FitOptions
    from avex.training.probes.result import ProbeFit

__all__ = ["CrossValidation", "FitOptions", "ProbeFit", "cross_validate_probe", "fit_probe"]

_MODULE_OF = {
    "CrossValidation": "crossval",
    "FitOptions": "options",
    "ProbeFit": "result",
    "cross_validate_probe": "crossval",
    "fit_probe": "fit",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = load_attribute(f"{__name__}.{_MODULE_OF[name]}:{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
