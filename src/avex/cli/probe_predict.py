"""`avex probe predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avex._core.errors import ConfigError
from avex.cli import options as o
from avex.cli import predict as p


def command(
    probe: Annotated[Path, typer.Argument(metavar="PROBE", help="The probe's file.", show_default=False)],
    inputs: o.Inputs,
    output: p.Output = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model; default: the one that the probe names.")
    ] = None,
    formats: p.Formats = None,
    combined: p.Combined = False,
    min_conf: p.MinConf = 0.25,
    top_n: Annotated[
        int | None,
        typer.Option("--top-n", min=1, help="At most so many classes per window.", rich_help_panel=p.WHAT),
    ] = None,
    merge_consecutive: Annotated[
        str | None,
        typer.Option(
            "--merge-consecutive",
            metavar="[N]",
            help="Join detections of a class in neighbouring windows (at most N).",
            rich_help_panel=p.WHAT,
        ),
    ] = None,
    species_list: Annotated[
        Path | None,
        typer.Option("--species-list", help="Text file with one class per line.", rich_help_panel=p.WHAT),
    ] = None,
    allow_other_weights: Annotated[
        bool, typer.Option("--allow-other-weights", help="Take a model with other weights.")
    ] = False,
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    window: o.Window = None,
    overlap: o.Overlap = 0.0,
    tail: o.TailOption = o.Tail.pad,
    min_tail: o.MinTail = 0.0,
    channel: o.Channel = "mean",
    resampler: o.ResamplerOption = None,
    timezone: p.Timezone = None,
    overwrite: o.Overwrite = False,
    fail_fast: o.FailFast = False,
    errors_csv: p.TableErrors = None,
    workers: o.Workers = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    precision: o.Precision = "fp32",
    quiet: o.Quiet = False,
) -> None:
    """Run a model with a probe on recordings and write selection tables, as `avex predict` does.

    The window and the resampler are those that the probe was trained with, if nothing else is said.

    Examples:

      avex probe predict frogs.safetensors recordings/ -o tables --format raven csv

      avex probe predict frogs.safetensors dawn.wav --min-conf 0.5 --merge-consecutive
    """
    p.check_output(output, formats, combined)
    o.import_plugins(plugin)
    if trust and model is None:
        raise ConfigError("--trust is for the JSON template that --model names. Give --model, too.")
    o.trust_models([model] if model else [], trust)
    from avex.cli.report import RunView
    from avex.detection.predict import DetectionOptions, predict
    from avex.training.probes.engine import load_probe_engine, trained_windows

    engine = load_probe_engine(
        probe,
        model,
        allow_other_weights=allow_other_weights,
        device=device,
        workers=workers,
        batch_size=batch_size,
        precision=precision,
    )
    options = DetectionOptions(
        min_conf=min_conf,
        top_n=top_n,
        species_list=species_list,
        merge_consecutive=p.merge_windows(merge_consecutive),
    )
    windows = o.window_options(window, overlap, tail, min_tail, channel, resampler)
    with RunView("predict", model or str(engine.base_card), quiet) as view:
        predictions = predict(
            inputs,
            engine,
            output,
            formats=p.format_list(formats),
            combined=combined,
            windows=trained_windows(engine, windows),
            options=options,
            overwrite=overwrite,
            fail_fast=fail_fast,
            errors_csv=errors_csv,
            timezone=timezone,
            on_progress=view.update,
        )
    if not quiet:
        typer.echo(p.show_predictions(predictions), nl=False)
    errors = errors_csv or (output / "errors.csv" if output else None)
    view.finish(predictions.stats, predictions.problems, p.written_lines(predictions, output), errors)
