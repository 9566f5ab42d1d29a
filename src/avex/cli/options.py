"""Options that several commands share."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avex._core.errors import ConfigError

if TYPE_CHECKING:
    from avex.embedding.embed import WindowOptions


class Tail(str, Enum):
    """What happens to the end of a recording."""

    pad = "pad"
    drop = "drop"
    shift = "shift"


class Resampler(str, Enum):
    """Resampling methods."""

    soxr_hq = "soxr_hq"
    kaiser_best = "kaiser_best"


INPUTS_HELP = (
    "Files, folders (recursive), globs, or manifests (.csv, .tsv, .parquet, .jsonl with a column path)."
)
WINDOWS, RUNNING = "Windows", "Running"

Inputs = Annotated[list[str], typer.Argument(metavar="INPUT", help=INPUTS_HELP, show_default=False)]
Model = Annotated[
    str, typer.Option("--model", "-m", help="Model name, alias, card file (.yml) or template (.json).")
]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Python module or .py file that registers model classes; may be repeated."),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Let a JSON template run its commands; `avex template validate` shows them."
    ),
]
Window = Annotated[
    float | None,
    typer.Option("--window", help="Seconds per window; default: the model's.", rich_help_panel=WINDOWS),
]
Overlap = Annotated[
    float,
    typer.Option(
        "--overlap", min=0, help="Seconds that neighbouring windows share.", rich_help_panel=WINDOWS
    ),
]
TailOption = Annotated[
    Tail,
    typer.Option(
        "--tail", help="End of a recording: pad with zeros, drop, or shift back.", rich_help_panel=WINDOWS
    ),
]
MinTail = Annotated[
    float,
    typer.Option(
        "--min-tail", min=0, help="Drop ends with less new audio than this (s).", rich_help_panel=WINDOWS
    ),
]
Channel = Annotated[
    str,
    typer.Option("--channel", help="'mean', 'each', or a channel's number from 1.", rich_help_panel=WINDOWS),
]
ResamplerOption = Annotated[
    Resampler | None,
    typer.Option("--resampler", help="Default: the model's own.", rich_help_panel=WINDOWS),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Parallel sessions; default: one per core.", rich_help_panel=RUNNING
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, help="Windows per call.", rich_help_panel=RUNNING)
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps.", rich_help_panel=RUNNING)
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="fp32|bf16|fp16|auto",
        help="Arithmetic of the network; auto: the fastest that keeps the embeddings.",
        rich_help_panel=RUNNING,
    ),
]
Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="What computes: native or litert for birdnet; default: the model's first.",
        rich_help_panel=RUNNING,
    ),
]
Compile = Annotated[
    bool,
    typer.Option("--compile", help="Compile the network first; pays in long runs.", rich_help_panel=RUNNING),
]
FailFast = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first recording that fails.", rich_help_panel=RUNNING)
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite/--resume",
        help="Replace an existing output, or go on with it (default).",
        rich_help_panel=RUNNING,
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no summary.", rich_help_panel=RUNNING)
]


def window_options(
    window: float | None,
    overlap: float,
    tail: Tail,
    min_tail: float,
    channel: str,
    resampler: Resampler | None,
) -> WindowOptions:
    """Collect the options of windowing."""
    from avex.embedding.embed import WindowOptions

    return WindowOptions(
        window=window,
        overlap=overlap,
        tail=tail.value,
        min_tail=min_tail,
        channel=channel,
        resampler=resampler.value if resampler else None,
    )


def trust_models(models: Sequence[str], trust: bool) -> None:
    """Allow the JSON templates among the models to run, if the user said `--trust`.

    Raises:
        UnknownModelError: There is no such model.
    """
    if trust:
        from avex.models.template.trust import trust_card
        from avex.models.utils.registry import resolve

        for model in models:
            trust_card(resolve(model))


def import_plugins(plugins: Sequence[str] | None) -> None:
    """Import the modules that register a user's model classes.

    Raises:
        ConfigError: A module is not found, or fails while it is imported.
    """
    for plugin in plugins or ():
        try:
            _import_plugin(plugin)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"Plugin '{plugin}' cannot be imported: {error}. Name a module on the Python path or in the "
                "working directory, or give the path of a .py file."
            ) from error
        except Exception as error:
            raise ConfigError(
                f"Plugin '{plugin}' fails on import: {type(error).__name__}: {error}"
            ) from error


def _import_plugin(plugin: str) -> Any:
    path = Path(plugin)
    if path.suffix != ".py":
        return importlib.import_module(plugin)
    if not path.is_file():
        raise ModuleNotFoundError(f"there is no file '{plugin}'")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def refuse_given(context: typer.Context, names: Sequence[str], reason: str) -> None:
    """Refuse options that would do nothing.

    Args:
        context: Of the command.
        names: Parameters of the command, such as `min_overlap`.
        reason: Why they do nothing, and what to do.

    Raises:
        ConfigError: One of them was given.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = next(parameter.opts[0] for parameter in context.command.params if parameter.name == name)
            raise ConfigError(f"{option} does nothing here: {reason}")
