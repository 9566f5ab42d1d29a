"""Write docs/reference/cli.md from the commands themselves, so that the two cannot disagree.

    python docs/make_cli_reference.py

A test compares the committed file with what this script makes.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from typer.models import ArgumentInfo, OptionInfo

from avex.cli import app

TARGET = Path(__file__).parent / "reference" / "cli.md"
HEAD = """\
# Command line

<!-- Made by docs/make_cli_reference.py from the commands themselves. Do not edit; run the script. -->

`avex COMMAND --help` shows the same on the terminal. Commands that read recordings print results and the summary
on standard output, and the licence of the model, progress and problems on standard error.

## Exit codes

| code | meaning |
|---|---|
| 0 | everything was processed |
| 1 | failure: no input gave anything, the output cannot be written, a model cannot be loaded, `check` differs |
| 2 | wrong usage: an unknown option, model or format, options that contradict each other, no recordings found |
| 3 | partial: the run is complete, but some inputs failed or gave less than they should; see `errors.csv` |
| 130 | interrupted with Ctrl-C; what was finished is kept |

## Environment

| variable | effect |
|---|---|
| `AVEX_OFFLINE=1`, `HF_HUB_OFFLINE=1` | never use the network; only files that are already here |
| `AVEX_CACHE` | folder for downloads other than those of the Hugging Face Hub |
| `HF_HOME`, `HF_HUB_CACHE` | cache of the Hugging Face Hub client |
"""
_TYPE_NAMES = {str: "text", int: "integer", float: "number", Path: "path"}
_MAIN_PANEL, _ARGUMENTS = "Options", "Arguments"


@dataclass(frozen=True)
class Entry:
    """One argument or option of a command.

    Attributes:
        name: As it is typed (`--model`, `-m`), or the placeholder of an argument.
        panel: Heading under which `--help` shows it.
        value: What it takes; empty for a switch.
        default: What holds without it.
        text: Its help.
    """

    name: str
    panel: str
    value: str
    default: str
    text: str


def render() -> str:
    """Return the whole page."""
    parts = [HEAD, "## avex\n", _clean(str(app.info.help)), _usage("avex [OPTIONS] COMMAND [ARGS]...")]
    callback = app.registered_callback
    assert callback is not None
    assert callback.callback is not None
    parts.append(_tables(list(entries(callback.callback))))
    for command in app.registered_commands:
        assert command.callback is not None
        parts.append(_command(str(command.name), command.callback))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            parts.append(_command(f"{group.name} {command.name}", command.callback))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _command(name: str, function: Callable[..., Any]) -> str:
    description, _, examples = inspect.cleandoc(function.__doc__ or "").partition("Examples:")
    found = list(entries(function))
    arguments = [entry.name.strip("`") for entry in found if entry.panel == _ARGUMENTS]
    usage = " ".join([f"avex {name}", *arguments, "[OPTIONS]"])
    parts = [f"## avex {name}\n", _clean(description), _usage(usage), _tables(found)]
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    if lines:
        parts.append("Examples:\n\n" + _block(lines))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def entries(function: Callable[..., Any]) -> Iterator[Entry]:
    """Arguments and options of a command's function, in order."""
    hints = typing.get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if parameter.default is None and typing.get_origin(_without_none(hint)) is typing.Annotated:
            hint = _without_none(hint)  # Python 3.10 makes Optional[Annotated[...]] of `= None`
        kind, info, default = hint, parameter.default, None
        names: tuple[str, ...] = ()
        if typing.get_origin(hint) is typing.Annotated:
            kind, info = typing.get_args(hint)
            default = None if parameter.default is parameter.empty else parameter.default
            # Inside Annotated, typer holds the first name where a default would be.
            names = (info.default,) if isinstance(info.default, str) else ()
        elif isinstance(info, OptionInfo):
            default = info.default
        if isinstance(info, OptionInfo):
            names = (*names, *(info.param_decls or ()))
            yield _option(info, kind, names, default, required=parameter.default is parameter.empty)
        elif isinstance(info, ArgumentInfo):
            name = info.metavar or parameter.name.upper()
            dots = "..." if typing.get_origin(kind) is list else ""
            yield Entry(f"`{name}{dots}`", _ARGUMENTS, "", "", info.help or "")


def _option(info: OptionInfo, kind: Any, names: tuple[str, ...], default: Any, *, required: bool) -> Entry:
    value = f"`{info.metavar}`" if info.metavar else _value(_without_none(kind), info)
    shown = "required" if required else _default(default) if info.show_default else ""
    name = ", ".join(f"`{part}`" for name in names for part in name.split("/"))
    return Entry(name, info.rich_help_panel or _MAIN_PANEL, value, shown, info.help or "")


def _without_none(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def _value(kind: Any, info: OptionInfo) -> str:
    if kind is bool:
        return ""
    if typing.get_origin(kind) is list:
        return f"{_value(typing.get_args(kind)[0], info)}, repeatable"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    name = _TYPE_NAMES[kind]
    if info.min is not None and info.max is not None:
        return f"{name}, {info.min:g} to {info.max:g}"
    return name if info.min is None else f"{name}, at least {info.min:g}"


def _default(value: Any) -> str:
    if value is None or value is False:
        return ""
    return f"`{value.value if isinstance(value, Enum) else value}`"


def _tables(found: list[Entry]) -> str:
    parts = []
    for panel in dict.fromkeys(entry.panel for entry in found):
        rows = [entry for entry in found if entry.panel == panel]
        parts.append(f"**{panel}**\n")
        if panel == _ARGUMENTS:
            parts.append("| argument | meaning |\n|---|---|")
            parts += [f"| {row.name} | {_cell(row.text)} |" for row in rows]
        else:
            parts.append("| option | value | default | meaning |\n|---|---|---|---|")
            parts += [f"| {row.name} | {row.value} | {row.default} | {_cell(row.text)} |" for row in rows]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _clean(text: str) -> str:
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    return "\n\n".join(paragraphs) + "\n"


def _usage(line: str) -> str:
    return _block([line])


def _block(lines: list[str]) -> str:
    return "\n".join(["```console", *(f"$ {line}" for line in lines), "```"])


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
