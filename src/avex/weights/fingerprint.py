"""Fingerprints: of weights, exact; of a model's output, tolerant of rounding and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from avex._core.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

_NUM_SAMPLES = 8
_IDENTITY = "_weights_identity"


def weights_identity(model: nn.Module) -> str:
    """Return what the weights that a model was loaded with are called in results: a sha256.

    Two loads with the same identity compute the same embeddings. It is the sha256 of the file where the file
    was verified against its card, or is a graph; otherwise `state_fingerprint` of the weights without the
    classifier, whose fresh values differ from load to load and which no embedding depends on.

    The answer is computed on the first call and kept on the model: it names the weights as they were then, so
    that it outlives a conversion to another precision. `load_model` asks before it converts. Training does
    not change it; save what was trained and load it.

    Args:
        model: Any module.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 2)
        >>> weights_identity(layer) == weights_identity(layer.bfloat16())
        True
    """
    known: str | None = model.__dict__.get(_IDENTITY)
    if known is None:
        heads = tuple(getattr(model, "head_prefixes", ("classifier.",)))
        state = {name: value for name, value in model.state_dict().items() if not name.startswith(heads)}
        known = state_fingerprint(state)
        set_weights_identity(model, known)
    return known


def set_weights_identity(model: nn.Module, sha256: str) -> None:
    """Say what a model's weights are called, where that is known without a look at them."""
    model.__dict__[_IDENTITY] = sha256


def state_fingerprint(state: nn.Module | Mapping[str, Tensor]) -> str:
    """Return a sha256 of a state dict: of every name, element type, shape and byte, in the order of the names.

    It does not depend on the file format or on the order in which the tensors were made. Sharing of memory
    makes no difference either.

    Args:
        state: A module (its `state_dict()` is taken) or a state dict.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> import torch
        >>> a = state_fingerprint({"x": torch.zeros(2), "y": torch.ones(1)})
        >>> a == state_fingerprint({"y": torch.ones(1), "x": torch.zeros(2)})
        True
    """
    import torch

    tensors = state.state_dict() if isinstance(state, torch.nn.Module) else state
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        if not isinstance(tensor, torch.Tensor):  # extra state of a module
            continue
        head = json.dumps([name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)])
        digest.update(head.encode() + b"\n")
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def output_fingerprint(array: Any, digits: int = 7) -> dict[str, Any]:
    """Return a small summary of a model's output that another machine or torch version can be held against.

    Hashes of outputs break at the first different rounding; a few statistics and sampled values, compared
    with a tolerance, do not, and still notice a wrong weight, layer or front end.

    Args:
        array: Output, any shape: a numpy array, a torch tensor or a nested list of numbers.
        digits: Significant digits to keep.

    Returns:
        A dict that JSON and YAML can hold: `shape`, `mean`, `std`, `l2` (Euclidean norm) and `samples`, the
        values at 8 evenly spaced places of the flattened array, first and last included.

    Raises:
        WeightsError: The array is empty or holds values that are not finite.

    Example:
        >>> output_fingerprint([[3.0, 4.0]])["l2"]
        5.0
    """
    values = np.asarray(array.detach().cpu().float() if hasattr(array, "detach") else array, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise WeightsError(
            f"An output of shape {values.shape} cannot be fingerprinted: it is empty or holds NaN or infinite "
            "values. Check the weights and the input."
        )
    flat = values.reshape(-1)
    places = np.round(np.linspace(0, flat.size - 1, _NUM_SAMPLES)).astype(int)

    def kept(value: float) -> float:
        return float(f"{value:.{digits}g}")

    return {
        "shape": list(values.shape),
        "mean": kept(flat.mean()),
        "std": kept(flat.std()),
        "l2": kept(float(np.linalg.norm(flat))),
        "samples": [kept(value) for value in flat[places]],
    }


def compare(expected: Mapping[str, Any], actual: Mapping[str, Any], rtol: float = 1e-3) -> tuple[str, ...]:
    """Return how two output fingerprints differ, in words; empty if they agree.

    Args:
        expected: From the model card.
        actual: From this machine.
        rtol: Largest difference allowed, relative to the root mean square of the expected output.

    Raises:
        WeightsError: A fingerprint lacks a field.
    """
    for fingerprint in (expected, actual):
        if absent := {"shape", "mean", "std", "l2", "samples"} - fingerprint.keys():
            raise WeightsError(
                f"An output fingerprint lacks '{min(absent)}'. Make it with output_fingerprint()."
            )
    if list(expected["shape"]) != list(actual["shape"]):
        return (f"shape is {list(actual['shape'])}, expected {list(expected['shape'])}",)
    size = int(np.prod(expected["shape"]))
    rms = float(expected["l2"]) / size**0.5
    pairs = [("mean", expected["mean"], actual["mean"]), ("std", expected["std"], actual["std"])]
    pairs.append(("rms", rms, float(actual["l2"]) / size**0.5))
    pairs += [
        (f"sample {place}", *both)
        for place, both in enumerate(zip(expected["samples"], actual["samples"], strict=True))
    ]
    return tuple(
        f"{name} is {got:.7g}, expected {want:.7g} (allowed difference {rtol * rms:.2g})"
        for name, want, got in pairs
        if not abs(got - want) <= rtol * rms
    )
