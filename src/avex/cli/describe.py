"""`avex describe`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from avex.cli.options import Plugins, import_plugins


def command(
    model: Annotated[
        str, typer.Argument(help="Model name, alias, family, or card file.", show_default=False)
    ],
    plugin: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say everything that is known about a model, without loading it.

    Examples:

      avex describe birdnet

      avex describe my_model.yml --json
    """
    import_plugins(plugin)
    from avex.models.utils.describe import describe_model

    info = describe_model(model, verbose=not as_json)
    if as_json:
        typer.echo(json.dumps(info, indent=2))
