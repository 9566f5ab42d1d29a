"""Training probes on embeddings: one call, with splits, metrics and a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

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


__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
