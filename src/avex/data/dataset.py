"""A torch dataset of clips: exact stretches of recordings, at one sample rate and length, with padding masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from avex._core.errors import ConfigError
from avex.audio import Channel, Method, info, parse_channel, read
from avex.data.clips import Clip
from avex.data.encoder import LabelEncoder
from avex.data.streaming import read_piece

WindowSelection = Literal["start", "center", "random"]


class Item(TypedDict, total=False):
    """A clip, ready for a model.

    `raw_wav` (S,) float32, `padding_mask` (S,) bool with True where there is padding, `label` () int64 or (C,)
    float32, `text_label` where the clip has one, and the clip's `id`.
    """

    raw_wav: Tensor
    padding_mask: Tensor
    label: Tensor
    text_label: str
    id: str


class ClipDataset(Dataset[Item]):
    """Clips as waveforms.

    Only the stretch that is needed is decoded. Source frames are `round(start_s * rate)` to
    `round(end_s * rate)`; the stretch is mixed to one channel, then resampled. With a target length, longer
    clips are cut (before resampling) and shorter ones padded with zeros on the right.

    Args:
        clips: The clips.
        sample_rate: Rate of the waveforms, Hz.
        encoder: Numbers of the labels; None gives no `label`.
        target_seconds: Length of every waveform; None leaves each as long as its clip.
        window_selection: Which part of a longer clip: its `start`, its `center`, or a `random` one that follows
            from the seed, the epoch and the clip's position, whichever worker reads it.
        channel: `mean` or a channel number from 1.
        resampler: See `avex.audio.make_resampler`.
        seed: Of random windows.

    Raises:
        ConfigError: An argument is out of range. Items raise `AudioError` for recordings that cannot be read.

    Example:
        >>> clips = read_manifest("clips.csv")  # doctest: +SKIP
        >>> dataset = ClipDataset(clips, 16000, LabelEncoder.fit(clips), target_seconds=5)  # doctest: +SKIP
        >>> dataset[0]["raw_wav"].shape  # doctest: +SKIP
        torch.Size([80000])
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        sample_rate: int,
        encoder: LabelEncoder | None = None,
        *,
        target_seconds: float | None = None,
        window_selection: WindowSelection = "start",
        channel: Channel | str = "mean",
        resampler: Method = "soxr_hq",
        seed: int = 0,
    ) -> None:
        if window_selection not in ("start", "center", "random"):
            raise ConfigError(
                f"window_selection is '{window_selection}'; expected 'start', 'center' or 'random'."
            )
        if parse_channel(channel) == "each":
            raise ConfigError("A clip gives one waveform: choose channel='mean' or a channel number from 1.")
        if sample_rate < 1 or (target_seconds is not None and round(target_seconds * sample_rate) < 1):
            raise ConfigError(
                f"sample_rate is {sample_rate!r} and target_seconds {target_seconds!r}; expected at least 1 Hz "
                "and one sample."
            )
        self.clips = tuple(clips)
        self.sample_rate = sample_rate
        self.encoder = encoder
        self.target_seconds = target_seconds
        self.window_selection = window_selection
        self.channel = parse_channel(channel)
        self.resampler = resampler
        self.seed = seed
        self.epoch = 0
        # Once, here: a label that is wrong must not surface after an hour of training.
        self.targets = None if encoder is None else torch.from_numpy(encoder.encode_all(self.clips))

    def __len__(self) -> int:
        return len(self.clips)

    def set_epoch(self, epoch: int) -> None:
        """Choose other random windows; call it before each epoch, before workers start."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Item:
        clip = self.clips[index]
        samples = self._read(index, clip)
        length = (
            len(samples) if self.target_seconds is None else round(self.target_seconds * self.sample_rate)
        )
        wave = torch.zeros(length)
        heard = min(length, len(samples))
        wave[:heard] = torch.from_numpy(samples[:heard])
        item = Item(raw_wav=wave, padding_mask=torch.arange(length) >= heard, id=clip.id)
        if self.targets is not None:
            item["label"] = self.targets[index]
        if isinstance(text := clip.extra.get("text_label"), str):
            item["text_label"] = text
        return item

    def _read(self, index: int, clip: Clip) -> np.ndarray:
        start, end = clip.start_s, clip.end_s
        if self.target_seconds is not None:
            start, end = self._window(index, clip, self.target_seconds)
        if clip.piece is not None:
            return read_piece(clip, start, end, sample_rate=self.sample_rate, resampler=self.resampler)
        samples, _ = read(
            clip.path,
            start_s=start,
            end_s=end,
            channel=self.channel,
            sample_rate=self.sample_rate,
            resampler=self.resampler,
        )
        return samples

    def _window(self, index: int, clip: Clip, seconds: float) -> tuple[float, float | None]:
        """The part of a clip that is read, in seconds on the recording's grid of frames."""
        header = clip.piece or info(clip.path)
        rate = header.sample_rate
        # Counted in frames: both ends in seconds, each rounded for itself, may be a frame too near to each other.
        first = round(clip.start_s * rate)
        last = header.frames if clip.end_s is None else min(round(clip.end_s * rate), header.frames)
        width = math.ceil(seconds * rate - 1e-6)
        spare = last - first - width
        if spare <= 0:
            return clip.start_s, clip.end_s
        offset = {"start": 0, "center": spare // 2}.get(self.window_selection)
        if offset is None:
            offset = int(np.random.default_rng((self.seed, self.epoch, index)).integers(spare + 1))
        start = first + offset
        return start / rate, (start + width) / rate


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Put items into a batch; shorter waveforms are padded with zeros on the right.

    Returns:
        `raw_wav` (B, S) float32, `padding_mask` (B, S) bool with True where there is padding, `id` (B) list, and
        if the items have them `label` (B,) int64 or (B, C) float32 and `text_label` (B) list.

    Raises:
        ConfigError: There are no items.

    Example:
        >>> items = [Item(raw_wav=torch.ones(n), padding_mask=torch.zeros(n).bool(), id="a") for n in (2, 3)]
        >>> collate(items)["padding_mask"].tolist()
        [[False, False, True], [False, False, False]]
    """
    if not items:
        raise ConfigError("A batch needs at least one clip.")
    longest = max(len(item["raw_wav"]) for item in items)
    waves = torch.zeros(len(items), longest)
    mask = torch.ones(len(items), longest, dtype=torch.bool)
    for row, item in enumerate(items):
        length = len(item["raw_wav"])
        waves[row, :length] = item["raw_wav"]
        mask[row, :length] = item["padding_mask"]
    batch: dict[str, Any] = {"raw_wav": waves, "padding_mask": mask, "id": [item["id"] for item in items]}
    if all("label" in item for item in items):
        batch["label"] = torch.stack([item["label"] for item in items])
    if all("text_label" in item for item in items):
        batch["text_label"] = [item["text_label"] for item in items]
    return batch
