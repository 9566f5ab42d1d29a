"""What a run shows on the terminal: progress, summary, problems; and the exit code that follows from it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from avex.configs import ModelCard
from avex.models.utils.registry import resolve

if TYPE_CHECKING:
    from avex.embedding.pipeline import RunStats
    from avex.embedding.problems import Problem

EXIT_FAILURE = 1
EXIT_PARTIAL = 3


class RunView:
    """Progress bar and final summary of a run over recordings.

    Args:
        verb: Name of the command.
        model: Name of the model, whose licence is shown.
        quiet: Show nothing but errors.
    """

    def __init__(self, verb: str, model: str, quiet: bool) -> None:
        self._quiet = quiet
        self._verb = verb
        self._console = Console(stderr=True)
        self._card: ModelCard = resolve(model)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        hidden = quiet or not self._console.is_terminal
        self._progress = Progress(*columns, console=self._console, transient=True, disable=hidden)
        self._task = self._progress.add_task("reading", total=None, speed="")

    def __enter__(self) -> RunView:
        if not self._quiet and self._card.license:
            note = " ".join((self._card.license_note or "").split())
            typer.echo(f"Model {self._card.name}. Licence: {self._card.license}. {note}".rstrip(), err=True)
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if kind is KeyboardInterrupt:
            typer.echo("Interrupted. What was finished is kept; run the same command to go on.", err=True)

    def update(self, stats: RunStats) -> None:
        """Show the counts so far."""
        finished = stats.skipped + stats.done + stats.failed
        self._progress.update(
            self._task,
            total=stats.recordings,
            completed=finished,
            description=f"{finished}/{stats.recordings} recordings",
            speed=f"{stats.windows_per_second:.0f} windows/s, {stats.realtime_factor:.0f} × real time",
        )

    def finish(
        self,
        stats: RunStats,
        problems: Sequence[Problem],
        written: Sequence[str],
        errors_csv: Path | None,
    ) -> None:
        """Print the summary and leave with the exit code that fits."""
        if not self._quiet:
            self._summary(stats, written)
        for line in problem_lines(problems, errors_csv):
            typer.echo(line, err=True)
        if stats.failed and not stats.done and not stats.skipped:
            sys.exit(EXIT_FAILURE)
        if problems:
            sys.exit(EXIT_PARTIAL)

    def _summary(self, stats: RunStats, written: Sequence[str]) -> None:
        counts = plural(stats.done, "recording")
        if stats.skipped:
            counts += f" ({stats.skipped} more were done before)"
        if not stats.done:
            finished = stats.skipped == stats.recordings
            typer.echo(f"{counts}: nothing to do" if finished else counts)
            if self._verb == "embed":
                return
        else:
            self._speed(counts, stats)
        for path in written:
            typer.echo(f"Wrote {path}")

    def _speed(self, counts: str, stats: RunStats) -> None:
        typer.echo(
            f"{counts}, {format_duration(stats.audio_s)} of audio, {plural(stats.windows, 'window')} in "
            f"{format_duration(stats.elapsed_s)}: {stats.windows_per_second:.0f} windows/s, "
            f"{stats.realtime_factor:.0f} × real time"
        )


def problem_lines(problems: Sequence[Problem], errors_csv: Path | None) -> list[str]:
    """A few lines that say what went wrong, or each problem if there is no file that lists them."""
    if not problems:
        return []
    errors = {problem.recording for problem in problems if problem.severity == "error"}
    warned = {problem.recording for problem in problems} - errors
    causes = Counter(problem.cause for problem in problems)
    parts = []
    if errors:
        parts.append(f"{plural(len(errors), 'recording')} failed")
    if warned:
        parts.append(f"{plural(len(warned), 'recording')} incomplete")
    listing = ", ".join(f"{cause}: {count}" for cause, count in causes.most_common())
    headline = f"{' and '.join(parts)} ({listing})."
    if errors_csv is None:
        return [headline, *(f"  {problem.cause}: {problem.message}" for problem in problems)]
    return [f"{headline} See {errors_csv}"]


def render_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain table, columns as wide as their content.

    Example:
        >>> print(render_table(("a", "b"), [("x", "1")]), end="")
        a  b
        -  -
        x  1
    """
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    lines = [titles, ["-" * width for width in widths], *rows]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "recording"), plural(2, "recording")
        ('1 recording', '2 recordings')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_duration(seconds: float) -> str:
    """Seconds as people write them.

    Example:
        >>> format_duration(3725)
        '1 h 02 min'
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
