"""`avex cite`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    model: Annotated[str, typer.Argument(help="Model name, alias or card file.", show_default=False)],
) -> None:
    """Say how to cite a model, and the licence of its weights.

    Examples:

      avex cite birdnet
    """
    from avex.models.utils.describe import cite_model

    typer.echo(cite_model(model))
