"""`avex list-models`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    wide: Annotated[
        bool, typer.Option("--wide", help="Whole descriptions, however wide the terminal; so in a pipe.")
    ] = False,
) -> None:
    """List all models that can be named.

    Examples:

      avex list-models

      avex list-models --wide | grep -i beats

      avex list-models --json
    """
    from avex.models.utils.describe import format_models, model_table, terminal_width

    table = model_table()
    width = None if wide else terminal_width()
    typer.echo(json.dumps(table, indent=2) if as_json else format_models(table, width), nl=as_json)
