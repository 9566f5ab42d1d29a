"""Checkpoint files to tensors, whatever wrote them; nothing that stands in a file is ever executed."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from avex._core.errors import UnsafeCheckpointError, WeightsError
from avex.weights.pickles import RestrictedReader
from avex.weights.safetensors_file import read_tensors
from avex.weights.sniff import DAMAGE, Container, TensorInfo, read_safetensors_header, sniff_container

# Where training programs put the state dict among other things, most telling name first.
_STATE_DICT_NAMES = ("model_state_dict", "state_dict", "model")
# What training programs pickle beside the weights: settings, harmless and read as inert objects.
_SETTINGS = ("argparse.", "omegaconf.", "fairseq.", "enum.", "pathlib.", "typing.", "collections.", "numpy.")
_PLAIN_TYPES = tuple(
    f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "long", "float", "str", "bool")
)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        tensors: Name to tensor, on the CPU. Nested groups of tensors (fairseq's `_ema`) have dotted names.
        metadata: What else was stored: settings, number of classes, epoch. Objects of foreign classes are
            inert (`avex.weights.inert.Inert`). Optimiser states are left out.
        format: How it was read: `"safetensors"`, `"torch"` or `"fairseq"`.
        others: Names of further state dicts in the file, such as an average of the weights, which were left out.
        owned: Whether the tensors are in memory of this process, so that a model may take them over. Otherwise
            they are mapped from the file (private copy on write) and have to be copied.
    """

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any] = field(default_factory=dict)
    format: str = "torch"
    others: tuple[str, ...] = ()
    owned: bool = False


def read_checkpoint(path: str | Path, format: str | None = None) -> Checkpoint:
    """Read a checkpoint file.

    Its content decides what the file is, not its name. A torch.save file is read with `weights_only=True`. If
    it also holds the settings of a training program (argparse, omegaconf, fairseq, numpy), it is read again
    with those as inert objects. Anything else in it is an error, unless `format="fairseq"` says that the file
    is known to have such things; they stay inert even then.

    Args:
        path: Local file.
        format: A file format (`FILE_FORMATS`) or None. Anything else is taken for the name of a key layout,
            which is `choose_adapter`'s business. `"fairseq"` is both, so a safetensors file may have it too.

    Raises:
        UnsafeCheckpointError: The file holds functions or classes other than tensors and plain data.
        WeightsError: It is no checkpoint, damaged, of another format than `format`, or holds no tensor.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "tiny.pt"
        >>> torch.save({"model": {"norm.bias": torch.zeros(3)}, "epoch": 7}, file)
        >>> read_checkpoint(file).metadata
        {'epoch': 7}
    """
    path = Path(path)
    container = sniff_container(path)
    actual = "safetensors" if container == "safetensors" else "torch"
    if format in ("safetensors", "torch") and format != actual:
        raise WeightsError(
            f"Checkpoint '{path}' was said to be of format '{format}', but its content is '{actual}'. Leave the "
            "format out, or correct it."
        )
    if container == "safetensors":
        return _read_safetensors(path)
    saved, actual = _read_pickled(path, container, format)
    tensors, rest = _unwrap(saved, path)
    _refuse_oversized(tensors, path)
    metadata = {name: value for name, value in rest.items() if not _holds_tensors(value)}
    read = {name.partition(".")[0] for name in tensors}
    others = tuple(name for name, value in rest.items() if name not in read and _is_state_dict(value))
    return Checkpoint(tensors, metadata, actual, others, owned=actual == "torch")


def read_header(path: str | Path, format: str | None = None) -> dict[str, TensorInfo]:
    """Return the shape and element type of every tensor of a checkpoint file.

    Of a safetensors file only the header is read; a torch.save file is read as a whole.

    Args:
        path: Local file.
        format: As for `read_checkpoint`.

    Raises:
        WeightsError: As for `read_checkpoint`.
    """
    path = Path(path)
    if format != "torch" and sniff_container(path) == "safetensors":
        tensors = read_safetensors_header(path).tensors
        _require_tensors(tensors, path)
        return tensors
    state = read_checkpoint(path, format).tensors
    return {
        name: TensorInfo(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in state.items()
    }


def _read_safetensors(path: Path) -> Checkpoint:
    header = read_safetensors_header(path)
    _require_tensors(header.tensors, path)
    return Checkpoint(read_tensors(path, header), dict(header.metadata), "safetensors", owned=True)


def _read_pickled(path: Path, container: Container, format: str | None) -> tuple[Any, str]:
    if container != "pickle" and format != "fairseq":
        try:
            return _load_weights_only(path), "torch"
        except pickle.UnpicklingError:
            pass  # it holds more than tensors; the restricted reader says what
        except DAMAGE as error:
            raise WeightsError(
                f"Checkpoint '{path}' is damaged ({error}). Download the file again, or pass another "
                "checkpoint_path=... ."
            ) from error
    reader = RestrictedReader(path, container)
    try:
        saved = reader.read()
    except WeightsError:
        if format != "fairseq":
            _refuse_foreign(reader.foreign, path)
        raise
    if format != "fairseq":
        _refuse_foreign(reader.foreign, path)
    return saved, "fairseq"


def _load_weights_only(path: Path) -> Any:
    if path.suffix == ".safetensors":  # recent versions of torch go by the name; an open file has none
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    # Not mapped, for the reasons in `safetensors_file`; reading is also faster than copying from a map.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=False)


def _refuse_foreign(names: list[str], path: Path) -> None:
    foreign = [name for name in names if not name.startswith(_SETTINGS) and name not in _PLAIN_TYPES]
    if foreign:
        shown = ", ".join(f"'{name}'" for name in foreign[:8]) + ", ..." * (len(foreign) > 8)
        raise UnsafeCheckpointError(
            f"Checkpoint '{path}' holds more than tensors and plain data: it names {shown}. Nothing of it was "
            "executed. Expected a state_dict. Convert it to safetensors where it was made, or, if you know why "
            "these names are in it, pass checkpoint_format='fairseq' to read its tensors; the names stay inert."
        )


def _unwrap(saved: Any, path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Part the state dict from what else was saved."""
    if not isinstance(saved, Mapping):
        raise WeightsError(
            f"Checkpoint '{path}' holds a '{type(saved).__name__}', not a state dict. Save model.state_dict() and "
            "pass that file."
        )
    state: Mapping[Any, Any] = saved
    rest: dict[Any, Any] = {}
    # One program's dictionary may stand in another's.
    while (name := next((n for n in _STATE_DICT_NAMES if _is_state_dict(state.get(n))), None)) is not None:
        rest = {**{key: value for key, value in state.items() if key != name}, **rest}
        state = state[name]
    tensors = dict(_tensors(state))
    _require_tensors(tensors, path)
    rest.update({key: value for key, value in state.items() if key not in tensors})
    return tensors, {str(key): value for key, value in rest.items()}


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and (
        any(True for _ in _tensors(value))
        or any(_is_state_dict(value.get(name)) for name in _STATE_DICT_NAMES)
    )


def _tensors(state: Mapping[Any, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            yield str(key), value.detach()
        elif (
            isinstance(value, Mapping) and value and all(isinstance(v, torch.Tensor) for v in value.values())
        ):
            yield from ((f"{key}.{inner}", tensor.detach()) for inner, tensor in value.items())


def _holds_tensors(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_tensors(item) for item in value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_holds_tensors(item) for item in value)
    return isinstance(value, torch.Tensor)


def _refuse_oversized(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise if a tensor repeats its values to more than the file can hold: copying it would fill the memory."""
    for name, tensor in tensors.items():
        if tensor.numel() > max(1024, tensor.untyped_storage().nbytes() // tensor.element_size()):
            raise WeightsError(
                f"Checkpoint '{path}' has '{name}' with the shape {tuple(tensor.shape)}, but only "
                f"{tensor.untyped_storage().nbytes()} bytes for it. Save it with .contiguous(), or pass another "
                "checkpoint_path=... ."
            )


def _require_tensors(tensors: Mapping[str, object], path: Path) -> None:
    if not tensors:
        raise WeightsError(
            f"Checkpoint '{path}' holds no tensors ({path.stat().st_size} bytes): it was saved or published "
            "empty. Download it again or from another place, or pass another checkpoint_path=... ."
        )
