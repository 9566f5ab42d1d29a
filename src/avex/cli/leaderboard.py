"""`avex leaderboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS...", help="Folders of evaluations (save_dir).", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("leaderboard"),
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            help="Judge probes, fine-tuning and neighbours by this metric, from stored predictions.",
        ),
    ] = None,
    figures: Annotated[
        bool | None,
        typer.Option(
            "--figures/--no-figures", help="Figures in the page; default: if matplotlib is installed."
        ),
    ] = None,
) -> None:
    """Fold results into a table (CSV, Markdown) and a web page that needs no network. Nothing is computed anew.

    Examples:

      avex leaderboard results -o leaderboard

      avex leaderboard results/beats results/birdnet --metric balanced_accuracy
    """
    from avex.evaluation.leaderboard import write_leaderboard

    for path in write_leaderboard(results, output, metric=metric, figures=figures):
        typer.echo(str(path))
