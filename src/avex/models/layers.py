"""Choosing layers by name, number or keyword, and reading their outputs while a model runs."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling

from avex._core.errors import UnknownNameError, did_you_mean
from avex.models.compiled import is_compiled, is_exporting, plain_calls, uncompiled

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
    thread = threading.get_ident()
    paths = {name: path_to_layer(module, name) for name in names}
    compiled = {id(part): part for path in paths.values() for part in path if is_compiled(part)}
    with ExitStack() as stack:
        for part in compiled.values():
            stack.enter_context(plain_calls(part))
        for name, path in paths.items():

            def hook(_module: nn.Module, args: Any, output: Any, name: str = name) -> None:
                # A compiler that traces this in another thread must not build it in; an exporter must.
                if (is_exporting() or not is_compiling()) and threading.get_ident() == thread:
                    outputs[name] = first_tensor(args if inputs else output)

            stack.callback(path[-1].register_forward_hook(hook).remove)
        yield outputs


def path_to_layer(module: nn.Module, name: str) -> list[nn.Module]:
    """A module, what it contains on the way to a layer, and the layer.

    Args:
        module: The model.
        name: The layer, without the `_orig_mod` of modules that `torch.compile` wraps; these are on the way.

    Raises:
        LayerError: There is no such layer.
    """
    path = _find_path(module, name)
    if path is None:
        raise LayerError(f"The model has no layer '{name}'.{did_you_mean(name, list(ModuleNames(module)))}")
    return path


def _find_path(module: nn.Module, name: str) -> list[nn.Module] | None:
    path = [module]
    for part in name.split("."):
        inner = uncompiled(path[-1])
        if inner is not path[-1]:
            path.append(inner)
        child = inner._modules.get(part)
        if child is None:
            return None
        path.append(child)
    last = uncompiled(path[-1])
    return path if last is path[-1] else [*path, last]


class ModuleNames(Collection[str]):
    """Names of all sub-modules; what `torch.compile` wraps has the name that it would have without.

    Listing the modules of a network takes as long as reading some of its layers, so they are only listed when
    somebody wants to see them, not to tell whether one is there.

    Args:
        module: The model.

    Example:
        >>> names = ModuleNames(nn.Sequential(nn.Linear(1, 1)))
        >>> "0" in names, list(names)
        (True, ['0'])
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _find_path(self._module, name) is not None

    def __iter__(self) -> Iterator[str]:
        plain = (
            ".".join(part for part in name.split(".") if part != "_orig_mod")
            for name, _ in self._module.named_modules()
        )
        return iter(dict.fromkeys(name for name in plain if name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def select_layers(targets: Sequence[str | int], layers: Sequence[str], modules: Collection[str]) -> list[str]:
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


def _select_one(target: str | int, layers: list[str], modules: Collection[str]) -> list[str]:
    if isinstance(target, bool) or not isinstance(target, (str, int)):
        raise TypeError(f"A layer is chosen by name or number, not {target!r}.")
    if isinstance(target, str):
        if target == "all":
            return layers
        if target in layers or target in modules:
            return [target]
        if target in ("last_layer", "backbone"):
            target = -1
        elif target.startswith("layer_") and target[6:].isdecimal():
            target = int(target[6:])
        else:
            listed = (
                f", all, layer_0 … layer_{len(layers) - 1}, or one of: {', '.join(layers)}" if layers else ""
            )
            raise LayerError(
                f"Unknown layer '{target}'.{did_you_mean(target, [*layers, *modules])} Choose last_layer{listed}."
            )
    if not -len(layers) <= target < len(layers):
        advice = f"Choose 0 … {len(layers) - 1}." if layers else "Name a module instead."
        raise LayerError(f"Layer {target} does not exist: the model has {len(layers)} layers. {advice}")
    return [layers[target]]
