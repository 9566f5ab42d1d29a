"""`avex export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avex._core.errors import ConfigError
from avex.cli.options import Plugins, Trust, import_plugins, trust_models

if TYPE_CHECKING:
    from torch import nn

    from avex.configs import ModelCard
    from avex.models.runtime.export import ExportReport


class ExportFormat(str, Enum):
    """What can be written."""

    onnx = "onnx"


def command(
    file_format: Annotated[ExportFormat, typer.Argument(metavar="FORMAT", help="onnx.", show_default=False)],
    model: Annotated[str, typer.Argument(help="Model name, alias or card file.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")],
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Weights instead of the card's: path or URI.")
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            "--probe", help="A saved probe: write encoder and probe as one graph that gives its logits."
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", help="Clips per run: a number, or 'dynamic' for any.")
    ] = "dynamic",
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="Length of a clip; default: the model's window.")
    ] = None,
    any_length: Annotated[
        bool, typer.Option("--any-length", help="Also take clips of other lengths, where the network can.")
    ] = False,
    rtol: Annotated[
        float,
        typer.Option(
            "--rtol", min=0, help="Largest difference from PyTorch, as a share of an output's size."
        ),
    ] = 1e-3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    plugin: Plugins = None,
    trust: Trust = False,
) -> None:
    """Write a model, from waveform to embedding and scores, as one file for other programs.

    The file is checked against PyTorch before it appears. Needs the extra 'export'.

    Examples:

      avex export onnx aves_base_bio -o aves.onnx

      avex export onnx beats --checkpoint beats.safetensors --seconds 5 --batch 8 -o beats.onnx

      avex export onnx birdnet --probe frogs.safetensors -o frogs.onnx
    """
    clips = _batch_size(batch)
    if output.exists() and not overwrite:
        raise ConfigError(f"'{output}' exists. Pass --overwrite to replace it, or another --output.")
    import_plugins(plugin)
    trust_models([model], trust)
    from avex.models.runtime.export import export_onnx
    from avex.models.utils.registry import resolve

    card = resolve(model)
    module, rate, window = _load(card, checkpoint, probe)
    window = window if seconds is None else seconds
    report = export_onnx(
        module,
        output,
        window_samples=None if window is None else round(window * rate),
        batch_size=clips,
        dynamic_time=any_length,
        rtol=rtol,
        card=card,
    )
    _print(report, card.license, card.license_note)


def _batch_size(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--batch takes a number of at least 1 or 'dynamic', not '{text}'.")
    return int(text)


def _load(card: ModelCard, checkpoint: str | None, probe: Path | None) -> tuple[nn.Module, int, float | None]:
    """The module to export, the rate of its audio, and the seconds that a probe was trained on."""
    from avex.models.utils.factory import accepts
    from avex.models.utils.load import LoadRequest, load_card
    from avex.models.utils.registry import get_model_class

    cls = get_model_class(card.model_spec.name)
    options = {"backend": "native"} if cls is not None and accepts(cls, "backend") else {}
    model: Any = load_card(card, LoadRequest(device="cpu", checkpoint_path=checkpoint, options=options))
    if probe is None:
        return model, model.sample_rate, None
    from avex.models.probes import load_probe

    loaded = load_probe(probe, base_model=model)
    return loaded, model.sample_rate, loaded.info.metadata.get("window_s")


def _print(report: ExportReport, terms: str | None, note: str | None) -> None:
    def shape(sizes: tuple[int | None, ...]) -> str:
        return "(" + ", ".join("any" if size is None else str(size) for size in sizes) + ")"

    least, most = report.sample_range
    length = str(least) if least == most else f"{least} to {most or 'any'}"
    typer.echo(f"Wrote    {report.path} ({report.path.stat().st_size / 1e6:.1f} MB)")
    typer.echo(f"Input    audio ({report.batch_size or 'any'}, {length}) at {report.sample_rate} Hz")
    for name, sizes in report.outputs.items():
        error = report.errors[name].scaled
        typer.echo(f"Output   {name} {shape(sizes)}, at most {error:.1e} of its size off PyTorch")
    typer.echo(f"Licence  {terms or 'not stated by the card'}" + (f". {note}" if note else ""), err=True)
