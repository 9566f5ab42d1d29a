"""`avex embed`."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from avex._core.errors import ConfigError
from avex.cli import options as o


class Dtype(str, Enum):
    """Type of stored embeddings."""

    float32 = "float32"
    float16 = "float16"


def command(
    inputs: o.Inputs,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The Parquet file to write.", show_default=False)
    ],
    model: o.Model = "birdnet",
    plugin: o.Plugins = None,
    trust: o.Trust = False,
    window: o.Window = None,
    overlap: o.Overlap = 0.0,
    tail: o.TailOption = o.Tail.pad,
    min_tail: o.MinTail = 0.0,
    channel: o.Channel = "mean",
    resampler: o.ResamplerOption = None,
    layers: Annotated[
        str, typer.Option("--layers", help="Layers of the embedding, separated by commas.")
    ] = "last_layer",
    aggregation: Annotated[str, typer.Option("--aggregation", help="mean, max or cls_token.")] = "mean",
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of stored embeddings.")] = Dtype.float32,
    npy: Annotated[
        bool, typer.Option("--npy", help="Also write a .npy mirror with an index in CSV.")
    ] = False,
    overwrite: o.Overwrite = False,
    fail_fast: o.FailFast = False,
    errors_csv: Annotated[
        Path | None,
        typer.Option("--errors", help="Where problems are listed; default: errors.csv beside the output."),
    ] = None,
    workers: o.Workers = None,
    batch_size: o.BatchSize = None,
    device: o.Device = None,
    backend: o.Backend = None,
    precision: o.Precision = "fp32",
    compile: o.Compile = False,
    quiet: o.Quiet = False,
) -> None:
    """Turn recordings into one embedding per window, in a Parquet file that every tool can read.

    Memory does not grow with the length or number of recordings. Recordings that cannot be read are listed in
    errors.csv. An interrupted run goes on where it stopped.

    Examples:

      avex embed recordings/ -o embeddings.parquet

      avex embed recordings/ -m birdnet -o embeddings.parquet --overlap 1.5

      avex embed "2024/**/*.flac" notes/manifest.csv -o season.parquet --dtype float16

      avex embed recordings/ -m my_card.yml --plugin my_module -o mine.parquet

      avex embed recordings/ -m my_template.json --trust -o mine.parquet
    """
    _check_output(output)
    o.import_plugins(plugin)
    o.trust_models([model], trust)
    from avex.cli.report import RunView
    from avex.embedding.embed import RunReport, embed

    report = RunReport()
    with RunView("embed", model, quiet) as view:
        store = embed(
            inputs,
            model,
            output,
            windows=o.window_options(window, overlap, tail, min_tail, channel, resampler),
            dtype=dtype.value,
            precision=precision,
            backend=backend,
            compile=compile,
            layers=[_layer(name.strip()) for name in layers.split(",")],
            aggregation=aggregation,
            device=device,
            workers=workers,
            batch_size=batch_size,
            overwrite=overwrite,
            fail_fast=fail_fast,
            errors_csv=errors_csv,
            on_progress=view.update,
            report=report,
        )
    written = [str(output)]
    if npy:
        written += [str(path) for path in store.export_npy(output.with_suffix(".npy"))]
    view.finish(report.stats, report.problems, written, errors_csv or output.parent / "errors.csv")


def _check_output(output: Path) -> None:
    """Refuse names that promise another format: nothing would open the file, and `--npy` would replace it."""
    if output.suffix.lower() in (".csv", ".tsv", ".txt", ".json", ".jsonl", ".npy", ".npz"):
        raise ConfigError(
            f"'{output}' would hold Parquet, whatever its name says. Name it '{output.with_suffix('.parquet')}'; "
            "--npy writes a NumPy array and an index in CSV beside it."
        )


def _layer(name: str) -> str | int:
    return int(name) if re.fullmatch(r"-?[0-9]+", name) else name
