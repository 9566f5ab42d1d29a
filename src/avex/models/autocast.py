"""Running a model's methods in its precision, with float32 results."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from avex.models.features import Features

F = TypeVar("F", bound=Callable[..., Any])

# The ways through a model: those of `ModelBase`, and what families add to them.
PRECISION_METHODS = (
    "forward",
    "forward_features",
    "forward_head",
    "embed",
    "embed_and_classify",
    "layer_features",
    "extract_embeddings",
    "forward_predictor",
    "forward_tokens",
    "encode_audio",
    "encode_text",
)


def in_precision(method: F) -> F:
    """Make a method of a `ModelBase` run in the precision that `set_precision` chose.

    In float32 nothing happens. In a lower precision the method runs under autocast on the model's device, and
    the tensors that it returns are float32.

    Example:
        >>> class Twice:
        ...     low_dtype = None
        ...     @in_precision
        ...     def forward(self, x):
        ...         return 2 * x
        >>> Twice().forward(torch.ones(1))
        tensor([2.])
    """

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.low_dtype is None:
            return method(self, *args, **kwargs)
        with torch.autocast(self.device.type, self.low_dtype):
            return as_float32(method(self, *args, **kwargs))

    return run  # type: ignore[return-value]


def wrap_methods(cls: type) -> None:
    """Apply `in_precision` to those of `PRECISION_METHODS` that a class defines itself."""
    for name in PRECISION_METHODS:
        method = cls.__dict__.get(name)
        if callable(method):
            setattr(cls, name, in_precision(method))


def as_float32(value: Any) -> Any:
    """Return the same value with bfloat16 and float16 tensors as float32, inside containers and features too.

    Example:
        >>> as_float32([torch.ones(1, dtype=torch.bfloat16)])
        [tensor([1.])]
    """
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, Features):
        return replace(value, values=as_float32(value.values))
    if type(value) in (tuple, list):
        return type(value)(as_float32(item) for item in value)
    if isinstance(value, Mapping):
        return {key: as_float32(item) for key, item in value.items()}
    return value
