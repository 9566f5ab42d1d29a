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
    if result.differences is None:
        verdict = "the card states none"
    else:
        verdict = "DIFFERS from the card" if result.differences else "matches the card"
    typer.echo(f"Model        {result.name} on {result.device}, {result.seconds:.1f} s")
    typer.echo(f"sha256       {result.checksum}")
    typer.echo(f"Parameters   {result.report}")
    typer.echo(f"Fingerprint  {verdict}")
    if result.differences is None:
        typer.echo("To pin this output, add to the card:")
        typer.echo("fingerprint:")
        for name, value in result.fingerprint.items():
            typer.echo(f"  {name}: {value}")
    if result.differences:
        for difference in result.differences:
            typer.echo(f"  {difference}", err=True)
        typer.echo(
            "The weights, the library or this machine's arithmetic is not what the card was made with.",
            err=True,
        )
        sys.exit(1)
    typer.echo("OK")
