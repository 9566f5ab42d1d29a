"""`avex evaluate`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avex.cli import options as o

if TYPE_CHECKING:
    from avex.configs.evaluation import EvaluateConfig

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
    trust: o.Trust = False,
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
    from avex.evaluation.reporting import blocked_text, plan_text, results_text
    from avex.evaluation.runner import evaluate

    settings = EvaluateConfig.from_sources(
        config,
        patch or (),
        overwrite=overwrite.value if overwrite else None,
        data_root=str(data) if data else None,
        save_dir=str(output) if output else None,
    )
    if trust:
        _trust_templates(settings)
    if dry_run:
        typer.echo(plan_text(plan_jobs(settings)))
        return
    report = evaluate(settings, config_file=str(config), on_progress=None if quiet else _tell)
    if not quiet:
        typer.echo(results_text(report, settings.save_dir))
    if report.blocked:
        typer.secho(blocked_text(report.blocked), fg=typer.colors.YELLOW, err=True)
        raise typer.Exit(EXIT_PARTIAL)


def _trust_templates(settings: EvaluateConfig) -> None:
    from avex.evaluation.models import ModelSource
    from avex.models.template.trust import trust_card

    for experiment in settings.experiments:
        trust_card(ModelSource.of(experiment, settings.device, settings.seed).card)


def _tell(line: str) -> None:
    typer.echo(line, err=True)
