"""Tables of results: a line per experiment, task and seed, folded from the files of results and nothing else."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from avex.evaluation.results import Result, find_results
from avex.evaluation.variants import distinguish
from avex.io.atomic import write_text

_FIRST = (
    "end_timestamp",
    "dataset_name",
    "experiment_name",
    "evaluation_dataset_name",
    "model_name",
    "weights",
    "seed",
)
# Modes whose metrics have names of their own; the others get the mode in front, the probe `test`.
_OWN_NAMES = ("retrieval", "clustering", "fewshot")
_PROBE_PREFIX = {"probe": "test", "finetune": "finetune", "knn": "knn"}
Row = dict[str, Any]


def summary_rows(results: Iterable[Result]) -> list[Row]:
    """Fold results into rows.

    Columns: `end_timestamp`, `dataset_name` (the benchmark), `experiment_name`, `evaluation_dataset_name`,
    `model_name`, `weights`, `seed`; `test_*` of the probe, `finetune_*`, `knn_*`, `retrieval_*`, `clustering_*`,
    `fewshot_*`, with `*_low` and `*_high` for the ends of intervals; `training_*` for the settings of training.
    An experiment with results of several settings has a row for each, with the settings in its name.
    """
    rows: dict[tuple[Any, ...], Row] = {}
    current, _ = distinguish(results, lambda result: (result.benchmark, result.task))
    for result in sorted(current, key=lambda r: (r.experiment, r.task, r.seed, r.mode, r.finished_utc)):
        key = (result.benchmark, result.experiment, result.task, result.model["weights"], result.seed)
        row = rows.setdefault(key, _first(result))
        row["end_timestamp"] = max(row["end_timestamp"], result.finished_utc)
        row.update(_metrics(result))
        training = result.settings.get("training_params", {})
        row.update({f"training_{name}": value for name, value in training.items() if value is not None})
    return [_ordered(row) for row in rows.values()]


def _first(result: Result) -> Row:
    values = (
        result.finished_utc,
        result.benchmark,
        result.experiment,
        result.task,
        result.model["card"],
        result.model["weights"],
        result.seed,
    )
    return dict(zip(_FIRST, values, strict=True))


def _metrics(result: Result) -> Row:
    row: Row = {}
    for name, (value, low, high) in result.scores.items():
        column = name if result.mode in _OWN_NAMES else f"{_PROBE_PREFIX[result.mode]}_{name}"
        row[column] = value
        if low is not None and high is not None and low != high:
            row[f"{column}_low"], row[f"{column}_high"] = low, high
    return row


def _ordered(row: Row) -> Row:
    order = ["test", "finetune", "knn", "retrieval", "clustering", "fewshot", "training"]
    rest = [name for name in row if name not in _FIRST]
    rest.sort(key=lambda name: order.index(name.partition("_")[0]))
    return {name: row[name] for name in (*_FIRST, *rest)}


def write_summary(folder: Path) -> list[Path]:
    """Write `summary.csv` and `summary.jsonl` of all results in a folder.

    Returns:
        The two files.
    """
    path = folder / "summary.csv"
    with _only(path):
        return _write(path, summary_rows(result for _, result in find_results(folder)))


def append_table(path: Path, results: Sequence[Result], config_file: str | None, save_dir: str) -> list[Path]:
    """Add the rows of results to a table that several evaluations share, and to its short form.

    Rows of the same folder, benchmark, experiment, task, model and seed are replaced, so that a run that was
    repeated counts once. The short form `<stem>_simple` has the model, the day, the task and the `test_*` metrics.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _only(path):
        return _replace_rows(path, results, config_file, save_dir)


def _replace_rows(
    path: Path, results: Sequence[Result], config_file: str | None, save_dir: str
) -> list[Path]:
    new = [{**row, "config_file": config_file or "", "save_dir": save_dir} for row in summary_rows(results)]
    keys = ("save_dir", "dataset_name", "experiment_name", "evaluation_dataset_name", "weights", "seed")
    replaced = {tuple(str(row[key]) for key in keys) for row in new}
    old = [
        row
        for row in _read(path.with_suffix(".jsonl"))
        if tuple(str(row.get(key)) for key in keys) not in replaced
    ]
    rows = [*old, *new]
    simple = [
        {
            "model_name": row["model_name"],
            "date": row["end_timestamp"][:10],
            "dataset": row["evaluation_dataset_name"],
            **{name: value for name, value in row.items() if name.startswith("test_")},
        }
        for row in rows
    ]
    return [*_write(path, rows), *_write(path.with_name(f"{path.stem}_simple{path.suffix}"), simple)]


def _only(path: Path) -> FileLock:
    """Several evaluations may end at once: what is read for a table and the table itself belong together."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def _read(path: Path) -> list[Row]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[Path]:
    lines = path.with_suffix(".jsonl")
    write_text(lines, "".join(json.dumps(row) + "\n" for row in rows))
    write_text(path, csv_text(rows))
    return [path, lines]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; a column that some rows do not have is empty there.

    Example:
        >>> csv_text([{"a": 1}, {"a": 2, "b": 3}]).splitlines()
        ['a,b', '1,', '2,3']
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue()
