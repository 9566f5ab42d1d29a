"""Declarative templates: a callable by its name and named steps, in place of commands."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from deep_audio_embedding._errors import EntryError, described
from deep_audio_embedding._template import ModelDict

ENTRY = "entry"
"""Under this name the callable stands in the namespace."""


def is_declarative(template: dict[str, Any]) -> bool:
    """Whether a template names a callable and holds no commands."""
    return ENTRY in template


def find_entry(template: ModelDict) -> Any:
    """Import what `entry` names.

    Raises:
        EntryError: The module cannot be imported, or has no such name.
    """
    module_name, _, path = template[ENTRY].partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        needed = template.get("requires")
        advice = f". It needs: pip install {' '.join(needed)}" if needed else ""
        problem = f"importing '{module_name}' raised {described(error)}{advice}"
        raise EntryError(problem, file=template.file, key=ENTRY) from error
    for name in path.split("."):
        if not hasattr(found, name):
            problem = f"expected a callable '{path}' in '{module_name}', but there is no '{name}'"
            raise EntryError(problem, file=template.file, key=ENTRY)
        found = getattr(found, name)
    if not callable(found):
        problem = f"expected a callable, found a {type(found).__name__}"
        raise EntryError(problem, file=template.file, key=ENTRY)
    return found


def call_entry(template: ModelDict, entry: Any) -> Any:
    """Return `entry(**entry_kwargs)`, in eval mode if it has one.

    Raises:
        EntryError: It failed, or returned nothing.
    """
    try:
        model = entry(**template.get("entry_kwargs", {}))
    except (Exception, SystemExit) as error:
        problem = f"calling it raised {described(error)}"
        raise EntryError(problem, file=template.file, key=ENTRY) from error
    if model is None:
        raise EntryError(
            "expected it to return the model, but it returned None", file=template.file, key=ENTRY
        )
    return model.eval() if callable(getattr(model, "eval", None)) else model


def pre_processed(x: Any, steps: Sequence[str], sample_rate: int) -> Any:
    """Apply named steps to a waveform.

    Args:
        x: `torch.Tensor` (..., S), float.
        steps: Names, applied in order.
            `mono` averages the channels of (B, C, S) to one; `peak_normalize` scales each to a peak of 1, silence
            stays; `standardize` gives each mean 0 and variance 1 (1e-7 is added to the variance);
            `scale:FACTOR` multiplies; `pad_to:SECONDS` adds silence to the end of what is shorter;
            `crop_to:SECONDS` cuts off what is longer; `to_numpy` gives a NumPy array.
        sample_rate: Rate of `x` in Hz.

    Returns:
        The new waveform; `x` itself is not changed.
    """
    for step in steps:
        name, _, argument = step.partition(":")
        x = _apply(name, float(argument) if argument else 0.0, x, sample_rate)
    return x


def _apply(name: str, amount: float, x: Any, sample_rate: int) -> Any:
    if name == "mono":
        return x.mean(-2, keepdim=True) if x.ndim == 3 else x
    if name == "peak_normalize":
        peak = x.abs().amax(-1, keepdim=True)
        return x / (peak + (peak == 0))
    if name == "standardize":
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-7) ** 0.5
    if name == "scale":
        return x * amount
    if name == "to_numpy":
        return x.detach().cpu().numpy()
    samples = round(amount * sample_rate)
    if name == "crop_to":
        return x[..., :samples]
    padded = x.new_zeros((*x.shape[:-1], max(samples, x.shape[-1])))
    padded[..., : x.shape[-1]] = x
    return padded


def selected(template: ModelDict, result: Any) -> Any:
    """Return the part of a model's result that `output` names; the result itself if there is no such key.

    Raises:
        EntryError: The result has no such part.
    """
    name = template.get("output")
    if name is None:
        return result
    try:
        if name.isdecimal():
            return result[int(name)]
        return result[name] if isinstance(result, dict) and name in result else getattr(result, name)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        problem = f"expected '{name}' in what the model returns, found a {type(result).__name__} without it"
        raise EntryError(problem, file=template.file, key="output") from error


def embedded(template: ModelDict, model: Any, x: Any) -> Any:
    """Run the model on `x`.

    Raises:
        EntryError: It failed, or returned nothing.
    """
    try:
        result = model(x)
    except (Exception, SystemExit) as error:
        problem = f"the model raised {described(error)}"
        raise EntryError(problem, file=template.file, key=ENTRY) from error
    y = selected(template, result)
    if y is None:
        raise EntryError("expected an embedding, but the model returned None", file=template.file, key=ENTRY)
    return y
