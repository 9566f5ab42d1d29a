"""What `avex probe` shows: what was trained, its metrics, and a line per class."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from avex.training.probes.result import Evaluation, ProbeFit


def show_fit(fit: ProbeFit) -> None:
    """Print what was trained and on what, and how good it is."""
    sizes = ", ".join(f"{name} {count}" for name, count in fit.sizes.items())
    typer.echo(
        f"Probe '{fit.config.probe_type}', {len(fit.classes)} classes, {fit.task}; {fit.unit}s: {sizes}"
    )
    if fit.strength is not None:
        typer.echo(
            f"Strength C {fit.strength.strength:g}, chosen by cross-validation inside the training examples"
        )
    if fit.evaluation is None:
        typer.echo("No examples were held out, so nothing is known about how good it is.")
    else:
        show_evaluation(fit.evaluation, fit.fold_metrics)
    typer.echo(f"Took {fit.seconds:.1f} s")


def show_evaluation(evaluation: Evaluation, fold_metrics: tuple = ()) -> None:
    """Print the metrics, and the classes from the worst to the best."""
    from rich.console import Console
    from rich.table import Table

    from avex.training.probes.report import METRIC_NAMES
    from avex.training.probes.result import mean_and_deviation

    def number(value: float) -> str:
        return "–" if math.isnan(value) else f"{value:.3f}"

    console, over_folds = Console(highlight=False), mean_and_deviation(fold_metrics)
    table = Table("Metric", box=None, pad_edge=False)
    for title in ("Value", "95 % interval", *(["Folds ± sd"] if over_folds else [])):
        table.add_column(title, justify="right")
    for name, score in evaluation.metrics.items():
        cells = [
            METRIC_NAMES.get(name, name),
            number(score.value),
            f"{number(score.low)} – {number(score.high)}",
        ]
        table.add_row(*cells, *(["{:.3f} ± {:.3f}".format(*over_folds[name])] if over_folds else []))
    console.print(table)
    for metric, names in evaluation.metrics.left_out.items():
        console.print(f"{METRIC_NAMES.get(metric, metric)}: without {', '.join(names)} (no example to tell)")
    classes = Table("Class", box=None, pad_edge=False)
    for title in ("Examples", "Precision", "Recall", "F1"):
        classes.add_column(title, justify="right")
    for line in sorted(evaluation.per_class, key=lambda c: (math.isnan(c.f1), c.f1)):
        classes.add_row(
            line.name, str(line.support), number(line.precision), number(line.recall), number(line.f1)
        )
    console.print()
    console.print(classes)
    console.print()
