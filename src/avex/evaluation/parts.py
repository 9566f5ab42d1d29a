"""Embeddings of one layer on disk: files of some clips each, and an index of which clip is in which.

A part is a safetensors file: `values` (R, D) in float32, and in its header the keys of the clips, and the
lengths of their sequences where they were not pooled. Parts are only ever added, under names that sort by
time; where two hold the same clip, the later one counts.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from avex._core.errors import StoreError
from avex.io.atomic import write_bytes

Floats = npt.NDArray[np.float32]
_FLOAT = np.dtype(np.float32).itemsize


@dataclass(frozen=True, eq=False)
class _Part:
    """A file, from its header: the clips in it, and where the rows of each begin and end."""

    path: Path
    clips: tuple[str, ...]
    bounds: npt.NDArray[np.int64]
    shape: tuple[int, int]
    offset: int
    sequences: bool

    def values(self) -> Floats:
        """(R, D) rows of all clips, read-only, through a memory map: pages come when they are used."""
        return np.memmap(self.path, np.float32, "r", self.offset, self.shape)


class LayerParts:
    """The parts of a layer, as far as they hold clips of interest.

    Args:
        folder: Where they are; created with the first part.
        layer: Name of the layer, for messages.
        places: Key of each clip of interest to its place, from 0 on.
        since: Leave out parts that are older, in ns since 1970.
    """

    def __init__(self, folder: Path, layer: str, places: Mapping[str, int], since: int = 0) -> None:
        self._folder, self._layer, self._places = folder, layer, places
        self._oldest = _part_name(since)
        self._parts: dict[str, _Part] = {}
        self._order: list[_Part] = []
        self._part = np.full(len(places), -1, np.int32)
        self._rows = np.zeros((len(places), 2), np.int64)

    def refresh(self) -> None:
        """Look for parts that were added.

        Raises:
            StoreError: One is damaged.
        """
        for path in sorted(self._folder.glob("part-*.safetensors")):
            if path.name >= self._oldest and path.name not in self._parts:
                self._take(_read_part(path))

    def add(self, clips: Sequence[str], rows: Sequence[Floats]) -> None:
        """Write a part.

        Args:
            clips: Keys.
            rows: Of each clip (D,), or (T, D).
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{_part_name(time.time_ns())}-{secrets.token_hex(4)}.safetensors"
        write_bytes(path, _pack(self._layer, clips, rows))
        self._take(_read_part(path))

    def missing(self) -> npt.NDArray[np.bool_]:
        """(N) which clips are not there, by place."""
        return self._part < 0

    def nbytes(self) -> int:
        """Size of all clips, as far as can be told from those that are there; 0 if none is."""
        there = int((~self.missing()).sum())
        if not there:
            return 0
        rows = int((self._rows[:, 1] - self._rows[:, 0]).sum())
        return rows * self._order[0].shape[1] * _FLOAT * len(self._places) // there

    def blocks(self, *, sequences: bool) -> Iterator[tuple[list[int], list[Floats]]]:
        """Places of clips and their rows (T, D), part by part, mapped.

        Raises:
            StoreError: A clip is missing, or is a sequence where vectors were expected.
        """
        if self.missing().any():
            raise StoreError(
                f"Embeddings of layer '{self._layer}' are missing: {int(self.missing().sum())} of "
                f"{len(self._places)} clips are not in '{self._folder}'. Call ensure() first."
            )
        for number, part in enumerate(self._order):
            if part.sequences and not sequences:
                raise StoreError(
                    f"Layer '{self._layer}' of '{self._folder}' holds sequences. Read them with sequences()."
                )
            own = np.flatnonzero(self._part == number)
            if len(own):
                values = part.values()
                yield own.tolist(), [values[start:stop] for start, stop in self._rows[own].tolist()]

    def remove_superseded(self) -> None:
        """Delete parts from before `since` whose clips are all in later ones."""
        there = {key for key, place in self._places.items() if self._part[place] >= 0}
        for path in sorted(self._folder.glob("part-*.safetensors")):
            if path.name < self._oldest and there.issuperset(_read_part(path).clips):
                path.unlink(missing_ok=True)

    def _take(self, part: _Part) -> None:
        self._parts[part.path.name] = part
        held = [(i, self._places[key]) for i, key in enumerate(part.clips) if key in self._places]
        if held:
            inside, places = np.array(held, np.int64).T
            self._part[places] = len(self._order)
            self._rows[places] = np.stack([part.bounds[inside], part.bounds[inside + 1]], 1)
            self._order.append(part)


def _part_name(nanoseconds: int) -> str:
    return f"part-{nanoseconds:020d}"


def _pack(layer: str, clips: Sequence[str], rows: Sequence[Floats]) -> bytes:
    metadata = {"layer": layer, "clips": " ".join(clips)}
    if rows[0].ndim == 2:
        metadata["lengths"] = " ".join(str(len(row)) for row in rows)
        return save({"values": np.concatenate(rows)}, metadata)
    return save({"values": np.stack(rows)}, metadata)


def _read_part(path: Path) -> _Part:
    """The header of a part. The format: its length in 8 bytes, little endian; JSON; then the array."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(size, 1 << 24)))
        clips = tuple(header["__metadata__"]["clips"].split())
        lengths = header["__metadata__"].get("lengths")
        counts = [1] * len(clips) if lengths is None else [int(text) for text in lengths.split()]
        rows, width = header["values"]["shape"]
        bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        whole = path.stat().st_size == 8 + size + rows * width * _FLOAT
        if header["values"]["dtype"] != "F32" or len(counts) != len(clips) or bounds[-1] != rows or not whole:
            raise ValueError("sizes do not fit")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"Stored embeddings '{path}' are damaged or cannot be read ({error}). Delete the file; its clips are "
            "then embedded again."
        ) from error
    return _Part(path, clips, bounds, (rows, width), 8 + size, lengths is not None)
