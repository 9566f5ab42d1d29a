"""What went wrong with single recordings, kept in a table beside the output."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong with one recording.

    Attributes:
        recording: Its name.
        severity: `error` if the recording gave nothing, `warning` if it gave less than it should.
        cause: One word: `missing`, `empty`, `truncated`, `non_finite_audio`, ...
        message: The whole story.
        windows_lost: Windows left out because of it, where that is known.
    """

    recording: str
    severity: Literal["error", "warning"]
    cause: str
    message: str
    windows_lost: int = 0


COLUMNS = ("output", *(field.name for field in fields(Problem)))


class ProblemLog:
    """A CSV file of problems, written line by line so that a crash loses none.

    Rows of earlier runs stay, except those of recordings that are processed again for the same output. Without
    problems there is no file.

    Args:
        path: The file, or None to keep problems in memory only.
        again: Names of recordings that this run processes.
        output: Name of the output, which tells apart runs that share a file.

    Example:
        >>> log = ProblemLog(None)
        >>> log.add(Problem("a.wav", "error", "empty", "'a.wav' is empty."))
        >>> log.by_cause
        Counter({'empty': 1})
    """

    def __init__(self, path: str | Path | None, again: Iterable[str] = (), output: str = "") -> None:
        self.path = Path(path) if path is not None else None
        self.problems: list[Problem] = []
        self._output = output
        if self.path is not None and self.path.exists():
            # As they are written: names that are not UTF-8 are escaped.
            self._forget({name.encode("utf-8", "backslashreplace").decode() for name in again})

    def add(self, problem: Problem) -> None:
        """Record a problem, on disk at once."""
        self.problems.append(problem)
        if self.path is None:
            return
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow({"output": self._output, **asdict(problem)})

    @property
    def by_cause(self) -> Counter[str]:
        """How many recordings had each cause."""
        return Counter(problem.cause for problem in self.problems)

    @property
    def errors(self) -> list[Problem]:
        """Problems of recordings that gave nothing."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def _forget(self, names: set[str]) -> None:
        assert self.path is not None
        with self.path.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if row.get("recording") not in names or row.get("output") != self._output]
        if len(kept) == len(rows):
            return
        if not kept:
            self.path.unlink()
            return
        temporary = self.path.with_name(self.path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        os.replace(temporary, self.path)
