"""Choosing layers by name, number or keyword, and reading their outputs while a model runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from avex._core.errors import UnknownNameError, did_you_mean
from avex.models.compiled import is_compiled, is_exporting, plain_calls

OWN_OUTPUT = "last_layer"
"""Key of the model's own output among layers."""


class LayerError(UnknownNameError):
    """A layer selector that fits nothing in the model."""


def first_tensor(output: Any) -> Tensor:
    """The tensor in a module's output: itself, the first of a tuple or list, or `output["x"]`.

    Raises:
        TypeError: There is no tensor to be found.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict) and "x" in output:
        return first_tensor(output["x"])
    if isinstance(output, (tuple, list)) and output:
        return first_tensor(output[0])
    raise TypeError(f"A tapped layer returned {type(output).__name__}, which holds no tensor.")


@contextmanager
def tap_layers(
    module: nn.Module, names: Sequence[str], *, inputs: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Collect what the named sub-modules put out while the block runs.

    The hooks live as long as the `with` block and hear only the thread that opened it, so several users of one
    model never disturb each other. Parts of the model that `torch.compile` compiled, and that contain a tapped
    layer, run uncompiled in this thread meanwhile: compiled code does not call hooks.

    Args:
        module: The model.
        names: Sub-module names as in `named_modules()`, without the `_orig_mod` of compiled modules.
        inputs: Collect each layer's first input instead of its output.

    Yields:
        A dict that holds, after a forward pass, the tensor of each layer that ran. Tensors keep their gradients.

    Raises:
        LayerError: A name is not a sub-module.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> with tap_layers(net, ["0"]) as taps:
        ...     _ = net(torch.ones(1, 2))
        >>> taps["0"].shape
        torch.Size([1, 3])
    """
    outputs: dict[str, Tensor] = {}
    if not names:
        yield outputs
        return
    modules = named_layers(module)
    thread = threading.get_ident()
    with ExitStack() as stack:
        for part in _compiled_around(modules, names):
            stack.enter_context(plain_calls(part))
        for name in names:
            if name not in modules:
                raise LayerError(f"The model has no layer '{name}'.{did_you_mean(name, modules)}")

            def hook(_module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                # A compiler that traces this in another thread must not build it in; an exporter must.
                if (is_exporting() or not is_compiling()) and threading.get_ident() == thread:
                    outputs[name] = first_tensor(args if inputs else output)

            stack.callback(modules[name].register_forward_hook(hook).remove)
        yield outputs


def named_layers(module: nn.Module) -> dict[str, nn.Module]:
    """All sub-modules by name; what `torch.compile` wraps has the name that it would have without."""
    return {
        ".".join(part for part in name.split(".") if part != "_orig_mod"): sub
        for name, sub in module.named_modules()
    }


def _compiled_around(modules: dict[str, nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """Compiled modules that are or contain one of the named."""
    # A wrapper shares its name with what it wraps, which therefore hides it among `modules`.
    wrappers = [sub for parent in modules.values() for sub in parent._modules.values() if sub is not None]
    compiled = {id(sub): sub for sub in [*modules.values(), *wrappers] if is_compiled(sub)}
    if not compiled:
        return []
    tapped = {id(modules[name]) for name in names if name in modules}
    return [part for part in compiled.values() if any(id(sub) in tapped for sub in part.modules())]


def select_layers(targets: Sequence[str | int], layers: Sequence[str], modules: Sequence[str]) -> list[str]:
    """Resolve layer selectors to names, in order and without repeats (design, ruling 5).

    Args:
        targets: `last_layer`, `backbone`, `all`, numbers (negative from the end), `layer_<i>`, or real names.
        layers: The model's own list of layers.
        modules: All sub-module names, for real names outside that list.

    Raises:
        LayerError: A selector fits nothing.
        TypeError: A selector is neither text nor a number.

    Example:
        >>> select_layers(["layer_0", -1], ["conv", "fc"], [])
        ['conv', 'fc']
    """
    chosen: list[str] = []
    for target in targets:
        chosen.extend(_select_one(target, list(layers), modules))
    if not chosen:
        raise LayerError(
            f"The selection {list(targets)} names no layer: the model lists none. Name modules instead."
        )
    return list(dict.fromkeys(chosen))


def _select_one(target: str | int, layers: list[str], modules: Sequence[str]) -> list[str]:
    if isinstance(target, bool) or not isinstance(target, (str, int)):
        raise TypeError(f"A layer is chosen by name or number, not {target!r}.")
    if isinstance(target, str):
        if target == "all":
            return layers
        if target in layers or target in modules:
            return [target]
        if target in ("last_layer", "backbone"):
            target = -1
        elif target.startswith("layer_") and target[6:].isdigit():
            target = int(target[6:])
        else:
            listed = (
                f", all, layer_0 … layer_{len(layers) - 1}, or one of: {', '.join(layers)}" if layers else ""
            )
            raise LayerError(
                f"Unknown layer '{target}'.{did_you_mean(target, [*layers, *modules])} Choose last_layer{listed}."
            )
    if not -len(layers) <= target < len(layers):
        raise LayerError(f"Layer {target} does not exist: the model has {len(layers)} layers.")
    return [layers[target]]
