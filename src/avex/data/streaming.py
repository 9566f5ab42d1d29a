"""Shards: many clips in few files, read one after the other, for data on slow or remote disks.

A shard is a plain tar archive of FLAC files; `index.jsonl` beside the shards says where each clip begins.
Reading a clip is one seek, and an epoch goes through the shards one by one (in random order, clips mixed within a
few shards), so that a remote shard is fetched once. Order and resume are those of `avex.data.sampling`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from avex._core.errors import AudioError, ConfigError
from avex.audio import read
from avex.data.clips import Clip
from avex.data.sampling import Indices
from avex.io import atomic_path, fetch, is_remote, join_uri, write_text

INDEX = "index.jsonl"


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A clip in a shard.

    Attributes:
        shard: Name of the archive.
        offset: Where its FLAC begins, bytes.
        size: Its length, bytes.
        seconds: Its length in time.
        id: Name of the clip.
        labels: What it holds.
    """

    shard: str
    offset: int
    size: int
    seconds: float
    id: str
    labels: tuple[str, ...]


def write_shards(
    clips: Sequence[Clip], folder: str | Path, *, sample_rate: int, clips_per_shard: int = 1000
) -> Path:
    """Write clips, decoded and resampled once, into shards.

    Args:
        clips: The clips, in the order in which they are stored.
        folder: An empty or new folder.
        sample_rate: Rate to store at, Hz.
        clips_per_shard: Clips of a file.

    Returns:
        The folder's index.

    Raises:
        ConfigError: No clips, or the folder holds shards already.
        AudioError: A recording cannot be read.

    Example:
        >>> write_shards(read_manifest("clips.csv"), "shards", sample_rate=32000)      # doctest: +SKIP
        PosixPath('shards/index.jsonl')
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if not clips or clips_per_shard < 1:
        raise ConfigError("There are no clips to write, or clips_per_shard is below 1.")
    if (target / INDEX).exists():
        raise ConfigError(f"Folder '{target}' holds shards already. Choose another one.")
    entries: list[ShardEntry] = []
    for number, first in enumerate(range(0, len(clips), clips_per_shard)):
        name = f"shard-{number:06d}.tar"
        entries += _write_shard(clips[first : first + clips_per_shard], target / name, sample_rate, first)
    head = {"sample_rate": sample_rate, "clips": len(entries)}
    lines = [head, *({name: getattr(entry, name) for name in ShardEntry.__slots__} for entry in entries)]
    write_text(target / INDEX, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return target / INDEX


def _write_shard(clips: Sequence[Clip], path: Path, sample_rate: int, first: int) -> list[ShardEntry]:
    entries = []
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
        for number, clip in enumerate(clips, start=first):
            samples, _ = read(clip.path, start_s=clip.start_s, end_s=clip.end_s, sample_rate=sample_rate)
            data = _flac(samples, sample_rate)
            header = tarfile.TarInfo(f"{number:09d}.flac")
            header.size = len(data)
            offset = archive.offset + len(header.tobuf(archive.format))
            archive.addfile(header, io.BytesIO(data))
            seconds = len(samples) / sample_rate
            entries.append(ShardEntry(path.name, offset, len(data), seconds, clip.id, clip.labels))
    return entries


def _flac(samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), sample_rate, format="FLAC", subtype="PCM_24")
    return buffer.getvalue()


class ShardReader:
    """Reads clips of shards by their number.

    Args:
        folder: Folder of the shards, local or a URI; a remote shard is fetched when it is first needed.

    Attributes:
        sample_rate: Of the clips, Hz.
        entries: What there is, in stored order.

    Raises:
        ConfigError: There is no index, or it is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        path = Path(fetch(join_uri(self.folder, INDEX))) if is_remote(self.folder) else Path(folder) / INDEX
        if not path.is_file():
            raise ConfigError(f"There is no '{INDEX}' in '{folder}'. Write shards with write_shards.")
        try:
            head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            self.sample_rate = int(head["sample_rate"])
            self.entries = tuple(_entry(line) for line in lines)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"The index '{path}' is damaged: {error}. Write the shards again.") from error
        if len(self.entries) != head["clips"]:
            raise ConfigError(f"The index '{path}' names {len(self.entries)} of {head['clips']} clips.")

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, index: int) -> npt.NDArray[np.float32]:
        """(S,) samples of a clip.

        Raises:
            AudioError: The shard is missing or damaged.
        """
        entry = self.entries[index]
        remote = is_remote(self.folder)
        path = Path(fetch(join_uri(self.folder, entry.shard))) if remote else Path(self.folder) / entry.shard
        try:
            with path.open("rb") as file:
                file.seek(entry.offset)
                data = file.read(entry.size)
            samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
        except (OSError, soundfile.LibsndfileError) as error:
            raise AudioError(f"Clip '{entry.id}' of shard '{path}' cannot be read: {error}") from error
        return np.asarray(samples, np.float32)


def _entry(line: dict[str, Any]) -> ShardEntry:
    return ShardEntry(**{**line, "labels": tuple(line["labels"])})


@dataclass(frozen=True, eq=False)
class ShardOrder:
    """An order of clips that opens few shards at a time, for `EpochBatches`.

    Shards come in random order; clips are mixed within groups of `window` shards.

    Attributes:
        reader: The shards.
        seed: Of the run.
        window: Shards that are mixed.
        clips_per_epoch: None for all of them.

    Example:
        >>> EpochBatches(ShardOrder(reader, seed=0), batch_size=64)          # doctest: +SKIP
    """

    reader: ShardReader
    seed: int = 0
    window: int = 4
    clips_per_epoch: int | None = None

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.reader)

    def __call__(self, epoch: int) -> Indices:
        """Numbers of the clips, in order."""
        rng = np.random.default_rng((self.seed, epoch, 2))
        shards: dict[str, list[int]] = {}
        for index, entry in enumerate(self.reader.entries):
            shards.setdefault(entry.shard, []).append(index)
        names = rng.permutation(sorted(shards))
        groups = [names[i : i + self.window] for i in range(0, len(names), self.window)]
        parts = [rng.permutation(np.concatenate([shards[name] for name in group])) for group in groups]
        return np.concatenate(parts)[: self.clips_per_epoch].astype(np.int64)
