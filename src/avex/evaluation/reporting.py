"""What an evaluation says on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avex.evaluation.jobs import Job
    from avex.evaluation.runner import EvaluationReport

_STATUSES = ("run", "done", "skip", "blocked")


def plan_text(jobs: Sequence[Job]) -> str:
    """A line per job with what would be done, and the number of each kind."""
    lines = []
    for job in jobs:
        note = job.reason.splitlines()[0] if job.reason else str(job.path or "")
        name = f"{job.experiment.run_name} · {job.task} · {job.mode}"
        lines.append(f"{job.status:<8} {name}{f': {note}' if note else ''}")
    counts = {status: sum(job.status == status for job in jobs) for status in _STATUSES}
    lines.append(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    return "\n".join(lines)


def results_text(report: EvaluationReport, save_dir: str) -> str:
    """A line per result with its main metric, and where the time went."""
    lines = []
    for result in report.results:
        value, low, high = result.main
        text = "–" if value is None else f"{value:.3f}"
        if low is not None and high is not None and low != high:
            text += f" [{low:.3f}, {high:.3f}]"
        lines.append(f"{result.experiment}  {result.task}  {result.mode}  {result.main_metric} {text}")
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items())
    kept = len(report.results) - report.ran
    lines.append(f"{report.ran} results made, {kept} kept, in {save_dir}{f' ({times})' if times else ''}")
    return "\n".join(lines)


def blocked_text(jobs: Sequence[Job]) -> str:
    """Tasks that could not be evaluated, each once, with the reason; empty if there are none."""
    return "\n".join(
        f"Not evaluated: {task}. {reason}" for task, reason in {job.task: job.reason for job in jobs}.items()
    )
