"""`avex evaluate`."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avex.cli import options as o

if TYPE_CHECKING:
    from avex.evaluation.jobs import Job
    from avex.evaluation.runner import EvaluationReport

EXIT_PARTIAL = 3


class OverwriteMode(str, Enum):
    """What becomes of results that are there."""

    never = "never"
    always = "always"
    only_missing = "only-missing"


def command(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="YAML file of the evaluation.", show_default=False)
    ],
    patch: Annotated[
        list[str] | None,
        typer.Option(
            "--patch",
            metavar="KEY=VALUE",
            help="Change a value, e.g. experiments[0].model_spec.device=cuda; may be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done, and stop.")] = False,
    overwrite: Annotated[
        OverwriteMode | None,
        typer.Option(
            "--overwrite",
            help="Results that are there: an error (never), made anew (always), or kept (only-missing; default).",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="Folder of the datasets; default: $AVEX_DATA."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for results, instead of save_dir."),
    ] = None,
    plugin: o.Plugins = None,
    quiet: o.Quiet = False,
) -> None:
    """Evaluate models on tasks: probes, fine-tuning, retrieval, clustering, few shots, neighbours.

    What is finished is not done again, so the same command goes on after an interruption. Exit code 3 means that
    some tasks could not be evaluated because their data are not there.

    Examples:

      avex evaluate -c birdnet_small.yml

      avex evaluate -c birdnet_small.yml --dry-run

      avex evaluate -c birdnet_small.yml --patch device=cuda --patch seed=7
    """
    o.import_plugins(plugin)
    from avex.configs.evaluation import EvaluateConfig
    from avex.evaluation.jobs import plan_jobs
    from avex.evaluation.runner import evaluate

    patches = list(patch or ())
    given = {"overwrite": overwrite.value if overwrite else None, "data_root": data, "save_dir": output}
    patches += [f"{key}={value}" for key, value in given.items() if value is not None]
    settings = EvaluateConfig.from_sources(config, patches)
    if dry_run:
        _show_plan(plan_jobs(settings))
        return
    report = evaluate(settings, config_file=str(config), on_progress=None if quiet else _tell)
    if not quiet:
        _show_results(report, settings.save_dir)
    _show_blocked(report.blocked)
    if report.blocked:
        raise typer.Exit(EXIT_PARTIAL)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _show_plan(jobs: list[Job]) -> None:
    for job in jobs:
        where = str(job.path) if job.path is not None else ""
        note = job.reason.splitlines()[0] if job.reason else where
        typer.echo(
            f"{job.status:<8} {job.experiment.run_name} · {job.task} · {job.mode}{f': {note}' if note else ''}"
        )
    counts = {
        status: sum(job.status == status for job in jobs) for status in ("run", "done", "skip", "blocked")
    }
    typer.echo(", ".join(f"{count} {status}" for status, count in counts.items() if count))


def _show_results(report: EvaluationReport, save_dir: str) -> None:
    for result in report.results:
        value, low, high = result.main
        text = "–" if value is None else f"{value:.3f}"
        bounds = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None and low != high else ""
        typer.echo(f"{result.experiment}  {result.task}  {result.mode}  {result.main_metric} {text}{bounds}")
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in report.seconds.items())
    kept = len(report.results) - report.ran
    typer.echo(f"{report.ran} results made, {kept} kept, in {save_dir}{f' ({times})' if times else ''}")


def _show_blocked(jobs: list[Job]) -> None:
    for task, reason in {job.task: job.reason for job in jobs}.items():
        typer.secho(f"Not evaluated: {task}. {reason}", fg=typer.colors.YELLOW, file=sys.stderr)
