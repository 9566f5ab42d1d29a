"""Compiling the network of a model, or saying why that cannot be done here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from avex.embedding.engines.base import EngineOptions
    from avex.models.base_model import ModelBase


def check_options(options: EngineOptions) -> None:
    """Refuse layers of a compiled network: hooks are not called there.

    Raises:
        ConfigError: Both were asked for.
    """
    if options.compile and not options.own_output:
        raise ConfigError(
            f"A compiled network shows its own output only, not layers {list(options.layers)}. Leave out the "
            "layers, or run without compile."
        )


def compile_network(model: ModelBase) -> None:
    """Compile a model's backbone in place; in a class that has none, every part but the head.

    The compiler itself runs at the first call. Weights must be loaded and converted before. The head stays as it
    is because the embedding of a class without backbone is read by a hook on it.

    Raises:
        ConfigError: There is nothing to compile, or no compiler for the model's device.

    Example:
        >>> compile_network(load_model("beats"))                              # doctest: +SKIP
    """
    from avex.models.precision import is_graph

    if is_graph(model):
        raise ConfigError(f"{type(model).__name__} is a graph already and cannot be compiled.")
    check_compiler(model.device)
    parts = _parts(model)
    if not parts:
        raise ConfigError(f"{type(model).__name__} has nothing in front of its head that could be compiled.")
    for part in parts:
        # The sizes of a run do not change; what other lengths would need is compiled when they come.
        part.compile(dynamic=False)


def _parts(model: ModelBase) -> list[nn.Module]:
    from torch import nn

    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, nn.Module):
        return [backbone]
    head, waiting = model._head_name(), list(model.named_children())
    parts = []
    while waiting:
        name, part = waiting.pop()
        if isinstance(part, (nn.ModuleList, nn.ModuleDict)):  # they are never called themselves
            waiting += [(f"{name}.{child}", module) for child, module in part.named_children()]
        elif head != name and not (head or "").startswith(f"{name}."):
            parts.append(part)
    return parts


def check_compiler(device: torch.device) -> None:
    """Check that what `torch.compile` needs on a device is installed.

    Raises:
        ConfigError: There is no C++ compiler, or no Triton for a GPU.
    """
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ConfigError(
                "Compiling for the CPU needs a C++ compiler, and none was found. Install g++ or clang++ (or name "
                "it in the environment variable CXX), or run without compile."
            ) from error
        return
    from torch.utils._triton import has_triton

    if not has_triton():
        raise ConfigError(
            f"Compiling for '{device.type}' needs Triton, which is not installed or does not support this device. "
            "Install triton, or run without compile."
        )
