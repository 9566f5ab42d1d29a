"""Conformance checks for models, front ends and stores, and tiny models to write tests with.

For the tests of code that builds on avex, as `check_estimator` is for scikit-learn: `check_model` tells whether a
class of your own does what the pipelines rely on, `tiny_model` gives an instance of any family in a moment.
Importing this package loads neither torch nor pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.testing.frontends import FRONTEND_RULES, check_frontend
    from avex.testing.models import MODEL_RULES, check_model
    from avex.testing.report import ConformanceError
    from avex.testing.stores import STORE_RULES, check_store
    from avex.testing.tiny import tiny_card, tiny_families, tiny_model

_LAZY = {
    "FRONTEND_RULES": "frontends",
    "MODEL_RULES": "models",
    "STORE_RULES": "stores",
    "ConformanceError": "report",
    "check_frontend": "frontends",
    "check_model": "models",
    "check_store": "stores",
    "tiny_card": "tiny",
    "tiny_families": "tiny",
    "tiny_model": "tiny",
}

__all__ = [
    "FRONTEND_RULES",
    "MODEL_RULES",
    "STORE_RULES",
    "ConformanceError",
    "check_frontend",
    "check_model",
    "check_store",
    "tiny_card",
    "tiny_families",
    "tiny_model",
]


__getattr__ = lazy_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
