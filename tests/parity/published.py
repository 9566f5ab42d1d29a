"""Reference values, and checkpoint files as their authors publish them, filled by the recipe of the tests."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.torch import save_file

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_SPEC = importlib.util.spec_from_file_location("synthetic_weights", GOLDEN / "synthetic_weights.py")
recipe = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(recipe)


class Published:
    """One architecture: its reference values and its published layouts.

    Attributes:
        meta: What the arrays mean, and the settings that they were made with.
    """

    # Of the architecture that was asked for last: the layouts share tensors, and drawing them takes time. All at
    # once would be gigabytes.
    _held: ClassVar[tuple[Published | None, dict[str, torch.Tensor]]] = (None, {})

    def __init__(self, family: str, arch: str) -> None:
        with np.load(GOLDEN / family / f"{arch}.npz") as arrays:
            self._arrays = {name: arrays[name] for name in arrays.files}
        keys = json.loads((GOLDEN / family / f"{arch}.keys.json").read_text())
        self._layouts = keys["layouts"]
        self.meta = json.loads(str(self._arrays.pop("meta")))
        self.config = self.meta["config"]

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self._arrays[name])

    @property
    def layouts(self) -> list[str]:
        return list(self._layouts)

    def state(self, layout: str) -> dict[str, torch.Tensor]:
        """The tensors of a checkpoint of that layout, not to be written to."""
        if Published._held[0] is not self:
            Published._held = (self, {})
        filled, state, seen = Published._held[1], {}, set()
        for name, shape, _, fill_name, *gain in self._layouts[layout]["keys"]:
            if fill_name not in filled:
                filled[fill_name] = torch.from_numpy(np.array(recipe.fill(fill_name, shape, *gain)))
            # What several layers share lies in the file once for each of them.
            state[name] = filled[fill_name].clone() if fill_name in seen else filled[fill_name]
            seen.add(fill_name)
        return state

    def write(self, layout: str, folder: Path, **extra) -> Path:
        """A file of that layout, in the container that it is published in.

        `extra`: further tensors or settings that the published file may hold.
        """
        container, state = self._layouts[layout]["container"], self.state(layout)
        tensors = {name: value for name, value in extra.items() if isinstance(value, torch.Tensor)}
        settings = {name: value for name, value in extra.items() if name not in tensors}
        if "torch.save" not in container and "'model'" not in container:
            save_file({**state, **tensors}, path := folder / f"{layout}.safetensors")
        else:
            state = {**state, **tensors}
            torch.save(
                {**settings, "model": state} if "'model'" in container else state,
                path := folder / f"{layout}.pt",
            )
        return path


def clip(name: str, seconds: float, sample_rate: int = 16000) -> torch.Tensor:
    """A test signal, (S,)."""
    return torch.from_numpy(recipe.waveform(name, seconds, sample_rate))


def batch(*clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips padded with zeros to one length, and their padding mask."""
    longest = max(len(x) for x in clips)
    padded = torch.zeros(len(clips), longest)
    mask = torch.ones(len(clips), longest, dtype=torch.bool)
    for row, hidden, x in zip(padded, mask, clips, strict=True):
        row[: len(x)] = x
        hidden[: len(x)] = False
    return padded, mask


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, relative to the root mean square of what is wanted."""
    assert got.shape == wanted.shape, (got.shape, wanted.shape)
    got, wanted = got.detach().double(), wanted.double()
    return float((got - wanted).abs().max() / wanted.square().mean().sqrt())


def row_statistics(x: torch.Tensor) -> torch.Tensor:
    """Mean, population standard deviation and length of every vector."""
    return torch.stack([x.mean(-1), x.std(-1, correction=0), x.norm(dim=-1)], dim=-1)
