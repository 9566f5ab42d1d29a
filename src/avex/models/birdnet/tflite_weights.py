"""BirdNET v2.4's weights in its `.tflite` file: read under the names of the PyTorch network, and written back.

A graph's operators are stored in the order in which they run. Those that hold float constants are gone through in
that order, side by side with the list of what the network needs. Nothing is looked up by tensor name or number.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from avex._core.errors import WeightsError
from avex.io.atomic import atomic_write
from avex.models.birdnet.config import BirdNetConfig
from avex.models.birdnet.flatbuffer import IDENTIFIER, Operator, constant_operators
from avex.models.birdnet.frontend import RANGE_EPSILON, used_bins

_Content = bytes | bytearray | mmap.mmap
# From TFLite's order of axes to PyTorch's, and back.
_TO_TORCH = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}
_TO_TFLITE = {"CONV_2D": (0, 2, 3, 1), "DEPTHWISE_CONV_2D": (1, 2, 3, 0)}


@dataclass(frozen=True)
class _Slot:
    """What the network needs next.

    Attributes:
        kind: Kind of operator.
        names: Its constants' names. With `{}` in it, a name stands for one per spectrogram.
        fixed: A constant that has no name because it must have this value; 0 for the bias of a convolution that
            has none.
    """

    kind: str
    names: tuple[str, ...] = ()
    fixed: float | None = None


def read_tflite_state(path: str | Path, config: BirdNetConfig | None = None) -> dict[str, Tensor]:
    """Read the weights of BirdNET v2.4.

    Args:
        path: The `.tflite` file, in its float32 version.
        config: Sizes of the network; None for the published ones.

    Returns:
        Tensors under the names of the state dict of the native `BirdNet`.

    Raises:
        WeightsError: No TFLite graph, or that of another network.

    Example:
        >>> read_tflite_state(path)["classifier.weight"].shape                 # doctest: +SKIP
        torch.Size([6522, 1024])
    """
    config = config or BirdNetConfig()
    state: dict[str, Tensor] = {}
    for kind, name, view in _named_constants(_mapped(Path(path)), path, config):
        if kind in _TO_TORCH and view.ndim == 4:
            view = view.transpose(_TO_TORCH[kind])
        values = torch.from_numpy(np.array(view, order="C"))
        if "{}" in name:
            state.update({name.format(i): value for i, value in enumerate(values)})
        elif "squeeze" in name:
            state[name] = values.flatten(1)  # 1x1 convolutions of one pixel: linear layers here
        else:
            state[name] = values
    _check_bins(state, path, config)
    return state


def write_tflite_state(
    state: Mapping[str, Tensor],
    template: str | Path,
    path: str | Path,
    config: BirdNetConfig | None = None,
) -> None:
    """Write weights into a copy of BirdNET's `.tflite` file, for programs that run that.

    Args:
        state: State dict of a native `BirdNet` with the published number of classes.
        template: BirdNET's own file; it is not changed.
        path: The file to write.
        config: Sizes of the network; None for the published ones.

    Raises:
        WeightsError: The template is another network, or a tensor is missing or of another shape.
    """
    config = config or BirdNetConfig()
    content = bytearray(Path(template).read_bytes())
    for kind, name, view in _named_constants(content, template, config):
        names = [name.format(i) for i in range(len(config.spectrograms))] if "{}" in name else [name]
        if missing := [key for key in names if key not in state]:
            raise WeightsError(f"The weights lack '{missing[0]}'. Pass the state_dict() of a native BirdNet.")
        tensors = [state[key].detach().float().cpu() for key in names]
        values = torch.stack(tensors) if "{}" in name else tensors[0]
        if kind in _TO_TFLITE and view.ndim == 4:
            values = (values if values.ndim == 4 else values[:, :, None, None]).permute(_TO_TFLITE[kind])
        if tuple(values.shape) != view.shape:
            raise WeightsError(
                f"'{name}' has shape {tuple(values.shape)}, but '{template}' holds {view.shape}. A TFLite file "
                "cannot be given another number of classes."
            )
        view[...] = values.numpy()
    with atomic_write(Path(path)) as file:
        file.write(content)


def _mapped(path: Path) -> _Content:
    """A file's bytes, read only when they are looked at: each weight is copied once."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def _named_constants(
    content: _Content, path: str | Path, config: BirdNetConfig
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Kind of operator, name and values (a view of `content`) of every weight of the file."""
    found = _operators(content, path)
    for position, (slot, operator) in enumerate(zip_longest(_slots(config), found)):
        if slot is None or operator is None or slot.kind != operator.kind:
            raise _other_network(
                path,
                f"its operator with constants number {position} is {operator.kind if operator else 'missing'}, "
                f"expected {slot.kind if slot else 'none'}",
            )
        for name, values in zip_longest(slot.names, operator.constants):
            if values is None:
                raise _other_network(path, f"it has no values for '{name}'")
            if name is not None:
                yield slot.kind, name, values
            elif slot.fixed is None or not np.all(values == np.float32(slot.fixed)):
                raise _other_network(
                    path, f"operator {position} ({slot.kind}) has a constant that should be {slot.fixed or 0}"
                )


def _operators(content: _Content, path: str | Path) -> list[Operator]:
    if bytes(content[4:8]) != IDENTIFIER:
        raise WeightsError(f"'{path}' is not a TFLite graph: its file identifier is {bytes(content[4:8])!r}.")
    try:
        return list(constant_operators(content))
    except (struct.error, IndexError, ValueError) as error:
        raise WeightsError(f"'{path}' is damaged: {error}. Fetch it again.") from error


def _slots(config: BirdNetConfig) -> Iterator[_Slot]:
    """Every operator with constants, in the order of the graph."""
    # Scaling of the waveform.
    yield from (_Slot("ADD", fixed=RANGE_EPSILON), _Slot("SUB", fixed=0.5), _Slot("MUL", fixed=2.0))
    for i in range(len(config.spectrograms)):
        prefix = f"frontend.spectrograms.{i}"
        yield _Slot("MUL", (f"{prefix}.window",))
        yield _Slot("FULLY_CONNECTED", (f"{prefix}.mel",))
        yield _Slot("POW", (f"{prefix}.exponent",))
    yield _Slot("MUL", ("frontend.spectrograms.{}.scale",))
    yield _Slot("ADD", ("frontend.spectrograms.{}.offset",))
    yield _weighted("CONV_2D", "backbone.stem.conv")
    yield _weighted("CONV_2D", "backbone.stem.reduce")
    for i, stage in enumerate(config.stages):
        for j in range(stage.blocks):
            yield from _block(f"backbone.stages.{i}.{j}", stage.squeeze is not None)
    yield _Slot("MUL", ("backbone.head.scale",))
    yield _Slot("ADD", ("backbone.head.offset",))
    yield _weighted("CONV_2D", "backbone.head.conv")
    yield _weighted("FULLY_CONNECTED", "classifier")


def _block(prefix: str, squeeze: bool) -> Iterator[_Slot]:
    yield _weighted("CONV_2D", f"{prefix}.expand")
    yield _weighted("DEPTHWISE_CONV_2D", f"{prefix}.depthwise")
    names = ("squeeze.reduce", "squeeze.expand", "project") if squeeze else ("project",)
    for name in names:
        yield _Slot("CONV_2D", (f"{prefix}.{name}.weight",), fixed=0.0)


def _weighted(kind: str, name: str) -> _Slot:
    return _Slot(kind, (f"{name}.weight", f"{name}.bias"))


def _check_bins(state: Mapping[str, Tensor], path: str | Path, config: BirdNetConfig) -> None:
    """Raise if the mel filters use frequencies that the network does not compute."""
    for i, part in enumerate(config.spectrograms):
        mel = state[f"frontend.spectrograms.{i}.mel"].clone()
        mel[:, used_bins(part, config.sample_rate)] = 0
        if mel.any():
            raise _other_network(path, f"its mel filters reach beyond {part.f_min:g} to {part.f_max:g} Hz")


def _other_network(path: str | Path, what: str) -> WeightsError:
    return WeightsError(
        f"'{path}' is not BirdNET v2.4 in float32: {what}. Pass BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite, or "
        "backend='litert' to run another graph as it is."
    )
