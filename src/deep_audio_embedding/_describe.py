"""The dry run: what a template would install, import and execute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from deep_audio_embedding._commands import Block, compiled, mixed_blocks, shell_blocks
from deep_audio_embedding._declared import is_declarative
from deep_audio_embedding._errors import printable
from deep_audio_embedding._paths import context_directory
from deep_audio_embedding._template import ModelDict, checked, load_model_dict


class PlannedStep(NamedTuple):
    """One step of a template.

    Attributes:
        function: The function that would run it.
        key: The key that holds its commands.
        directory: Absolute path of the directory it would start in.
        commands: (`python` | `shell` | `cd` | `step`, text) in the order in which they would run.
    """

    function: str
    key: str
    directory: str
    commands: tuple[tuple[str, str], ...]


class TemplatePlan(NamedTuple):
    """What a template would do; `str()` of it is a text to read.

    Attributes:
        file: Path of the template, or `<dict>`.
        sample_rate: Rate in Hz of the audio it takes.
        in_shape: Number of dimensions of its input: 2 = (B, S), 3 = (B, C, S).
        authors: Authors of the original work.
        references: Links to publications and code.
        downstream_tasks: Tags.
        steps: What would run, in order; steps without commands are left out.
    """

    file: str
    sample_rate: int
    in_shape: int
    authors: tuple[str, ...]
    references: tuple[str, ...]
    downstream_tasks: tuple[str, ...]
    steps: tuple[PlannedStep, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def describe_template(template: str | os.PathLike[str] | dict[str, Any]) -> TemplatePlan:
    """List what a template would install, import and execute; nothing of it is run.

    Everything that can be checked without running is checked: the format, that the Python compiles, and that the
    contexts lie inside the working directory. Whether a command does what it seems to is for the reader to judge.

    Args:
        template: A path as `load_model_dict` takes it, or what that returned.

    Raises:
        TemplateNotFoundError: There is no such file.
        TemplateFormatError: The template is not valid, or a context is outside the working directory.
        CommandError: A line does not compile.

    Example:
        >>> plan = describe_template("general_purpose/log_mel_statistics.json")
        >>> [step.function for step in plan.steps]
        ['import_pkgs', 'model_init', 'compute_embedding']
    """
    model_dict = checked(template) if isinstance(template, dict) else load_model_dict(template)
    return TemplatePlan(
        file=model_dict.file,
        sample_rate=model_dict["sample_rate"],
        in_shape=model_dict["in_shape"],
        authors=tuple(model_dict["authors"]),
        references=tuple(model_dict["references"]),
        downstream_tasks=tuple(model_dict["downstream_tasks"]),
        steps=tuple(_steps(model_dict)),
    )


def _steps(template: ModelDict) -> Iterator[PlannedStep]:
    if is_declarative(template):
        yield from _declared_steps(template)
        return
    for function, key, context in (
        ("install_dependencies", "install_cmds", None),
        ("import_pkgs", "import_cmds", "import_context"),
        ("model_init", "model_init", "model_init_context"),
        ("pre_proc", "pre_proc", "pre_proc_context"),
        ("compute_embedding", "embed_fwd", None),
    ):
        name = template.get(context) if context else None
        directory = context_directory(name, file=template.file, key=context or key, must_exist=False)
        blocks = _blocks(template, key)
        if blocks:
            commands = tuple((block.kind, block.text) for block in blocks)
            yield PlannedStep(function, key, str(directory), commands)


def _declared_steps(template: ModelDict) -> Iterator[PlannedStep]:
    """What a declarative template does, as the Python that it amounts to."""
    module, _, path = template["entry"].partition(":")
    arguments = ", ".join(f"{name}={value!r}" for name, value in template.get("entry_kwargs", {}).items())
    output = template.get("output")
    part = "" if output is None else f"[{output}]" if output.isdigit() else f".{output}"
    lines = [
        ("import_pkgs", "entry", f"import {module}"),
        ("model_init", "entry", f"model = {module}.{path}({arguments})"),
        *(("pre_proc", "pre_processing", step) for step in template.get("pre_processing", ())),
        ("compute_embedding", "entry", f"y = model(x){part}"),
    ]
    for function, key, line in lines:
        yield PlannedStep(function, key, os.getcwd(), (("python" if key == "entry" else "step", line),))


def _blocks(template: ModelDict, key: str) -> list[Block]:
    items = template.get(key, [])
    if key == "install_cmds":
        return shell_blocks(items)
    if key == "import_cmds":
        return mixed_blocks(items, file=template.file, key=key)
    if items:
        compiled(items, f"<{key} of {template.file}>", file=template.file, key=key)
    return [Block("python", 0, tuple(items))] if items else []


def _lines(plan: TemplatePlan) -> Iterator[str]:
    dimensions = "[B, S]" if plan.in_shape == 2 else "[B, C, S]"
    yield f"Template    {_printable(plan.file)}"
    yield f"Input       {dimensions} at {plan.sample_rate} Hz"
    yield f"Authors     {_printable(', '.join(plan.authors))}"
    yield f"References  {_printable(', '.join(plan.references))}"
    yield f"Tasks       {_printable(', '.join(plan.downstream_tasks))}"
    for step in plan.steps:
        yield f"{step.function} would run {step.key} in {_printable(step.directory)}"
        for kind, text in step.commands:
            first, *rest = text.split("\n")
            yield f"  {kind:<6}  {_printable(first)}"
            yield from (f"          {_printable(line)}" for line in rest)


def _printable(text: str) -> str:
    """One line, whatever the text: a line end in it would look like another entry."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")
