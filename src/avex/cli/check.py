"""`avex check`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from avex.cli.options import Device, Plugins, import_plugins


def command(
    model: Annotated[str, typer.Argument(help="Model name, alias or card file.", show_default=False)],
    plugin: Plugins = None,
    device: Device = None,
) -> None:
    """Prove a model: load it, verify the checksum of its file and compare its output with the card's fingerprint.

    Examples:

      avex check birdnet

      avex check my_card.yml --plugin my_module
    """
    import_plugins(plugin)
    from avex.models.utils.check import check_model

    result = check_model(model, device)
    expected = {
        True: "matches the card",
        False: f"DIFFERS from the card by {result.deviation:.2g} standard deviations"
        if result.deviation is not None
        else "differs",
        None: "the card states none",
    }[result.matches]
    typer.echo(f"Model        {result.name} on {result.device}, {result.seconds:.1f} s")
    typer.echo(f"sha256       {result.checksum}")
    typer.echo(f"Parameters   {result.report}")
    typer.echo(f"Fingerprint  {expected}")
    if result.matches is None:
        typer.echo("To pin this output, add to the card:")
        typer.echo("fingerprint:")
        for name, value in result.fingerprint.model_dump().items():
            typer.echo(f"  {name}: {value}")
    if result.matches is False:
        typer.echo(
            "The weights are the published ones only if the sha256 is verified; the arithmetic of this machine or "
            "library version differs more than it should. Please report it.",
            err=True,
        )
        sys.exit(1)
    typer.echo("OK")
