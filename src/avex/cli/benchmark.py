"""`avex benchmark`: a benchmark of one's own recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avex._core.errors import ConfigError
from avex.cli.options import refuse_given

if TYPE_CHECKING:
    from avex.data.clips import Clip
    from avex.detection.table_windows import TableWindows

app = typer.Typer(help="Benchmarks of your own recordings.", no_args_is_help=True, add_completion=False)

WINDOWS, DIVIDING = "Selection tables", "Splits"


@app.callback()
def _group() -> None:
    """Benchmarks of your own recordings."""


@app.command("new")
def new_command(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A folder per class, a table of clips (CSV, TSV, JSON lines, Parquet), or a folder of recordings.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the two files; default: the source's.", show_default=False
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the task; default: the folder's.", show_default=False),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            "--label-column",
            help="Column of the labels of a table, or of selection tables.",
            show_default=False,
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            "--tables",
            metavar="GLOB",
            help="Selection tables in FOLDER (Raven, Audacity, ...): recordings are cut into windows.",
            rich_help_panel=WINDOWS,
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        float, typer.Option("--window", help="Length of a window in seconds.", rich_help_panel=WINDOWS)
    ] = 5.0,
    hop: Annotated[
        float | None,
        typer.Option(
            "--hop",
            help="Distance of two windows in seconds; default: the length.",
            rich_help_panel=WINDOWS,
            show_default=False,
        ),
    ] = None,
    min_overlap: Annotated[
        float,
        typer.Option(
            "--min-overlap",
            min=0,
            max=0.99,
            help="An event counts if it fills more than this share of the shorter of event and window.",
            rich_help_panel=WINDOWS,
        ),
    ] = 0.2,
    folds: Annotated[
        int, typer.Option("--folds", min=2, help="Number of folds.", rich_help_panel=DIVIDING)
    ] = 5,
    test: Annotated[
        float | None,
        typer.Option(
            "--test",
            help="Share of a fixed test, instead of folds.",
            rich_help_panel=DIVIDING,
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        float,
        typer.Option(
            "--validation", help="Share of the validation, beside --test.", rich_help_panel=DIVIDING
        ),
    ] = 0.1,
    group: Annotated[
        str | None,
        typer.Option(
            "--group",
            metavar="PATTERN",
            help="Regular expression: files with the same match (a site, a bird) stay on one side.",
            rich_help_panel=DIVIDING,
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the order.", rich_help_panel=DIVIDING)] = 42,
    license: Annotated[str, typer.Option("--license", help="Licence of the recordings.")] = "not stated",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> None:
    """Make a benchmark of labelled recordings: a manifest with splits, and a card to evaluate on.

    Clips of one recording stay on one side of a split, and every class is on both.

    Examples:

      avex benchmark new my_clips

      avex benchmark new clips.csv --test 0.2 --group '^([^_]+)_'

      avex benchmark new recordings --tables '*.txt' --window 3 --name dawn
    """
    if tables is None:
        refuse_given(
            context,
            ["window", "hop", "min_overlap"],
            "windows are cut by selection tables. Name them with --tables.",
        )
    if test is None:
        refuse_given(context, ["validation"], "folds have no validation. Give --test as well.")
    else:
        refuse_given(context, ["folds"], "--test asks for one fixed split. Leave out one of both.")
    from avex.data.building import MANIFEST, Shares, build_benchmark, group_by_name
    from avex.detection.table_windows import TableWindows

    clips = _clips(source, label_column, tables, TableWindows(window, hop, min_overlap, label_column))
    if group is not None:
        clips = group_by_name(clips, group)
    folder = out or (source if source.is_dir() else source.parent)
    if source.is_file() and source.resolve() == (folder / MANIFEST).resolve():
        raise ConfigError(
            f"'{source}' would be replaced by the new manifest. Choose another folder with --out."
        )
    built = build_benchmark(
        clips,
        folder,
        name or (source.resolve().name if source.is_dir() else source.stem),
        shares=Shares(None if test is not None else folds, test or 0.0, validation, seed),
        license=license,
        overwrite=overwrite,
    )
    typer.echo(f"{sum(built.counts.values())} clips, {len(built.classes)} classes")
    typer.echo("  " + ", ".join(f"{part} {count}" for part, count in built.counts.items()))
    for label, count in built.classes.items():
        typer.echo(f"  {label}: {count}")
    typer.echo(f"Wrote {built.manifest}\nWrote {built.card}")


def _clips(source: Path, label_column: str | None, tables: str | None, windows: TableWindows) -> list[Clip]:
    from avex.data.manifest import read_manifest
    from avex.detection.table_windows import clips_from_tables

    if tables is not None:
        return clips_from_tables(source, tables, windows)
    return read_manifest(source, label_column=label_column)
