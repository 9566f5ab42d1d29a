"""The command line `avex`. Each command is one small file; heavy imports happen inside commands."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
from contextlib import suppress

import typer

from avex._core.errors import AvexError, ConfigError, StoreFullError, UnknownNameError
from avex._core.version import __version__
from avex.cli import (
    bench,
    benchmark,
    check,
    cite,
    datasets,
    describe,
    doctor,
    embed,
    evaluate,
    export,
    leaderboard,
    list_models,
    predict,
    probe,
    sweep,
    template,
    train,
)

EXIT_FAILURE = 1
EXIT_USAGE = 2

app = typer.Typer(
    name="avex",
    help="Embeddings and species detections from recordings, with any bioacoustic encoder.",
    epilog="Exit codes: 0 all good · 1 failure · 2 wrong usage · 3 some inputs failed (see errors.csv).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

app.command("embed")(embed.command)
app.command("predict", cls=predict.PredictCommand)(predict.command)
app.add_typer(probe.app, name="probe")
app.command("export")(export.command)
app.command("train")(train.command)
app.command("sweep")(sweep.command)
app.command("evaluate")(evaluate.command)
app.command("leaderboard")(leaderboard.command)
app.command("list-models")(list_models.command)
app.command("describe")(describe.command)
app.command("check")(check.command)
app.command("bench", cls=bench.BenchCommand)(bench.command)
app.add_typer(template.app, name="template")
app.add_typer(datasets.app, name="datasets")
app.add_typer(benchmark.app, name="benchmark")
app.command("cite")(cite.command)
app.command("doctor")(doctor.command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"avex {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Show what is loaded from where."),
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )


def main() -> None:
    """Run the command line; errors that avex raises on purpose become one message and an exit code."""
    # Modules named by --plugin are looked up where the user stands, last: a numpy.py there is not NumPy.
    with suppress(FileNotFoundError):  # the folder was removed under the user's feet
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names that a terminal or a pipe of Windows cannot show must not end a run in a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except (ConfigError, UnknownNameError) as error:
        _fail(error, EXIT_USAGE)
    except (AvexError, OSError) as error:
        _fail(error, EXIT_FAILURE)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        _fail(MemoryError(f"Out of memory: {error}. Use a smaller batch or fewer workers."), EXIT_FAILURE)


def _is_out_of_memory(error: Exception) -> bool:
    """NumPy says so by type, torch only in words."""
    return isinstance(error, MemoryError) or bool(re.search("out of memory|allocate memory", str(error)))


def _fail(error: Exception, code: int) -> None:
    if type(error) is OSError and error.errno == errno.ENOSPC:
        error = StoreFullError(
            "The disk is full. What was finished is kept: free some space and run the same command again."
        )
    typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
    sys.exit(code)
