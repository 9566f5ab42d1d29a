"""What can be done with a model and a task; one module per mode."""

from __future__ import annotations

from avex.evaluation.modes.base import MODES, Context, Outcome, not_applicable, run_mode

__all__ = ["MODES", "Context", "Outcome", "not_applicable", "run_mode"]
