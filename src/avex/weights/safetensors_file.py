"""Safetensors files to tensors, each read once and straight into memory of its own.

Not mapped into memory, although that is the fastest way to a tensor that is never looked at: a mapped file
that is overwritten changes the model, and one that is cut short ends the process with a bus error, hours after
it was loaded. Reading it costs one copy, which a model's parameters need anyhow to be trained.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO

import torch

from avex._core.errors import WeightsError
from avex.weights.sniff import REMEDY, SafetensorsHeader, TensorInfo


def read_tensors(path: Path, header: SafetensorsHeader) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file.

    Args:
        path: The file.
        header: Its header, as `read_safetensors_header` gave it.

    Returns:
        Tensors on the CPU, in file order, no two of which share memory.

    Raises:
        WeightsError: An element type is unknown, or the file has become shorter since its header was read.
    """
    tensors: dict[str, torch.Tensor] = {}
    with path.open("rb", buffering=0) as file:
        for name, start in sorted(header.starts.items(), key=lambda item: item[1]):
            file.seek(start)
            tensors[name] = _read_tensor(file, name, header.tensors[name], path)
    return tensors


def _read_tensor(file: IO[bytes], name: str, info: TensorInfo, path: Path) -> torch.Tensor:
    dtype = getattr(torch, info.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise WeightsError(
            f"Checkpoint '{path}' has '{name}' in the element type '{info.dtype}', which torch {torch.__version__} "
            "does not have. Convert it to float32 where it was made."
        )
    tensor = torch.empty(math.prod(info.shape), dtype=dtype)
    left = memoryview(tensor.view(torch.uint8).numpy().data) if tensor.numel() else memoryview(b"")
    while left:
        count = file.readinto(left)  # type: ignore[attr-defined]
        if not count:
            raise WeightsError(f"Checkpoint '{path}' ended while it was read. {REMEDY}")
        left = left[count:]
    return tensor.view(info.shape)
