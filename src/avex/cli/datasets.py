"""`avex datasets`: tasks and benchmarks, and whether their data are here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avex._core.errors import ConfigError

if TYPE_CHECKING:
    from avex.configs.cards import TaskCard
    from avex.data.checking import TaskCheck

app = typer.Typer(
    help="Tasks and benchmarks to evaluate on, and their data.", no_args_is_help=True, add_completion=False
)

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Folder that holds the folders of all datasets, instead of AVEX_DATA.",
        show_default=False,
    ),
]
_TITLES = ("Task", "Kind", "Classes", "Main metric", "Here", "Description")


@app.command("list")
def list_command(
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List tasks and benchmarks, and which of them have their data on this machine.

    Examples:

      avex datasets list

      avex datasets list --data /data --json
    """
    from avex.data.cards import benchmark_card, benchmark_names, task_card, task_names

    tasks = {name: _facts(task_card(name), data) for name in task_names()}
    benchmarks = {name: benchmark_card(name) for name in benchmark_names()}
    if as_json:
        described = {name: card.model_dump(exclude_none=True) for name, card in benchmarks.items()}
        typer.echo(json.dumps({"tasks": tasks, "benchmarks": described}, indent=2))
        return
    keys = ("task", "num_classes", "main_metric", "here", "description")
    rows = [(name, *(_cell(facts[key]) for key in keys)) for name, facts in tasks.items()]
    _print_table([_TITLES, *rows])
    typer.echo("\nBenchmarks")
    _print_table(
        [(f"  {name}", f"{len(card.tasks)} tasks", card.description) for name, card in benchmarks.items()]
    )
    typer.echo("\nHow to obtain the data of a task: avex datasets path TASK")


@app.command("check")
def check_command(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK", help="Tasks, benchmarks, or files of cards or benchmarks.", show_default=False
        ),
    ],
    data: Data = None,
) -> None:
    """Verify local data against the cards: files, numbers of clips, classes, leakage between splits.

    Recordings must be there and readable: of each the header and the end are read, about a millisecond per file.

    Examples:

      avex datasets check small --data recordings

      avex datasets check my_task.yml
    """
    from avex.data.cards import named_tasks
    from avex.data.checking import check_task

    failed = False
    for task in {task.name: task for name in names for task in named_tasks(name)}.values():
        result = check_task(task, data)
        verdict = f"OK  {_counts(result)}, {result.num_classes} classes" if result.passed else "FAILED"
        typer.echo(f"{result.name}: {verdict}")
        for note in result.notes:
            typer.echo(f"  Note: {note}")
        for problem in result.problems:
            typer.echo("  " + problem.replace("\n", "\n  "), err=True)
        failed |= not result.passed
    if failed:
        sys.exit(1)


def _counts(result: TaskCheck) -> str:
    """Clips of each part, or of all folds."""
    if result.num_folds:
        return f"{result.parts['folds']} clips in {result.num_folds} folds"
    return ", ".join(f"{count} {part}" for part, count in result.parts.items())


@app.command("path")
def path_command(
    name: Annotated[
        str | None, typer.Argument(metavar="TASK", help="Task, benchmark or card file.", show_default=False)
    ] = None,
    data: Data = None,
) -> None:
    """Print where data are looked for, and how to obtain those of a task, or of all tasks of a benchmark.

    Examples:

      avex datasets path

      avex datasets path dog_classification --data /data
    """
    from avex.configs.cards import TaskCard
    from avex.data.cards import named_tasks
    from avex.data.roots import VARIABLE, data_folder

    folder = data_folder(data)
    if name is None:
        typer.echo(
            str(folder) if folder else f"{VARIABLE} is not set. Set it: export {VARIABLE}=/path/to/data"
        )
        return
    tasks = named_tasks(name)
    for task in tasks:
        if len(tasks) > 1:
            typer.echo(f"{task.name}")
        if isinstance(task, TaskCard):
            _show_place(task, data)
        else:
            typer.echo(f"The file '{name}' says where its data are.")


@app.command("shard")
def shard_command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="Manifest, or folder with a folder for each class.", show_default=False
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder.", show_default=False)
    ],
    sample_rate: Annotated[
        int,
        typer.Option("--sample-rate", min=1, help="Hz; best that of the model.", show_default=False),
    ],
    clips_per_shard: Annotated[int, typer.Option("--clips-per-shard", min=1, help="Clips of a file.")] = 1000,
) -> None:
    """Write the clips of a manifest into few large files to train from, for slow or remote disks.

    Clips are decoded, mixed to one channel, resampled, and stored as FLAC in tar archives with an index. A training
    reads them with `dataset_name: shards` and `data_root: FOLDER`.

    Examples:

      avex datasets shard clips.csv -o shards --sample-rate 32000
    """
    from avex.data import read_manifest
    from avex.data.clips import missing_recordings
    from avex.data.streaming import write_shards

    clips = read_manifest(source)
    if missing := missing_recordings(clips):
        raise ConfigError(
            f"{len(missing)} recordings of '{source}' are missing, the first is '{missing[0]}'."
        )
    index = write_shards(clips, output, sample_rate=sample_rate, clips_per_shard=clips_per_shard)
    files = len(list(output.glob("shard-*.tar")))
    typer.echo(f"Wrote {len(clips)} clips into {files} shard{'s' if files != 1 else ''} and {index}")


def _show_place(card: TaskCard, data: Path | None) -> None:
    from avex.data.presence import is_present, task_folder
    from avex.data.roots import VARIABLE, data_folder

    if data_folder(data) is None and all(part.data_root is None for part in card.parts().values()):
        typer.echo(f"{VARIABLE} is not set. Set it: export {VARIABLE}=/path/to/data")
    else:
        here = "" if is_present(card, data) else " (not there, or not complete)"
        typer.echo(f"{task_folder(card, data)}{here}")
    typer.echo(f"Files:    {', '.join(card.layout.files)}")
    if card.layout.description:
        typer.echo(f"          {card.layout.description}")
    typer.echo(f"Licence:  {card.license}")
    typer.echo(f"Obtain:   {card.obtain.strip()}")


def _facts(card: TaskCard, data: Path | None) -> dict[str, Any]:
    from avex.data.presence import is_present

    return {
        "task": card.task,
        "num_classes": card.num_classes,
        "main_metric": card.main_metric or card.metrics[0],
        "here": is_present(card, data),
        "license": card.license,
        "description": card.description,
    }


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("".join(map(str.ljust, row, widths)).rstrip())
