"""The steps of a template: install, import, initialise, pre-process, compute.

Each step works in a copy of the namespace. What `import_cmds` and `model_init` define is handed on to all later
steps; of what `pre_proc` and `embed_fwd` define only `x` and `y` are, so that no batch sees values of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deep_audio_embedding._commands import mixed_blocks, shell_blocks
from deep_audio_embedding._declared import (
    ENTRY,
    call_entry,
    embedded,
    find_entry,
    is_declarative,
    pre_processed,
)
from deep_audio_embedding._errors import InputShapeError, MissingResultError
from deep_audio_embedding._run import new_search_path, process_kept, run_block, run_python
from deep_audio_embedding._template import ModelDict, checked


class Namespace(dict[str, Any]):
    """The names that a template's code sees.

    Attributes:
        search_path: Directories that `import_cmds` and `model_init` put into `sys.path`. They leave it when the
            step ends and are back in it while later steps run, since models import parts of themselves late.
    """

    search_path: tuple[str, ...] = ()


def install_dependencies(model_dict: dict[str, Any]) -> None:
    """Run `install_cmds` with the shell, in the working directory, one after another.

    Every item gets a shell of its own; only a plain `cd DIR` holds for the items after it. `pip` and `python` are
    those of the running interpreter. A template without `install_cmds` needs nothing.

    Args:
        model_dict: What `load_model_dict` returned.

    Raises:
        TemplateFormatError: The template is not valid.
        ShellCommandError: A command failed; the ones after it did not run.
    """
    template = checked(model_dict)
    items = template.get("install_cmds", [])
    with process_kept(template):
        for block in shell_blocks(items):
            run_block(block, items, {}, file=template.file, key="install_cmds")


def import_pkgs(model_dict: dict[str, Any]) -> Namespace:
    """Run `import_cmds` in `import_context` and return the names they define.

    What compiles as Python is Python, alone or together with the items after it; the rest is shell, and so are bare
    expressions (`ls -la`, `patch -p1 < a.diff`), which would do nothing in Python. Each shell item gets a shell of
    its own; only a plain `cd DIR` holds until the end of the step. All items are sorted before the first one runs.

    Returns:
        A dict, to be given to the later steps; empty for a template that imports nothing.

    Raises:
        TemplateFormatError: The template is not valid, or the context is missing or outside the working directory.
        CommandError: A command failed (`ShellCommandError` if it was a shell command).
        EntryError: The callable of a declarative template cannot be imported.
    """
    template = checked(model_dict)
    if is_declarative(template):
        with process_kept(template):
            return Namespace({ENTRY: find_entry(template)})
    items = template.get("import_cmds", [])
    blocks = mixed_blocks(items, file=template.file, key="import_cmds")
    namespace = Namespace(__name__="template")
    with process_kept(template, "import_context") as search_path:
        for block in blocks:
            run_block(block, items, namespace, file=template.file, key="import_cmds")
        namespace.search_path = new_search_path(search_path)
    return namespace


def model_init(model_dict: dict[str, Any], namespace: dict[str, Any]) -> Any:
    """Run `model_init` in `model_init_context` and return the `model` it defines.

    All it defines, `model` included, is added to `namespace` for the later steps, but only if it succeeds.

    Args:
        model_dict: What `load_model_dict` returned.
        namespace: What `import_pkgs` returned.

    Returns:
        The model: for most templates a `torch.nn.Module` or an object that holds one.

    Raises:
        TemplateFormatError: The template is not valid, or the context is missing or outside the working directory.
        CommandError: A line failed.
        MissingResultError: `model` was not defined.
    """
    template = checked(model_dict)
    scope = _scope(namespace)
    if is_declarative(template):
        with process_kept(template):
            return call_entry(template, scope[ENTRY])
    scope.pop("model", None)
    return _run_for("model", template, "model_init", scope, namespace, "model_init_context", keep=True)


def pre_proc(model_dict: dict[str, Any], x: Any, namespace: dict[str, Any]) -> Any:
    """Run `pre_proc` on `x` in `pre_proc_context` and return the new `x`.

    Args:
        model_dict: What `load_model_dict` returned.
        x: Audio at the template's `sample_rate`, most often a `torch.Tensor`: (B, S) if `in_shape` is 2, (B, C, S)
            if it is 3. Objects without `ndim` are taken as they are.
        namespace: What `import_pkgs` returned.

    Returns:
        What the commands left in `x`; `x` itself for a template without `pre_proc`.

    Raises:
        InputShapeError: `x.ndim` is not `in_shape`.
        TemplateFormatError: The template is not valid, or the context is missing or outside the working directory.
        CommandError: A line failed.
        MissingResultError: `x` was deleted or set to `None`.
    """
    template = checked(model_dict)
    _check_dimensions(template, x)
    if is_declarative(template):
        return pre_processed(x, template.get("pre_processing", ()), template["sample_rate"])
    if not template.get("pre_proc"):
        return x
    scope = _scope(namespace)
    scope["x"] = x
    return _run_for("x", template, "pre_proc", scope, namespace, "pre_proc_context")


def compute_embedding(model_dict: dict[str, Any], model: Any, x_pre: Any, namespace: dict[str, Any]) -> Any:
    """Run `embed_fwd` on `model` and `x` and return the embedding `y`.

    Args:
        model_dict: What `load_model_dict` returned.
        model: What `model_init` returned.
        x_pre: What `pre_proc` returned; the commands see it as `x`.
        namespace: What `import_pkgs` returned.

    Returns:
        What the commands assigned to `y`.

    Raises:
        TemplateFormatError: The template is not valid.
        CommandError: A line failed.
        MissingResultError: `y` was not assigned.
    """
    template = checked(model_dict)
    scope = _scope(namespace)
    if is_declarative(template):
        with process_kept(template):
            return embedded(template, model, x_pre)
    scope.pop("y", None)
    scope.update(model=model, x=x_pre)
    return _run_for("y", template, "embed_fwd", scope, namespace)


def _run_for(
    result: str,
    template: ModelDict,
    key: str,
    scope: dict[str, Any],
    namespace: dict[str, Any],
    context_key: str | None = None,
    *,
    keep: bool = False,
) -> Any:
    """Run the commands of `key` in `scope` and return its `result`; `keep` hands all names on to `namespace`."""
    items: Sequence[str] = template[key]
    with process_kept(template, context_key, getattr(namespace, "search_path", ())) as search_path:
        run_python(items, scope, file=template.file, key=key)
        found = new_search_path(search_path)
    value = scope.get(result)
    if value is None:
        state = "is None" if result in scope else "does not exist"
        problem = f"expected the commands to define '{result}', but afterwards '{result}' {state}"
        raise MissingResultError(problem, file=template.file, key=key)
    if keep:
        namespace.update(scope)
        if isinstance(namespace, Namespace):
            namespace.search_path = found
    return value


def _scope(namespace: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(namespace, dict):
        raise TypeError(
            f"namespace must be the dict that import_pkgs returned, not {type(namespace).__name__}"
        )
    return {"__name__": "template", **namespace}


def _check_dimensions(template: ModelDict, x: Any) -> None:
    dimensions = getattr(x, "ndim", None)
    expected = template["in_shape"]
    if isinstance(dimensions, int) and dimensions != expected:
        layout = "(batch, samples)" if expected == 2 else "(batch, channels, samples)"
        shape = tuple(getattr(x, "shape", ()))
        problem = f"expected an input of {expected} dimensions {layout}, found {dimensions} {shape}"
        raise InputShapeError(problem, file=template.file, key="in_shape")
