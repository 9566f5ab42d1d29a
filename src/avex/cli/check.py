"""`avex check`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from avex.cli.options import Device, Plugins, Trust, import_plugins, trust_models

if TYPE_CHECKING:
    from avex.models.utils.check import CheckResult


def command(
    model: Annotated[str, typer.Argument(help="Model name, alias or card file.", show_default=False)],
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            help="Check this file (path or URI) against the card, instead of the file that the card names.",
            show_default=False,
        ),
    ] = None,
    plugin: Plugins = None,
    trust: Trust = False,
    device: Device = None,
) -> None:
    """Prove a model: load it, verify the checksum of its file and compare its output with the card's fingerprint.

    Examples:

      avex check birdnet

      avex check esp_aves2_sl_beats_all --checkpoint downloads/beats.safetensors

      avex check my_card.yml --plugin my_module
    """
    import_plugins(plugin)
    trust_models([model], trust)
    from avex.models.utils.check import check_model

    result = check_model(model, device, checkpoint)
    _show(result)
    if not result.passed:
        for problem in (*result.findings, *(result.differences or ())):
            typer.echo(f"  {problem}", err=True)
        if result.differences:
            typer.echo(
                "The weights, the library or this machine's arithmetic is not what the card was made with.",
                err=True,
            )
        typer.echo("FAILED")
        sys.exit(1)
    typer.echo("OK")


def _show(result: CheckResult) -> None:
    typer.echo(f"Model        {result.name} on {result.device}, {result.seconds:.1f} s")
    typer.echo(f"sha256       {result.checksum}")
    typer.echo(f"Parameters   {result.report}")
    if result.tensors:
        typer.echo(f"Tensors      {result.tensors}")
    if result.output:
        typer.echo(f"Output       {result.output}")
    if result.fingerprint is None:
        return
    if result.differences is None:
        typer.echo("Fingerprint  the card states none")
        typer.echo("To pin this output, add to the card:")
        typer.echo("fingerprint:")
        for name, value in result.fingerprint.items():
            typer.echo(f"  {name}: {value}")
    else:
        verdict = "DIFFERS from the card" if result.differences else "matches the card"
        typer.echo(f"Fingerprint  {verdict}")
