"""`avex predict`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from avex._core.errors import ConfigError, did_you_mean
from avex.cli import options as o

if TYPE_CHECKING:
    from avex.detection.predict import Predictions

FORMAT_NAMES = ("raven", "audacity", "kaleidoscope", "csv", "parquet", "json")
# Up to this many detections are listed one by one; more are summed up by species.
_LISTED = 40
_ALL_WINDOWS = "all"
WHAT, PLACE = "What counts as a detection", "Which species are possible"


# Options of every command that writes tables of detections.
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Folder for the tables; without it they are only shown."),
]
Combined = Annotated[
    bool, typer.Option("--combined", help="Also one table over all recordings (not for audacity).")
]
Timezone = Annotated[
    str | None,
    typer.Option("--timezone", help="Zone of recorders that note local time, e.g. Europe/Berlin or +02:00."),
]
TableErrors = Annotated[
    Path | None,
    typer.Option("--errors", help="Where problems are listed; default: errors.csv in the folder."),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="NAME...",
        help=f"One or more of {', '.join(FORMAT_NAMES)}; default: raven.",
        show_default=False,
    ),
]
MinConf = Annotated[
    float, typer.Option("--min-conf", min=0, max=1, help="Smallest confidence.", rich_help_panel=WHAT)
]


class PredictCommand(TyperCommand):
    """Understands `--format raven csv` (several values) and `--merge-consecutive` without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite the arguments into what click knows, then parse them."""
        rewritten: list[str] = []
        remaining = list(args)
        while remaining:
            argument = remaining.pop(0)
            rewritten.append(argument)
            if argument == "--":
                rewritten += remaining
                break
            if argument in ("--format", "-f") and remaining:
                rewritten.append(remaining.pop(0))
                while remaining and _means_format(remaining[0]):
                    rewritten += ["--format", remaining.pop(0)]
            elif argument == "--merge-consecutive" and not (remaining and remaining[0].isdecimal()):
                rewritten.append(_ALL_WINDOWS)
        return super().parse_args(ctx, rewritten)


def _means_format(word: str) -> bool:
    """Whether a word after `--format` is one more format, perhaps misspelt, and not an input."""
    return word in FORMAT_NAMES or (not os.path.exists(word) and bool(did_you_mean(word, FORMAT_NAMES)))


def command(
    inputs: o.Inputs,
    output: Output = None,
    model: o.Model = "birdnet",
    formats: Formats = None,
    combined: Combined = False,
    min_conf: MinConf = 0.25,
    top_n: Annotated[
        int | None,
        typer.Option("--top-n", min=1, help="At most so many species per window.", rich_help_panel=WHAT),
    ] = None,
    sensitivity: Annotated[
        float,
        typer.Option(
            "--sensitivity",
            min=0.5,
            max=1.5,
            help="BirdNET's sensitivity; higher finds more weak calls.",
            rich_help_panel=WHAT,
        ),
    ] = 1.0,
    merge_consecutive: Annotated[
        str | None,
        typer.Option(
            "--merge-consecutive",
            metavar="[N]",
            help="Join detections of a species in neighbouring windows (at most N).",
            rich_help_panel=WHAT,
        ),
    ] = None,
    lat: Annotated[
        float | None, typer.Option("--lat", help="Latitude in degrees.", rich_help_panel=PLACE)
    ] = None,
    lon: Annotated[
        float | None, typer.Option("--lon", help="Longitude in degrees.", rich_help_panel=PLACE)
    ] = None,
    week: Annotated[
        int | None,
        typer.Option(
            "--week", help="Week 1 to 48 (four a month); default: whole year.", rich_help_panel=PLACE
        ),
    ] = None,
    sf_thresh: Annotated[
        float,
        typer.Option(
            "--sf-thresh", help="Smallest probability of an expected species.", rich_help_panel=PLACE
        ),
    ] = 0.03,
    species_list: Annotated[
        Path | None,
        typer.Option("--species-list", help="Text file with one species per line.", rich_help_panel=PLACE),
    ] = None,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    window: o.Window = None,
    overlap: o.Overlap = 0.0,
    tail: o.TailOption = o.Tail.pad,
    min_tail: o.MinTail = 0.0,
    channel: o.Channel = "mean",
    resampler: o.ResamplerOption = None,
    timezone: Timezone = None,
    overwrite: o.Overwrite = False,
    fail_fast: o.FailFast = False,
    errors_csv: TableErrors = None,
    workers: o.Workers = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    backend: o.Backend = None,
    precision: o.Precision = "fp32",
    compile: o.Compile = False,
    quiet: o.Quiet = False,
) -> None:
    """Detect species in recordings and write selection tables for Raven, Audacity, Kaleidoscope and others.

    One table per recording and format is written, in folders that mirror those of the recordings. An
    interrupted run goes on where it stopped.

    Examples:

      avex predict recordings/ -o tables --format raven csv

      avex predict recordings/ -o tables --lat 42.5 --lon -76.45 --week 20 --min-conf 0.5

      avex predict dawn.wav --species-list my_species.txt --merge-consecutive
    """
    check_output(output, formats, combined)
    o.import_plugins(plugin)
    o.trust_models([model], trust)
    from avex.cli.report import RunView
    from avex.detection.predict import DetectionOptions, predict

    options = DetectionOptions(
        min_conf=min_conf,
        top_n=top_n,
        sensitivity=sensitivity,
        lat=lat,
        lon=lon,
        week=None if week == -1 else week,
        sf_thresh=sf_thresh,
        species_list=species_list,
        merge_consecutive=merge_windows(merge_consecutive),
    )
    with RunView("predict", model, quiet) as view:
        predictions = predict(
            inputs,
            model,
            output,
            formats=format_list(formats),
            combined=combined,
            windows=o.window_options(window, overlap, tail, min_tail, channel, resampler),
            options=options,
            device=device,
            workers=workers,
            batch_size=batch_size,
            precision=precision,
            backend=backend,
            compile=compile,
            overwrite=overwrite,
            fail_fast=fail_fast,
            errors_csv=errors_csv,
            timezone=timezone,
            on_progress=view.update,
        )
    if not quiet:
        typer.echo(show_predictions(predictions), nl=False)
    errors = errors_csv or (output / "errors.csv" if output else None)
    view.finish(predictions.stats, predictions.problems, written_lines(predictions, output), errors)


def check_output(output: Path | None, formats: list[str] | None, combined: bool) -> None:
    """Refuse options of tables where none would be written."""
    if output is None and (formats or combined):
        raise ConfigError("--format and --combined are for tables in a folder. Name it with --output, too.")


def format_list(names: list[str] | None) -> list[str]:
    """Formats as `--format` gives them, also separated by commas."""
    return list(dict.fromkeys(part for name in names or ["raven"] for part in name.split(",") if part))


def merge_windows(value: str | None) -> bool | int:
    """What `--merge-consecutive` means."""
    if value is None:
        return False
    if value == _ALL_WINDOWS:
        return True
    if not value.isdecimal() or int(value) < 1:
        raise typer.BadParameter(f"'{value}' is not a number of windows.", param_hint="--merge-consecutive")
    return int(value)


def written_lines(predictions: Predictions, output: Path | None) -> list[str]:
    """What the summary says was written."""
    if output is None:
        return []
    from avex.cli.report import plural

    return [f"{plural(len(predictions.files), 'table')} in {output}"]


def show_predictions(predictions: Predictions) -> str:
    """Detections one by one if they are few, else the species with their counts."""
    from avex.cli.report import render_table
    from avex.detection import summarise
    from avex.detection.formats.text import escape

    species = summarise(predictions)
    total = sum(line.detections for line in species)
    if total == 0:
        return "No species detected.\n" if predictions.stats.done or predictions.stats.skipped else ""
    if total <= _LISTED:
        rows = [
            (
                escape(Path(detection.recording).name),
                f"{detection.start_s:.1f}–{detection.end_s:.1f}",
                detection.common_name or detection.label,
                detection.scientific_name,
                f"{detection.confidence:.3f}",
            )
            for recording in predictions
            for detection in recording.detections
        ]
        return render_table(("Recording", "Time (s)", "Species", "Scientific name", "Confidence"), rows)
    rows = [
        (
            line.common_name or line.label,
            line.scientific_name,
            str(line.detections),
            str(line.recordings),
            f"{line.max_confidence:.3f}",
        )
        for line in species
    ]
    return render_table(("Species", "Scientific name", "Detections", "Recordings", "Best confidence"), rows)
