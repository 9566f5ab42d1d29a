"""Embeddings of clips on disk, computed once: by content, safe against a crash, shared by tasks and experiments.

Each way of embedding has a folder, named after a sha256 of all that determines the numbers besides the audio:
model, its settings and weights, windows, pooling, precision, device. In it, a clip goes by the content of its
file and the stretch that is heard, whatever the task, part or file is called. So a task finds the clips that it
has in common with any other, and only the rest is computed. Nothing is ever taken for something else: another
checkpoint is another folder, a changed recording another clip.

Files hold up to 64 clips of a layer; they are written beside their place and renamed in one step. What is there
is whole; what is not there is computed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from avex._core.version import __version__
from avex.evaluation.contents import FileContents
from avex.evaluation.encoder import ClipEncoder, EncodingPlan
from avex.evaluation.parts import LayerParts
from avex.evaluation.tasks import Task
from avex.io.atomic import is_temporary, write_text

Floats = npt.NDArray[np.float32]
SCHEMA = 2
EMBEDDINGS = "embeddings"
PART_CLIPS = 64
_KEY = "key.json"
RECORDINGS = "recordings.jsonl"
# Writing a part takes much less: what is older was left by a process that was killed.
_ABANDONED_S = 3600.0


@dataclass
class CacheUse:
    """What came of a request.

    Attributes:
        computed: Distinct clips that went through the model.
        found: Distinct clips that were there.
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
        anew: Take nothing that was there before; it is replaced.

    Example:
        >>> cache = EmbeddingCache("results/embeddings")                                  # doctest: +SKIP
        >>> entry = cache.entry(encoder.plan, task)                                       # doctest: +SKIP
        >>> entry.ensure(encoder, ["last_layer"]).computed, entry.vectors("last_layer").shape  # doctest: +SKIP
        (440, (440, 1024))
    """

    def __init__(self, folder: str | Path, *, mapped: bool = False, anew: bool = False) -> None:
        self.folder = Path(folder)
        self.mapped = mapped
        self.since = time.time_ns() if anew else 0
        self.contents = FileContents(self.folder / RECORDINGS)

    def entry(self, plan: EncodingPlan, task: Task) -> CacheEntry:
        """The clips of a task as a model's settings embed them, whether any are there or not."""
        release = ".".join(__version__.split(".")[:2])  # what computes them is part of the numbers, too
        key = {"schema": SCHEMA, "release": release, **asdict(plan)}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        return CacheEntry(self, self.folder / f"{_slug(plan.card)}-{digest[:24]}", plan, key, task)


class CacheEntry:
    """Embeddings of the clips of one task by one model."""

    def __init__(
        self, cache: EmbeddingCache, folder: Path, plan: EncodingPlan, key: dict[str, Any], task: Task
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.task = task
        self._cache = cache
        self._key = key
        self._layers: dict[str, LayerParts] = {}

    def ensure(
        self,
        encoder: ClipEncoder,
        layers: Sequence[str],
        *,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> CacheUse:
        """Compute what is missing; all missing layers of a clip come from one forward pass.

        Another process that wants the same clips waits, and then finds them. One that wants some of them works
        beside this one; each looks after every 64 clips for what the other has done.

        Args:
            encoder: The model, with the settings that the entry was asked for with.
            layers: Names of layers.
            on_progress: Called with the clips that are done and their number.

        Raises:
            AudioError: A recording cannot be read, or changes meanwhile. Parts that were finished stay.
            StoreError: A file of embeddings is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        wanted = {layer: self._layer(layer) for layer in layers}
        total, use = len(self._places), CacheUse()
        with FileLock(self.folder / f".lock-{self._digest()}"):
            self._sweep()
            write_text(
                self.folder / _KEY, json.dumps(self._key, indent=1, sort_keys=True, default=str) + "\n"
            )
            waiting = self._missing(wanted, range(total))
            for start in range(0, len(waiting), PART_CLIPS):
                block = waiting[start : start + PART_CLIPS]
                self._compute(block, encoder, wanted, use)
                if on_progress is not None:
                    on_progress(total - len(waiting) + start + len(block), total)
            if self._cache.since:
                for parts in wanted.values():
                    parts.remove_superseded()
        use.found = total - use.computed
        return use

    def _missing(self, wanted: dict[str, LayerParts], places: Sequence[int]) -> list[int]:
        """Places that lack a layer, as the disk is now."""
        lacking = np.zeros(len(self._places), bool)
        for parts in wanted.values():
            parts.refresh()
            lacking |= parts.missing()
        return [place for place in places if lacking[place]]

    def _compute(
        self, block: Sequence[int], encoder: ClipEncoder, wanted: dict[str, LayerParts], use: CacheUse
    ) -> None:
        started = time.perf_counter()
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        places_left = self._missing(wanted, block)
        lacking = {layer: parts.missing() for layer, parts in wanted.items()}
        for place in places_left:
            alike[tuple(layer for layer in wanted if lacking[layer][place])].append(place)
        keys = list(self._places)
        for layers, places in alike.items():
            clips = [self.task.clips[self._first[place]] for place in places]
            found = encoder.encode(clips, layers, self.task.max_seconds)
            self._cache.contents.check_unchanged(clips)
            for layer, rows in found.items():
                wanted[layer].add([keys[place] for place in places], rows)
            use.computed += len(places)
        use.seconds += time.perf_counter() - started

    def _sweep(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # another process was faster
                if is_temporary(path) and time.time() - path.stat().st_mtime > _ABANDONED_S:
                    path.unlink()

    def vectors(self, layer: str) -> Floats:
        """(N, D) embeddings of a layer, one per clip of the task.

        Raises:
            StoreError: Some are missing or are sequences.
        """
        found: Floats | None = None
        for places, rows in self._fresh(layer).blocks(sequences=False):
            block = np.concatenate(rows)
            if found is None:
                found = np.empty((len(self._places), block.shape[1]), np.float32)
            found[places] = block
        assert found is not None
        return found if len(found) == len(self._place_of) else found[self._place_of]

    def sequences(self, layer: str) -> list[Floats]:
        """N sequences (T, D) of a layer that was stored without pooling.

        Raises:
            StoreError: Some are missing.
        """
        found: dict[int, Floats] = {}
        for places, rows in self._fresh(layer).blocks(sequences=True):
            kept = rows if self._cache.mapped else [np.array(row) for row in rows]
            found.update(zip(places, kept, strict=True))
        return [found[place] for place in self._place_of]

    def nbytes(self, layer: str) -> int:
        """Size of a layer of all clips, as far as can be told from those that are there."""
        return self._layer(layer).nbytes()

    @cached_property
    def _clip_keys(self) -> list[str]:
        return self._cache.contents.clip_keys(self.task.clips, self.task.max_seconds)

    @cached_property
    def _places(self) -> dict[str, int]:
        """Key of each distinct clip to its place."""
        return {key: place for place, key in enumerate(dict.fromkeys(self._clip_keys))}

    @cached_property
    def _place_of(self) -> list[int]:
        """(N) place of each clip of the task."""
        return [self._places[key] for key in self._clip_keys]

    @cached_property
    def _first(self) -> list[int]:
        """By place: the first clip of the task that is there."""
        numbers: dict[int, int] = {}
        for number, place in enumerate(self._place_of):
            numbers.setdefault(place, number)
        return list(numbers.values())

    def _digest(self) -> str:
        return hashlib.sha256(" ".join(sorted(self._places)).encode()).hexdigest()[:16]

    def _layer(self, layer: str) -> LayerParts:
        if layer not in self._layers:
            folder = self.folder / _slug(layer, hashed=True)
            self._layers[layer] = LayerParts(folder, layer, self._places, self._cache.since)
        return self._layers[layer]

    def _fresh(self, layer: str) -> LayerParts:
        parts = self._layer(layer)
        parts.refresh()
        return parts


def _slug(name: str, *, hashed: bool = False) -> str:
    text = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:60].strip(".") or "_"
    return f"{text}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if hashed else text
