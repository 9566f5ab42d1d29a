"""A leaderboard: results folded into CSV, Markdown and one HTML page. Nothing is run for it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.evaluation.results import Result, find_results, json_scores, read_predictions
from avex.evaluation.scoring import canonical_metric, score_task
from avex.evaluation.summary import csv_text
from avex.evaluation.variants import distinguish
from avex.io.atomic import write_text
from avex.training.probes.targets import Targets

_ORDER = ("probe", "finetune", "knn", "retrieval", "clustering", "fewshot")
_PREDICTING = ("probe", "finetune", "knn")


@dataclass(frozen=True)
class Cell:
    """A score in a table.

    Attributes:
        value: Mean over seeds; None for NaN.
        low: Lower end of the interval (of the only seed, or the smallest value of several).
        high: Upper end.
        seeds: How many seeds.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: int = 1

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        if self.low is None or self.high is None or self.low == self.high:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Board:
    """Scores of one mode: experiments in rows, tasks in columns.

    Attributes:
        mode: The mode.
        tasks: Task, with its version and the metric, in order.
        rows: Experiment to its cells by task; best mean first among experiments that have all tasks.
        means: Mean over the tasks of each experiment that has all of them.
    """

    mode: str
    tasks: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell]]
    means: Mapping[str, float]


def rescored(path: Path, result: Result, metric: str, resamples: int = 1000) -> Result:
    """A result judged by another metric, from its predictions; as it is, if its mode has none.

    Args:
        path: File of the result.
        result: The result.
        metric: Name of the metric.
        resamples: Of the interval.

    Raises:
        UnknownNameError: There is no such metric, or the task does not have it.
        ConfigError: The predictions are missing.
    """
    if result.mode not in _PREDICTING:
        return result
    name = canonical_metric(metric)
    if name in result.scores:
        return replace(result, main_metric=name)
    saved = read_predictions(path)
    if saved is None:
        raise ConfigError(f"The predictions beside '{path}' are missing, so '{metric}' cannot be computed.")
    scores = score_task(
        Targets(saved.targets, saved.classes),
        saved.probabilities,
        [metric],
        groups=saved.groups,
        resamples=resamples,
        seed=result.seed,
    )
    return replace(result, main_metric=name, scores={**json_scores(scores), **result.scores})


def make_boards(results: Iterable[Result]) -> list[Board]:
    """Fold results into a board per mode.

    Results of different versions of a task, or by different metrics, are different columns: they cannot be
    compared. Results of several seeds are one cell; `distinguish` keeps other settings apart.
    """
    found: dict[str, dict[str, dict[str, list[Result]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for result in results:
        found[result.mode][column_of(result)][result.experiment].append(result)
    return [_board(mode, found[mode]) for mode in _ORDER if mode in found]


def column_of(result: Result) -> str:
    """Column of a result: its task, the version if it is not the first, and the metric.

    Example:
        >>> column_of(Result("b", "frogs", "2", "", "e", "probe", 0, {}, {}, "accuracy", {}, {}, 2))
        'frogs v2 · accuracy'
    """
    version = "" if result.task_version == "1" else f" v{result.task_version}"
    return f"{result.task}{version} · {metric_of(result)}"


def metric_of(result: Result, *, with_shots: bool = True) -> str:
    """Main metric of a result for people, without the mode in front.

    Args:
        result: The result.
        with_shots: Say how many shots it is of, if it is of some.
    """
    metric = result.main_metric.removeprefix(f"{result.mode}_")
    if result.mode != "fewshot":
        return metric
    shots, _, name = metric.partition("_")
    return f"{name}, {shots} shots" if with_shots else name


def _board(mode: str, columns: Mapping[str, Mapping[str, list[Result]]]) -> Board:
    tasks = tuple(sorted(columns))
    experiments = sorted({name for rows in columns.values() for name in rows})
    rows = {
        name: {task: _cell(columns[task][name]) for task in tasks if name in columns[task]}
        for name in experiments
    }
    means = {}
    for name, cells in rows.items():
        values = [cell.value for cell in cells.values() if cell.value is not None]
        if len(values) == len(tasks):
            means[name] = sum(values) / len(values)
    order = sorted(experiments, key=lambda name: (-means.get(name, -math.inf), name))
    return Board(mode, tasks, {name: rows[name] for name in order}, means)


def _cell(results: Sequence[Result]) -> Cell:
    scores = [result.main for result in results]
    if len(scores) == 1:
        return Cell(*scores[0])
    values = [value for value, _, _ in scores if value is not None]
    if not values:
        return Cell(None, None, None, len(scores))
    return Cell(sum(values) / len(values), min(values), max(values), len(scores))


def superseded_text(results: Sequence[Result]) -> str:
    """Which results are not shown, because newer ones of the same settings and seed replace them; else empty."""
    if not results:
        return ""
    names = dict.fromkeys(f"{r.experiment} on {r.task} ({r.mode}, seed {r.seed})" for r in results)
    return (
        f"Not shown, as there are newer results of the same settings and seed (changed data, another device, or "
        f"the same again): {', '.join(names)}."
    )


def markdown(boards: Sequence[Board], superseded: Sequence[Result] = ()) -> str:
    """Boards as Markdown tables."""
    lines = ["# Leaderboard", ""]
    for board in boards:
        head = ["experiment", *board.tasks, *(["mean"] if len(board.tasks) > 1 else [])]
        lines += [f"## {board.mode}", "", f"| {' | '.join(head)} |", "|---" + "|---:" * (len(head) - 1) + "|"]
        for name, cells in board.rows.items():
            texts = [str(cells[task]) if task in cells else "" for task in board.tasks]
            if len(board.tasks) > 1:
                texts.append(f"{board.means[name]:.3f}" if name in board.means else "")
            lines.append(f"| {' | '.join([name.replace('|', chr(92) + '|'), *texts])} |")
        lines.append("")
    lines.append("Brackets: 95 % intervals; of several seeds the smallest and the largest value.")
    if note := superseded_text(superseded):
        lines += ["", note]
    return "\n".join(lines) + "\n"


def long_rows(results: Iterable[Result], superseded: Iterable[Result] = ()) -> list[dict[str, Any]]:
    """A row per score: everything a table or a plot of one's own needs; what newer results replace comes last."""
    rows = []
    for result, old in [*((r, False) for r in results), *((r, True) for r in superseded)]:
        for metric, (value, low, high) in result.scores.items():
            rows.append(
                {
                    "benchmark": result.benchmark,
                    "task": result.task,
                    "task_version": result.task_version,
                    "experiment": result.experiment,
                    "model": result.model["card"],
                    "weights": result.model["weights"],
                    "layers": ";".join(result.model["layers"]),
                    "mode": result.mode,
                    "seed": result.seed,
                    "metric": metric,
                    "value": value,
                    "low": low,
                    "high": high,
                    "is_main": metric == result.main_metric,
                    "superseded": old,
                    "finished_utc": result.finished_utc,
                }
            )
    return rows


def write_leaderboard(
    folders: Sequence[str | Path],
    output: str | Path,
    *,
    metric: str | None = None,
    figures: bool | None = None,
) -> list[Path]:
    """Write `leaderboard.csv`, `leaderboard.md` and `index.html`, which needs no network.

    Args:
        folders: `save_dir`s of evaluations.
        output: Folder to write to; created if needed.
        metric: Judge probes, fine-tuning and neighbours by this metric, computed from stored predictions.
        figures: Draw figures; None draws them if matplotlib is installed.

    Returns:
        The files.

    Raises:
        ConfigError: There are no results, or a file is damaged.
        UnknownNameError: There is no such metric.

    Example:
        >>> write_leaderboard(["results"], "leaderboard", metric="balanced_accuracy")    # doctest: +SKIP
    """
    from avex.evaluation.page import render_page

    found = [pair for folder in folders for pair in find_results(folder)]
    if not found:
        raise ConfigError(f"There are no results in {', '.join(map(str, folders))}. Run avex evaluate first.")
    judged = [rescored(path, result, metric) if metric else result for path, result in found]
    results, old = distinguish(judged, column_of)
    boards = make_boards(results)
    drawn = available("matplotlib") if figures is None else figures
    target = Path(output)
    target.mkdir(parents=True, exist_ok=True)
    texts = {
        "leaderboard.csv": csv_text(long_rows(results, old)),
        "leaderboard.md": markdown(boards, old),
        "index.html": render_page(boards, results, old, figures=drawn),
    }
    for name, text in texts.items():
        write_text(target / name, text)
    return [target / name for name in texts]
