"""Evaluation: what embeddings are good for, measured so that the numbers can be trusted and made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.evaluation.cache import EmbeddingCache
    from avex.evaluation.jobs import Job, plan_jobs
    from avex.evaluation.leaderboard import write_leaderboard
    from avex.evaluation.results import Result, find_results, read_predictions, read_result
    from avex.evaluation.runner import EvaluationReport, evaluate
    from avex.evaluation.tasks import Task

_MODULE_OF = {
    "EmbeddingCache": "cache",
    "EvaluationReport": "runner",
    "Job": "jobs",
    "Result": "results",
    "Task": "tasks",
    "evaluate": "runner",
    "find_results": "results",
    "plan_jobs": "jobs",
    "read_predictions": "results",
    "read_result": "results",
    "write_leaderboard": "leaderboard",
}

__all__ = [
    "EmbeddingCache",
    "EvaluationReport",
    "Job",
    "Result",
    "Task",
    "evaluate",
    "find_results",
    "plan_jobs",
    "read_predictions",
    "read_result",
    "write_leaderboard",
]


__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
