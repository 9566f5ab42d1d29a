"""`avex probe`: train a probe on embeddings, evaluate it, and use it on recordings."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from avex._core.errors import ConfigError
from avex.cli import options as o
from avex.cli.predict import PredictCommand
from avex.cli.probe_predict import command as predict_command
from avex.cli.probe_report import show_evaluation, show_fit

app = typer.Typer(
    name="probe",
    help="Train a classifier on embeddings, evaluate it, and use it on recordings.",
    no_args_is_help=True,
)
LABELS, TRAINING = "Labels and split", "Training"


class UnitName(str, Enum):
    """What an example is."""

    recording = "recording"
    window = "window"


Store = Annotated[
    Path, typer.Argument(metavar="STORE", help="Embeddings, as `avex embed` writes them.", show_default=False)
]
Labels = Annotated[
    Path,
    typer.Argument(
        metavar="LABELS",
        help="Table (.csv, .tsv, .parquet) with a column recording, path or file, a column label or labels, "
        "and optionally start_s and end_s.",
        show_default=False,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label-column", help="Column of the labels; default: label or labels.", rich_help_panel=LABELS
    ),
]
UnitOption = Annotated[
    UnitName | None,
    typer.Option(
        "--unit",
        help="What an example is; default: recordings, or windows if labels are of parts of recordings.",
        rich_help_panel=LABELS,
    ),
]
Groups = Annotated[
    str | None,
    typer.Option(
        "--groups",
        help="Column of what must stay in one part of a split, e.g. site; default: the recording.",
        rich_help_panel=LABELS,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.", rich_help_panel=TRAINING)]


@app.command("fit")
def fit(
    context: typer.Context,
    store: Store,
    labels: Labels,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The .safetensors file to write.", show_default=False)
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--type",
            "-t",
            help="linear, mlp, lstm, attention, transformer, attention_pooling, prototype or knn.",
            rich_help_panel=TRAINING,
        ),
    ] = "linear",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", help="YAML file of a probe, instead of --type.", rich_help_panel=TRAINING
        ),
    ] = None,
    label_column: LabelColumn = None,
    unit: UnitOption = None,
    multilabel: Annotated[
        bool | None,
        typer.Option(
            "--multilabel/--single-label",
            help="Whether several labels, or none, are possible; default: whether they occur.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    groups: Groups = None,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="auto, stratified, grouped, none, or a column that says train, validation or test.",
            rich_help_panel=LABELS,
        ),
    ] = "auto",
    test_fraction: Annotated[
        float,
        typer.Option("--test-fraction", min=0, max=0.9, help="Share of the test.", rich_help_panel=LABELS),
    ] = 0.2,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            help="Cross-validate instead of a split, then train on everything: a number, or a column.",
            rich_help_panel=LABELS,
        ),
    ] = None,
    balanced: Annotated[
        bool,
        typer.Option(
            "--balanced", help="Give rare classes as much weight as common ones.", rich_help_panel=TRAINING
        ),
    ] = False,
    strength: Annotated[
        float | None,
        typer.Option(
            "--strength",
            help="C of a linear probe; default: chosen by cross-validation.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    epochs: Annotated[
        int,
        typer.Option("--epochs", min=1, help="Most epochs of heads that have any.", rich_help_panel=TRAINING),
    ] = 100,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Of heads that have epochs.", rich_help_panel=TRAINING)
    ] = 1e-3,
    seed: Seed = 0,
    device: o.Device = None,
    report: Annotated[
        Path | None, typer.Option("--report", help="Folder for an HTML report, figures and tables.")
    ] = None,
    quiet: o.Quiet = False,
) -> None:
    """Train a probe on an embedding store and a table of labels, and say how good it is.

    The default, a linear probe, takes seconds and is hard to beat. Metrics are of recordings that it did not
    learn from.

    Examples:

      avex probe fit season.parquet labels.csv -o frogs.safetensors

      avex probe fit season.parquet labels.csv -o frogs.safetensors --folds 5 --report report

      avex probe fit season.parquet labels.csv -o frogs.safetensors --type mlp --groups site
    """
    if config is not None:
        o.refuse_given(context, ["kind"], "the file of --config states the type. Leave out one of both.")
    if not output.absolute().parent.is_dir():
        # Before the training, not after it.
        raise ConfigError(
            f"There is no folder '{output.parent}' to write '{output.name}' to. Create it first."
        )
    from avex.training.probes import FitOptions, fit_probe

    result = fit_probe(
        store,
        labels,
        config if config is not None else kind,
        groups=groups,
        multilabel=multilabel,
        unit=unit.value if unit else None,
        label_column=label_column,
        split=None if split == "none" else split,
        test_fraction=test_fraction,
        folds=int(folds) if folds is not None and folds.isdecimal() else folds,
        class_weights="balanced" if balanced else None,
        seed=seed,
        device=device or "cpu",
        options=FitOptions(strength=strength, epochs=epochs, learning_rate=learning_rate),
    )
    result.save(output)
    written = [output, *(result.report(report) if report else [])]
    for note in result.notes:  # with --quiet, too: what was left out must not go unnoticed
        typer.echo(note, err=True)
    if not quiet:
        show_fit(result)
        for path in written:
            typer.echo(f"Wrote {path}")


@app.command("eval")
def evaluate(
    probe: Annotated[Path, typer.Argument(metavar="PROBE", help="The probe's file.", show_default=False)],
    store: Store,
    labels: Labels,
    label_column: LabelColumn = None,
    unit: UnitOption = None,
    groups: Groups = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for tables and the confusion matrix.")
    ] = None,
    allow_other_weights: Annotated[
        bool, typer.Option("--allow-other-weights", help="Take embeddings of other weights.")
    ] = False,
    seed: Seed = 0,
) -> None:
    """Evaluate a probe on embeddings and labels that it did not learn from.

    Examples:

      avex probe eval frogs.safetensors next_season.parquet next_labels.csv -o evaluation
    """
    from avex.training.probes.evaluate import evaluate_probe

    evaluation, examples = evaluate_probe(
        probe,
        store,
        labels,
        groups=groups,
        unit=unit.value if unit else None,
        label_column=label_column,
        allow_other_weights=allow_other_weights,
        seed=seed,
    )
    for note in examples.notes:
        typer.echo(note, err=True)
    typer.echo(f"{len(examples)} {examples.unit}s, {len(examples.targets.classes)} classes")
    show_evaluation(evaluation)
    if output is not None:
        from avex.training.probes.report import evaluation_files, write_files

        for path in write_files(evaluation_files(evaluation), output):
            typer.echo(f"Wrote {path}")


app.command("predict", cls=PredictCommand)(predict_command)
