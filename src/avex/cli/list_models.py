"""`avex list-models`."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List all models that can be named.

    Examples:

      avex list-models

      avex list-models --json
    """
    from avex.models.utils.describe import format_models, model_table

    table = model_table()
    typer.echo(json.dumps(table, indent=2) if as_json else format_models(table), nl=as_json)
