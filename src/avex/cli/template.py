"""`avex template`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from avex.cli.options import Device, Trust

app = typer.Typer(
    help="JSON templates: write, check, try and list them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

File = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="A JSON file, or a name of `avex template list`.", show_default=False
    ),
]


@app.command("new")
def new(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", show_default=False)],
    sample_rate: Annotated[
        int, typer.Option("--sample-rate", min=1, help="Rate of the model's audio, Hz.")
    ] = 16000,
    declarative: Annotated[
        bool, typer.Option("--declarative", help="Name a callable and steps; no commands, so no --trust.")
    ] = False,
) -> None:
    """Write a small template that runs, to be edited.

    Examples:

      avex template new my_model.json

      avex template new my_model.json --declarative --sample-rate 32000
    """
    from avex.models.template.catalogue import write_skeleton

    write_skeleton(file, sample_rate, declarative)
    typer.echo(f"Wrote {file}. Edit it, then: avex template validate {file}")


@app.command("validate")
def validate(files: Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)]) -> None:
    """Check templates and show what each would install, import and execute. Nothing of it runs.

    Examples:

      avex template validate my_model.json
    """
    from avex._core.errors import ConfigError
    from avex.models.template.catalogue import template_faults
    from deep_audio_embedding import describe_template

    code = 0
    for file in files:
        try:
            faults = template_faults(file)
        except ConfigError as error:  # no such file; the others are still worth a look
            typer.echo(f"{error}", err=True)
            code = 2
            continue
        code = max(code, int(bool(faults)))
        for fault in faults:
            typer.echo(f"{file}: {fault}", err=True)
        if not faults:
            typer.echo(f"{describe_template(file)}\nOK")
    if code:
        sys.exit(code)


@app.command("run")
def run(
    file: File,
    recording: Annotated[Path, typer.Argument(help="A recording to try it on.", show_default=False)],
    trust: Trust = False,
    install: Annotated[
        bool,
        typer.Option("--install", help="Run install_cmds first, in the working directory; needs --trust."),
    ] = False,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.001, help="Use so much of the start; default: the window, else 10."),
    ] = None,
    device: Device = None,
) -> None:
    """Run a template on the start of a recording, and show the shape of the embedding and the time it took.

    If a command fails, the traceback of its error is shown.

    Examples:

      avex template run speech/resemblyzer.json recording.wav --trust --install
    """
    if install and not trust:
        raise typer.BadParameter(
            "install_cmds are shell commands: give --trust, too.", param_hint="--install"
        )
    from avex.models.template.cards import TemplateRunError
    from avex.models.template.trial import install_template, original_traceback, try_template

    if install:
        install_template(file)
    started = time.perf_counter()
    try:
        result = try_template(file, recording, trust=trust, seconds=seconds, device=device)
    except TemplateRunError as error:
        if shown := original_traceback(error):
            typer.echo(shown, err=True)
        raise
    typer.echo(f"Loaded     in {time.perf_counter() - started - result.seconds:.1f} s")
    typer.echo(f"Audio      {result.audio_seconds:g} s at {result.sample_rate} Hz")
    typer.echo(f"Output     {result.kind}, shape {list(result.shape)} in {result.seconds:.3f} s")
    typer.echo(
        f"Embedding  {result.embedding_dim} values, mean {result.mean:.6g}, standard deviation {result.std:.6g}"
    )


@app.command("list")
def list_all(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the packaged templates, and how far each was run when it was made.

    Examples:

      avex template list
    """
    from avex.models.template.catalogue import template_table

    rows = template_table()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from avex.cli.report import render_table

    lines = [
        # What a terminal of 80 columns holds; --json has all of it.
        (
            r["name"],
            str(r["sample_rate"]),
            r["tested"].removesuffix(" weights"),
            r["license"].partition(",")[0],
        )
        for r in rows
    ]
    typer.echo(render_table(("Template", "Hz", "Tested", "Licence"), lines), nl=False)
    typer.echo(
        "Tested: run with the published weights, with random ones, or not (format only).\n"
        "Details: avex template validate NAME, or --json"
    )
