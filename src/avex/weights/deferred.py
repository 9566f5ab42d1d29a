"""Building a network without filling the parameters that a checkpoint fills a moment later.

Random numbers for 90 million parameters take longer than reading them from a file. While
`DeferredInitialisation` is active, calls that only fill a new parameter are written down instead of carried
out. Loading then gives most parameters their values; those that the checkpoint does not have (a new
classifier) are filled as written down.

Nothing can go wrong unnoticed: before any other operation sees a parameter that is still to be filled, it is
filled. Buffers are never put off. Random numbers are drawn in another order than without, so a class whose
constructor seeds the generator itself gets other values; `load_model` uses it for the families of this
package only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# In-place methods after which nothing of the old values is left.
_FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.zero_, Tensor.fill_}
# In-place methods that scale what is there; written down too if it is still to be filled.
_SCALES = {Tensor.mul_, Tensor.div_, Tensor.add_, Tensor.sub_}
_IN_PLACE = _FILLS | _SCALES
# What may be asked of a parameter without a look at its values or its memory.
_FACTS: set[Any] = {
    *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.element_size, Tensor.requires_grad_),
    *(Tensor.is_floating_point, Tensor.is_complex, Tensor.__len__, torch.is_floating_point, torch.is_complex),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "is_meta")
    ),
    *(getattr(Tensor, name).__get__ for name in ("grad", "grad_fn", "is_cuda", "is_sparse")),
    torch._has_compatible_shallow_copy_type,  # Module.to asks it of every parameter
}
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]


class _Call(NamedTuple):
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class DeferredInitialisation(TorchFunctionMode):
    """Context in which new parameters are not filled; see the module.

    Example:
        >>> with DeferredInitialisation() as later:
        ...     layer = nn.Linear(2, 3)
        >>> later.is_unfilled(layer.weight)
        True
        >>> later.fill()
        >>> bool(layer.weight.abs().max() <= 2**-0.5)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        # The parameter is kept beside its calls, so that no other object can get its id.
        self._waiting: dict[int, tuple[nn.Parameter, list[_Call]]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Write down what only fills a parameter, carry out everything else."""
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if type(target) is nn.Parameter and self._can_wait(func, target, args[1:], kwargs):
            self._waiting.setdefault(id(target), (target, []))[1].append(_Call(func, args, kwargs))
            return target
        if func not in _FACTS and not _changes_nothing(func, target, args, kwargs):
            self.fill(_tensors((*args, *kwargs.values())))
        return func(*args, **kwargs)

    def _can_wait(
        self, func: Any, target: nn.Parameter, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        if func in _IN_PLACE and torch.is_grad_enabled() and target.requires_grad:
            return False  # outside of no_grad this is an error, which has to come where it is
        if any(True for _ in _tensors((*args, *(kwargs[name] for name in kwargs if name != "tensor")))):
            return False
        return _is_fill(func) or (func in _SCALES and self.is_unfilled(target))

    def is_unfilled(self, tensor: Tensor) -> bool:
        """Tell whether a parameter has no values yet and nothing else has seen its memory."""
        return id(tensor) in self._waiting

    def filled(self, tensor: Tensor) -> None:
        """Say that a parameter has got its values by other means."""
        self._waiting.pop(id(tensor), None)

    def fill(self, tensors: Iterable[Tensor] | None = None) -> None:
        """Fill these parameters, or all that are left, as their constructors wanted."""
        which = list(self._waiting) if tensors is None else [id(tensor) for tensor in tensors]
        for key in which:
            _, calls = self._waiting.pop(key, (None, []))
            with torch.no_grad():
                for call in calls:
                    call.function(*call.args, **call.kwargs)


def _is_fill(function: Any) -> bool:
    return function in _FILLS or getattr(function, "__module__", None) == "torch.nn.init"


def _changes_nothing(func: Any, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call is `Module.to` on a parameter that is there already, which leaves it as it is."""
    if func == _SET_DATA:
        return args[1] is target
    return func is Tensor.to and func(*args, **kwargs) is target


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
