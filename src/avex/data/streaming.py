"""Shards: many clips in few files, read one after the other, for data on slow or remote disks.

A shard is a plain tar archive of FLAC files; `index.jsonl` beside the shards says where each clip begins and what
is known of it. Reading a clip is one seek. A training goes through the shards a few at a time (`ShardOrder`), so
that a remote shard is fetched once; batches and resume are those of `avex.data.sampling`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from avex._core.errors import AudioError, ConfigError
from avex.audio import make_resampler, read
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip, Piece
from avex.io import MissingFileError, atomic_path, fetch, is_remote, join_uri, write_text

INDEX, ALL = "index.jsonl", "all"


def write_shards(
    clips: Sequence[Clip], folder: str | Path, *, sample_rate: int, clips_per_shard: int = 1000
) -> Path:
    """Write clips, decoded, mixed to one channel and resampled once, into shards.

    Samples are stored with 24 bits; what goes beyond full scale is cut off. Splits, folds, groups and further
    columns are kept. A folder without `index.jsonl` holds no shards: that is written last.

    Args:
        clips: The clips, in the order in which they are stored.
        folder: An empty or new folder.
        sample_rate: Rate to store at, Hz: best that of the model.
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
    lines: list[dict[str, Any]] = [{"sample_rate": sample_rate, "clips": len(clips)}]
    for number, first in enumerate(range(0, len(clips), clips_per_shard)):
        name = f"shard-{number:06d}.tar"
        lines += _write_shard(clips[first : first + clips_per_shard], target / name, sample_rate, first)
    text = "".join(json.dumps(line, default=str) + "\n" for line in lines)
    write_text(target / INDEX, text)
    return target / INDEX


def _write_shard(clips: Sequence[Clip], path: Path, sample_rate: int, first: int) -> list[dict[str, Any]]:
    lines = []
    with atomic_path(path) as temporary, tarfile.open(temporary, "w") as archive:
        for number, clip in enumerate(clips, start=first):
            samples, _ = read(clip.path, start_s=clip.start_s, end_s=clip.end_s, sample_rate=sample_rate)
            data = _flac(samples, sample_rate)
            header = tarfile.TarInfo(f"{number:09d}.flac")
            header.size = len(data)
            offset = archive.offset + len(header.tobuf(archive.format))
            archive.addfile(header, io.BytesIO(data))
            place = {"shard": path.name, "name": header.name, "offset": offset, "size": len(data)}
            # What was cut from one recording stays together in splits.
            known: dict[str, Any] = {
                "id": clip.id,
                "labels": clip.labels,
                "group": clip.group or clip.path.as_posix(),
            }
            known |= {"split": clip.split, "fold": clip.fold, "extra": dict(clip.extra)}
            lines.append({**place, "frames": len(samples), **known})
    return lines


def _flac(samples: npt.NDArray[np.float32], sample_rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), sample_rate, format="FLAC", subtype="PCM_24")
    return buffer.getvalue()


def read_shards(folder: str | Path) -> list[Clip]:
    """Clips of a folder of shards, in stored order; no shard is opened.

    Args:
        folder: Folder of the shards, local or a URI.

    Raises:
        ConfigError: There is no index, or it is damaged.

    Example:
        >>> read_shards("hf://datasets/me/frogs/shards")[0].piece.offset              # doctest: +SKIP
        512
    """
    base = str(folder)
    try:
        path = fetch(join_uri(base, INDEX)) if is_remote(base) else fetch(Path(folder).expanduser() / INDEX)
    except MissingFileError as error:
        raise ConfigError(
            f"There is no '{INDEX}' in '{base}'. Write shards with `avex datasets shard`."
        ) from error
    try:
        head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        clips = [_clip(line, base, int(head["sample_rate"])) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"The index '{path}' is damaged: {error!r}. Write the shards again.") from error
    if len(clips) != head["clips"]:
        raise ConfigError(f"The index '{path}' names {len(clips)} of {head['clips']} clips.")
    return clips


def _clip(line: dict[str, Any], folder: str, rate: int) -> Clip:
    archive = (
        join_uri(folder, line["shard"])
        if is_remote(folder)
        else str(Path(folder).expanduser() / line["shard"])
    )
    return Clip(
        Path(archive, line["name"]),
        end_s=line["frames"] / rate,
        labels=tuple(line["labels"]),
        split=line["split"],
        fold=line["fold"],
        group=line["group"],
        id=line["id"],
        extra=line["extra"],
        piece=Piece(archive, line["offset"], line["size"], rate, line["frames"]),
    )


def import_shards(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of a split of the shards in `data_root`, for `dataset_name: shards`.

    Raises:
        ConfigError: There are no shards, or no clips of the split.
    """
    clips = read_shards(config.data_root or root)
    kept = [clip for clip in clips if config.split in (ALL, clip.split)]
    if not kept:
        splits = sorted({clip.split for clip in clips if clip.split})
        raise ConfigError(
            f"The shards in '{config.data_root}' have no clips of the split '{config.split}'. There are: "
            f"{', '.join(splits) or 'none'}, and 'all'."
        )
    return kept


def read_piece(
    clip: Clip,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    sample_rate: int,
    resampler: str = "soxr_hq",
) -> npt.NDArray[np.float32]:
    """(S,) samples of a clip that is a piece of an archive.

    A remote archive is fetched when it is first needed.

    Args:
        clip: The clip.
        start_s: Where to start, seconds of the piece.
        end_s: Where to end; None means the end.
        sample_rate: Rate wanted, Hz.
        resampler: See `avex.audio.make_resampler`.

    Raises:
        AudioError: The archive is missing or damaged.
    """
    piece = clip.piece
    assert piece is not None
    first, last = (round(s * piece.sample_rate) for s in (start_s, piece.frames if end_s is None else end_s))
    try:
        with fetch(piece.archive).open("rb") as file:
            file.seek(piece.offset)
            data = io.BytesIO(file.read(piece.size))
        with soundfile.SoundFile(data) as flac:
            flac.seek(first)
            samples = flac.read(max(0, last - first), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"Clip '{clip.id}' of shard '{piece.archive}' cannot be read: {error}") from error
    changer = make_resampler(piece.sample_rate, sample_rate, 1, resampler)
    parts = [changer.push(samples), changer.flush()]
    return np.concatenate(parts)[:, 0]
