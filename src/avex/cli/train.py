"""`avex train`: train a model as a YAML file says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avex.cli import options as o

if TYPE_CHECKING:
    from avex.training.preflight import CheckReport
    from avex.training.run import TrainingResult

EXIT_PROBLEMS = 1

Config = Annotated[
    Path, typer.Option("--config", "-c", help="YAML file of the run.", show_default=False, exists=False)
]
Patches = Annotated[
    list[str] | None,
    typer.Option(
        "--patch",
        "-p",
        metavar="KEY=VALUE",
        help="Change a value, e.g. training_params.lr=0.001; may be repeated.",
    ),
]


def command(
    config: Config,
    patch: Patches = None,
    check: Annotated[
        bool, typer.Option("--check", help="Look for everything that is wrong, and train nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint of run_name, if there is one.")
    ] = False,
    plugin: o.Plugins = None,
    quiet: o.Quiet = False,
) -> None:
    """Train a model: a classifier, an encoder on unlabelled recordings, or sounds with texts.

    The run's folder (output_dir/run_name) gets checkpoints, metrics, curves, and a card by which the trained model
    loads: `avex predict -m runs/frogs/model.yml ...`. Several processes: start it with torchrun or srun.

    Examples:

      avex train -c run.yml --check

      avex train -c run.yml -p training_params.lr=0.001 -p run_name=frogs

      avex train -c run.yml -p run_name=frogs --resume
    """
    from avex.configs import RunConfig

    o.import_plugins(plugin)
    run = RunConfig.from_sources(config, patch or ())
    if check:
        from avex.training.preflight import check_run

        _show_check(check_run(run))
        return
    from avex.training.run import train

    result = train(run, resume=resume, progress=not quiet and _is_terminal())
    if result.model is not None and not quiet:
        _show_result(result)


def _show_check(report: CheckReport) -> None:
    for note in report.notes:
        typer.echo(note)
    for problem in report.problems:
        typer.secho(f"Problem: {problem}", fg=typer.colors.RED, err=True)
    if not report.ok:
        raise typer.Exit(EXIT_PROBLEMS)
    typer.echo("No problems found.")


def _show_result(result: TrainingResult) -> None:
    typer.echo(f"{result.steps} steps")
    for name in sorted(name for name in result.metrics if "/" in name):
        typer.echo(f"  {name:<28} {result.metrics[name]:.4f}")
    if result.best is not None:
        typer.echo(f"Best {result.monitor}: {result.best:.4f}")
    typer.echo(f"Wrote {result.folder}")
    typer.echo(f"Load it: avex.load_model('{result.model}')")


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty()
