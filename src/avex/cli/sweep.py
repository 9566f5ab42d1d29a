"""`avex sweep`: search for good settings of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avex.cli import options as o


def command(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="YAML file of the sweep.", show_default=False)
    ],
    patch: Annotated[
        list[str] | None,
        typer.Option(
            "--patch", "-p", metavar="KEY=VALUE", help="Change a value, e.g. trials=50; may be repeated."
        ),
    ] = None,
    plugin: o.Plugins = None,
    quiet: o.Quiet = False,
) -> None:
    """Train with many settings and keep the best; run the same command again to go on after a stop.

    The file names a run (run_config), the values to try (search_space) and the number of trainings (trials).

    Examples:

      avex sweep -c sweep.yml

      avex sweep -c sweep.yml -p trials=50
    """
    from avex.configs.sweep import SweepConfig
    from avex.training.sweep import sweep

    o.import_plugins(plugin)
    result = sweep(SweepConfig.from_sources(config, patch or ()))
    if quiet:
        return
    typer.echo(f"{result.finished} trainings, {result.failed} diverged")
    if result.best is not None:
        typer.echo(f"Best {result.metric}: {result.best:.4f}")
        for place, value in result.settings.items():
            typer.echo(f"  {place} = {value}")
    typer.echo(f"Wrote {result.folder}")
    if result.best is not None:
        typer.echo(
            f"Train with the best settings: avex train -c {result.folder / 'best.yml'} -p run_name=best"
        )
