"""Running modules that `torch.compile` compiled without their compiled code, in one thread, for a while."""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

F = TypeVar("F", bound=Callable[..., Any])

# Newer than the oldest torch that works here.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)

_CALL = "_compiled_call_impl"  # what `Module.__call__` runs if it is there
_lock = threading.Lock()


def is_compiled(module: nn.Module) -> bool:
    """Tell whether a module was compiled in place (`module.compile()`) or is a wrapper of `torch.compile`."""
    return module.__dict__.get(_CALL) is not None or "_orig_mod" in module._modules


def uncompiled(module: nn.Module) -> nn.Module:
    """The module inside a wrapper of `torch.compile`, or the module itself."""
    inner = module._modules.get("_orig_mod")
    return module if inner is None else inner


@contextmanager
def plain_calls(module: nn.Module) -> Iterator[None]:
    """Let calls of a compiled module by this thread run its Python code while the block runs.

    Other threads get the compiled code as before. Blocks may be nested, and overlap in several threads.

    Args:
        module: A module for which `is_compiled` holds.
    """
    thread = threading.get_ident()
    with _lock:
        switch = module.__dict__.get(_CALL)
        if not isinstance(switch, _Switch):
            switch = _Switch(module, switch)
            # Not by attribute: a wrapper would pass it on to the module inside.
            module.__dict__[_CALL] = switch
        switch.plain_threads[thread] += 1
    try:
        yield
    finally:
        with _lock:
            switch.plain_threads[thread] -= 1
            switch.plain_threads += Counter()  # drops those at zero
            if not switch.plain_threads:
                switch.restore()


def without_compiler(function: F) -> F:
    """A function that `torch.compile` leaves alone when it compiles what calls it; an exporter looks into it."""
    # Without the compiler nobody compiles anything, and to import it takes a second.
    if "torch._dynamo" not in sys.modules or is_exporting():
        return function
    return _disabled(function)


# To wrap a function takes longer than to read a layer.
_disabled = functools.cache(torch.compiler.disable)


class _Switch:
    """Stands in for a module's compiled code and lets some threads past it."""

    def __init__(self, module: nn.Module, compiled: Callable[..., Any] | None) -> None:
        self.plain_threads: Counter[int] = Counter()
        self._module = module
        self._before = compiled
        # A wrapper has its compiled code in `forward`, and the plain module inside.
        inner = uncompiled(module)
        self._plain = module._call_impl if inner is module else inner
        self._compiled = compiled or module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = self._plain if threading.get_ident() in self.plain_threads else self._compiled
        return run(*args, **kwargs)

    def restore(self) -> None:
        # A wrapper had nothing there. Its switch stays: another thread may be about to call it.
        if self._before is not None:
            self._module.__dict__[_CALL] = self._before
