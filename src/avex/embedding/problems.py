"""What went wrong with single recordings, kept in a table beside the output."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from avex._core.errors import ConfigError
from avex.io.atomic import atomic_write


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

    Raises:
        ConfigError: The path is a folder, or a file that is not such a list.

    Example:
        >>> log = ProblemLog(None)
        >>> log.add(Problem("a.wav", "error", "empty", "'a.wav' is empty."))
        >>> [problem.cause for problem in log.errors]
        ['empty']
    """

    def __init__(self, path: str | Path | None, again: Iterable[str] = (), output: str = "") -> None:
        self.path = Path(path) if path is not None else None
        self.problems: list[Problem] = []
        self._output = output
        if self.path is not None and self.path.exists():
            self._check()
            # As they are written: names that are not UTF-8 are escaped.
            self._forget({name.encode("utf-8", "backslashreplace").decode() for name in again})

    def add(self, problem: Problem) -> None:
        """Record a problem, on disk at once."""
        self.problems.append(problem)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if not file.tell():
                writer.writeheader()
            writer.writerow({"output": self._output, **asdict(problem)})

    @property
    def errors(self) -> list[Problem]:
        """Problems of recordings that gave nothing."""
        return [problem for problem in self.problems if problem.severity == "error"]

    def _check(self) -> None:
        """Refuse what is not ours before a run of hours, and before anything is written into it."""
        assert self.path is not None
        header = "a folder"
        if self.path.is_file():
            with self.path.open(encoding="utf-8-sig", errors="backslashreplace") as file:
                header = file.readline(1000).strip() or ",".join(COLUMNS)
        if not set(COLUMNS) <= set(header.split(",")):
            raise ConfigError(
                f"'{self.path}' is where problems would be listed, but it is not such a list of avex "
                f"({','.join(COLUMNS)}). It was left as it is; choose another file with --errors (errors_csv)."
            )

    def _forget(self, names: set[str]) -> None:
        assert self.path is not None
        with self.path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as file:
            rows = list(csv.DictReader(file))
        kept = [row for row in rows if row.get("recording") not in names or row.get("output") != self._output]
        if len(kept) == len(rows):
            return
        if not kept:
            self.path.unlink()
            return
        with atomic_write(self.path, "w") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
