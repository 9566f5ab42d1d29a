"""What `avex bench` shows: a table for each model, and all figures as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from avex.cli.report import plural
from avex.embedding.throughput.machine import describe_machine
from avex.embedding.throughput.result import Throughput
from avex.io.atomic import write_text

SCHEMA = 1
# Rounds of a quiet machine differ by less.
_QUIET = 0.15
_NOTHING = "–"
# Title and least width, so that the tables of several models line up.
_COLUMNS = (
    ("precision", 9),
    ("batch", 5),
    ("× real time", 13),
    ("ms/window", 9),
    ("front end", 9),
    ("of bound", 8),
    ("memory", 7),
)


class BenchReport:
    """Tables on a console as results come in, and a file that holds all of them.

    Args:
        json_file: Where to write the figures, or None.
        verbose: Also list what bounds consist of.
        console: Where to print; None takes standard output.
    """

    def __init__(self, json_file: Path | None, verbose: bool, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._progress = Console(stderr=True)
        self._json_file = json_file
        self._verbose = verbose
        self._machine = describe_machine()
        self._results: list[Throughput] = []

    @contextmanager
    def waiting(self, model: str) -> Iterator[Callable[[str], None]]:
        """Show on a terminal what is being done; gives the function that says it."""
        if not self._progress.is_terminal:
            yield lambda step: None
            return
        with self._progress.status(model) as status:
            yield lambda step: status.update(f"{model}: {step}")

    def add(self, results: Sequence[Throughput]) -> None:
        """Print the results of a model, and write the file anew with them."""
        self._results += results
        for line in heading(results[0]):
            self._console.print(Text(line, style="bold" if line == results[0].model else ""), soft_wrap=False)
        self._console.print(speed_table(results))
        if (worst := max(result.spread or 0.0 for result in results)) > _QUIET:
            note = (
                f"Rounds differ by ± {100 * worst:.0f} %: the machine is busy. Trust ratios more than times."
            )
            self._console.print(Padding(note, (0, 0, 1, 2)))
        if self._verbose:
            for result in results:
                if result.products:
                    self._console.print(Text(bound_line(result)))
                    self._console.print(product_table(result))
        if self._json_file is not None:
            document = {
                "schema": SCHEMA,
                "machine": self._machine,
                "results": [result.as_dict() for result in self._results],
            }
            write_text(self._json_file, json.dumps(document, indent=2) + "\n")


def heading(result: Throughput) -> list[str]:
    """Lines above the table of a model: its name, where it ran, which weights it had."""
    sessions = f"{plural(result.workers, 'session')} on " if result.workers > 1 else ""
    where = f"{result.device_name}, {sessions}{plural(result.threads, 'thread')}"
    if not result.device.startswith("cpu"):
        where = f"{result.device} ({result.device_name})"
    how = f"{result.backend}{', compiled' if result.compiled else ''}, windows of {result.window_s:g} s"
    how += "; processor time" if result.clock == "cpu" else ""
    return [result.model, f"  {where}; {how}", f"  {result.weights}"]


def speed_table(results: Sequence[Throughput]) -> Table:
    """One row for each precision and batch size."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    for title, width in _COLUMNS:
        table.add_column(title, justify="right", min_width=width, no_wrap=True)
    for result in results:
        table.add_row(
            result.precision,
            str(result.batch_size),
            _speed(result),
            _digits(result.ms_per_window),
            _NOTHING if result.frontend_share is None else f"{100 * result.frontend_share:.1f} %",
            _NOTHING if result.bound_ratio is None else f"{result.bound_ratio:.2f}",
            _NOTHING if result.peak_memory_bytes is None else format_bytes(result.peak_memory_bytes),
        )
    return table


def _speed(result: Throughput) -> str:
    """Seconds of audio per second, with what rounds differ by if there were several."""
    factor = _digits(result.realtime_factor)
    return factor if result.spread is None else f"{factor} ±{100 * result.spread:3.0f} %"


def bound_line(result: Throughput) -> str:
    """What the table of products below it belongs to."""
    factor = result.bound_realtime_factor or 0.0
    return (
        f"  Bound of {result.precision}, batch {result.batch_size}: {_digits(factor)} × real time, "
        f"{result.gflop_per_window:.3g} GFLOP per window"
    )


def product_table(result: Throughput, longest: int = 6) -> Padding:
    """The products of a bound, those that take longest first."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in ("share", "count", "GFLOP/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("product", overflow="fold")
    for part in result.products[:longest]:
        words = f"{part.label} ({part.dtype}, {part.way})"
        table.add_row(f"{100 * part.share:.1f} %", str(part.count), f"{part.gflop_per_s:.0f}", words)
    rest = result.products[longest:]
    if rest:
        share, count = sum(part.share for part in rest), sum(part.count for part in rest)
        table.add_row(f"{100 * share:.1f} %", str(count), "", f"{plural(len(rest), 'other shape')}")
    return Padding(table, (0, 0, 1, 2))


def format_bytes(count: int) -> str:
    """Bytes as people write them.

    Example:
        >>> format_bytes(612_000_000), format_bytes(2_340_000_000)
        ('612 MB', '2.3 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 999.5e6 else f"{count / 1e6:.0f} MB"


def _digits(value: float) -> str:
    """Three digits or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
