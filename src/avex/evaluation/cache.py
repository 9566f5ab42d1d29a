"""Embeddings of clips on disk, computed once: by content, in parts, safe against a crash, shared by experiments.

An entry is a folder, named after a sha256 of everything that determines the numbers: model, weights, windows,
pooling, precision, and the stretches of audio with the sizes and times of change of their files. In it each
layer has a folder with a safetensors file for every 64 clips, written beside its place and renamed in one
step. What is there is whole; what is not there is computed. Nothing is ever taken for something else: another
checkpoint is another entry.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save

from avex._core.errors import StoreError
from avex.evaluation.encoder import ClipEncoder, EncodingPlan
from avex.evaluation.tasks import Task
from avex.io.atomic import is_temporary, write_bytes, write_text

Floats = npt.NDArray[np.float32]
SCHEMA = 1
PART_CLIPS = 64
_KEY = "key.json"


@dataclass
class CacheUse:
    """What came of a request.

    Attributes:
        computed: Clips that went through the model.
        found: Clips that were there.
        seconds: Time in the model, audio included.
    """

    computed: int = 0
    found: int = 0
    seconds: float = 0.0


class EmbeddingCache:
    """A folder of embeddings.

    Args:
        folder: Where they are; created when something is written.
        mapped: Read sequences through memory maps, instead of all into memory.

    Example:
        >>> cache = EmbeddingCache("results/embeddings")                                  # doctest: +SKIP
        >>> entry = cache.entry(encoder.plan, task)                                       # doctest: +SKIP
        >>> entry.ensure(encoder, ["last_layer"]).computed, entry.vectors("last_layer").shape  # doctest: +SKIP
        (440, (440, 1024))
    """

    def __init__(self, folder: str | Path, *, mapped: bool = False) -> None:
        self.folder = Path(folder)
        self._mapped = mapped

    def entry(self, plan: EncodingPlan, task: Task) -> CacheEntry:
        """The entry of a model's settings and a task's audio, whether there is anything in it or not."""
        key = {"schema": SCHEMA, **asdict(plan), "audio": task.audio_digest(), "clips": len(task.clips)}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return CacheEntry(self.folder / f"{_slug(plan.card)}-{digest[:24]}", plan, key, task, self._mapped)


class CacheEntry:
    """Embeddings of the clips of one task by one model."""

    def __init__(
        self, folder: Path, plan: EncodingPlan, key: dict[str, Any], task: Task, mapped: bool = False
    ) -> None:
        self.folder = folder
        self.plan = plan
        self._mapped = mapped
        self._key = key
        self._task = task

    def ensure(
        self,
        encoder: ClipEncoder,
        layers: Sequence[str],
        *,
        overwrite: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> CacheUse:
        """Compute what is missing; all missing layers of a clip come from one forward pass.

        Another process that wants the same waits, and then finds it done.

        Args:
            encoder: The model, with the settings that the entry was asked for with.
            layers: Names of layers.
            overwrite: Compute what is there again.
            on_progress: Called with the clips that are done and their number.

        Raises:
            AudioError: A recording cannot be read. Parts that were finished stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        use = CacheUse()
        with FileLock(self.folder / ".lock"):
            self._sweep()
            write_text(self.folder / _KEY, json.dumps(self._key, indent=1, sort_keys=True) + "\n")
            for number in range(self._parts()):
                self._ensure_part(number, encoder, layers, overwrite, use)
                if on_progress is not None:
                    on_progress(min((number + 1) * PART_CLIPS, len(self._task.clips)), len(self._task.clips))
        return use

    def _ensure_part(
        self, number: int, encoder: ClipEncoder, layers: Sequence[str], overwrite: bool, use: CacheUse
    ) -> None:
        clips = self._task.clips[number * PART_CLIPS : (number + 1) * PART_CLIPS]
        missing = [layer for layer in layers if overwrite or not self._part(layer, number).is_file()]
        if not missing:
            use.found += len(clips)
            return
        started = time.perf_counter()
        for layer, rows in encoder.encode(clips, missing, self._task.max_seconds).items():
            path = self._part(layer, number)
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, _pack(rows, layer))
        use.computed += len(clips)
        use.seconds += time.perf_counter() - started

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.rglob("*"):
            if is_temporary(path):
                path.unlink(missing_ok=True)

    def vectors(self, layer: str) -> Floats:
        """(N, D) embeddings of a layer, one per clip of the task.

        Raises:
            StoreError: Some are missing or are sequences.
        """
        parts = [self._read(layer, number) for number in range(self._parts())]
        if any("lengths" in part for part in parts):
            raise StoreError(
                f"Layer '{layer}' of '{self.folder}' holds sequences. Read them with sequences()."
            )
        return np.concatenate([part["values"] for part in parts])

    def sequences(self, layer: str) -> list[Floats]:
        """N sequences (T, D) of a layer that was stored without pooling.

        Raises:
            StoreError: Some are missing.
        """
        found: list[Floats] = []
        for number in range(self._parts()):
            part = self._read(layer, number, mapped=self._mapped)
            found += np.split(part["values"], np.cumsum(part["lengths"])[:-1])
        return found

    def nbytes(self, layer: str, clips: int) -> int:
        """Size of a layer of the first clips on disk."""
        return sum(self._part(layer, number).stat().st_size for number in range(-(-clips // PART_CLIPS)))

    def _parts(self) -> int:
        return -(-len(self._task.clips) // PART_CLIPS)

    def _part(self, layer: str, number: int) -> Path:
        return self.folder / _slug(layer, hashed=True) / f"part-{number:05d}.safetensors"

    def _read(self, layer: str, number: int, *, mapped: bool = False) -> dict[str, npt.NDArray[Any]]:
        path = self._part(layer, number)
        if not path.is_file():
            raise StoreError(
                f"Embeddings of layer '{layer}' are missing: no file '{path}'. Call ensure() first."
            )
        if mapped:
            return _read_mapped(path)
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _read_mapped(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read-only arrays of a safetensors file of float32 and int64, without reading it: pages come when used.

    The format: the length of a JSON header in 8 bytes, little endian; the header, with the type, shape and place
    of each array; then the arrays.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    types = {"F32": np.float32, "I64": np.int64}
    return {
        name: np.memmap(
            path, types[of["dtype"]], "r", offset=8 + size + of["data_offsets"][0], shape=tuple(of["shape"])
        )
        for name, of in header.items()
        if name != "__metadata__"
    }


def _pack(rows: Sequence[Floats], layer: str) -> bytes:
    metadata = {"layer": layer}
    if rows[0].ndim == 1:
        return save({"values": np.stack(rows)}, metadata)
    lengths = np.array([len(row) for row in rows], np.int64)
    return save({"values": np.concatenate(rows), "lengths": lengths}, metadata)


def _slug(name: str, *, hashed: bool = False) -> str:
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60].strip(".") or "_"
    return f"{text}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if hashed else text
