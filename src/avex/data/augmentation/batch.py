"""A list of augmentations, applied to batches on the device that they are on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avex.configs.augmentation import (
    Augmentation,
    FilterAugment,
    FrequencyMaskAugment,
    GainAugment,
    MixupAugment,
    NoiseAugment,
    ReverbAugment,
    TimeMaskAugment,
    TimeShiftAugment,
)
from avex.data.augmentation import waveform as w
from avex.data.augmentation.draws import clip_generator, log_uniform, uniform
from avex.data.augmentation.mixup import mix, soft_labels
from avex.data.augmentation.noise import NoiseBatch

_LOWEST_HZ = 50.0
_EDGE_SECONDS = 0.1  # room for what a filter smears over the end of a clip
Generators = Sequence[np.random.Generator]


class BatchAugmenter:
    """Apply augmentations in their order.

    Args:
        configs: The augmentations.
        sample_rate: Of the waveforms, Hz.
        seed: Of the run.
        classes: Number of classes, for soft labels; 0 if there are no labels.

    Example:
        >>> augment = BatchAugmenter([GainAugment(gain_db_range=(6, 6), augmentation_prob=1)], 16000, seed=0)
        >>> batch = {"raw_wav": torch.ones(1, 2), "index": [0], "epoch": [0]}
        >>> round(augment(batch)["raw_wav"][0, 0].item(), 3)
        1.995
    """

    def __init__(
        self, configs: Sequence[Augmentation], sample_rate: int, seed: int, classes: int = 0
    ) -> None:
        self.configs = tuple(configs)
        self.sample_rate = sample_rate
        self.seed = seed
        self.classes = classes

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Change a batch.

        Args:
            batch: `raw_wav` (B, S); `index` (B) numbers of the clips; `epoch` (B); where there are any
                `padding_mask` (B, S), `label` and `noise` (a `NoiseBatch` per noise augmentation, in order).

        Returns:
            A new batch without `noise`.
        """
        result = dict(batch)
        noises = iter(result.pop("noise", ()))
        for step, config in enumerate(self.configs):
            if isinstance(config, NoiseAugment):
                _add_noise(result, next(noises), self.classes)
            elif isinstance(config, MixupAugment):
                mix(result, config, self._generators(result, step)[0], self.classes)
            else:
                self._change_rows(result, config, step)
        return result

    def _change_rows(self, batch: dict[str, Any], config: Augmentation, step: int) -> None:
        generators = self._generators(batch, step)
        rows = [i for i, rng in enumerate(generators) if rng.random() < config.augmentation_prob]
        if not rows:
            return
        waves, heard = batch["raw_wav"][rows], _heard(batch)[rows]
        changed = _CHANGES[type(config)](
            waves, heard, config, [generators[i] for i in rows], self.sample_rate
        )
        # A new tensor: the caller's batch stays what it was.
        everything = batch["raw_wav"].clone()
        everything[rows] = (changed * heard).to(everything)
        batch["raw_wav"] = everything

    def _generators(self, batch: Mapping[str, Any], step: int) -> list[np.random.Generator]:
        places = zip(batch["epoch"], batch["index"], strict=True)
        return [clip_generator(self.seed, int(epoch), int(index), step) for epoch, index in places]


def _heard(batch: Mapping[str, Any]) -> Tensor:
    mask = batch.get("padding_mask")
    waves: Tensor = batch["raw_wav"]
    return torch.ones_like(waves, dtype=torch.bool) if mask is None else ~mask


def _add_noise(batch: dict[str, Any], noise: NoiseBatch, classes: int) -> None:
    waves, heard = batch["raw_wav"], _heard(batch)
    samples, alone = noise["samples"].to(waves), noise["alone"].to(waves.device)
    mixed = w.add_noise(waves, samples, noise["snr_db"], heard)
    batch["raw_wav"] = torch.where(alone.unsqueeze(1), samples * heard, mixed)
    if "label" in batch and bool(alone.any()):
        batch["label"] = soft_labels(batch["label"], classes) * ~alone.unsqueeze(1)


def _gain(waves: Tensor, heard: Tensor, config: GainAugment, rngs: Generators, rate: int) -> Tensor:
    return w.apply_gain(waves, torch.tensor([uniform(rng, *config.gain_db_range) for rng in rngs]))


def _shift(waves: Tensor, heard: Tensor, config: TimeShiftAugment, rngs: Generators, rate: int) -> Tensor:
    longest = waves.shape[1] / rate if config.max_seconds is None else config.max_seconds
    shifts = [round(uniform(rng, -longest, longest) * rate) for rng in rngs]
    return w.shift_in_time(waves, torch.tensor(shifts), heard)


def _time_mask(waves: Tensor, heard: Tensor, config: TimeMaskAugment, rngs: Generators, rate: int) -> Tensor:
    lengths = heard.sum(1).tolist()
    starts, ends = [], []
    for rng, length in zip(rngs, lengths, strict=True):
        sizes = [min(length, round(uniform(rng, 0, config.max_seconds) * rate)) for _ in range(config.masks)]
        begins = [int(rng.integers(length - size + 1)) for size in sizes]
        starts.append(begins)
        ends.append([begin + size for begin, size in zip(begins, sizes, strict=True)])
    return w.mask_time(waves, torch.tensor(starts), torch.tensor(ends))


def _frequency_mask(
    waves: Tensor, heard: Tensor, config: FrequencyMaskAugment, rngs: Generators, rate: int
) -> Tensor:
    bands = [[_band(rng, config.max_octaves, rate) for _ in range(config.masks)] for rng in rngs]
    limits = torch.tensor(bands, device=waves.device)
    size, frequencies = _spectrum(waves, rate)
    return w.multiply_spectrum(waves, w.band_gains(limits[..., 0], limits[..., 1], frequencies), size)


def _band(rng: np.random.Generator, octaves: float, rate: int) -> tuple[float, float]:
    low = log_uniform(rng, _LOWEST_HZ, rate / 2)
    return low, low * 2.0 ** uniform(rng, 0, octaves)


def _filter(waves: Tensor, heard: Tensor, config: FilterAugment, rngs: Generators, rate: int) -> Tensor:
    low_pass = [
        rng.random() < 0.5 if config.pass_type == "any" else config.pass_type == "lowpass" for rng in rngs
    ]
    cutoffs = torch.tensor([log_uniform(rng, *config.cutoff_hz_range) for rng in rngs], device=waves.device)
    size, frequencies = _spectrum(waves, rate)
    kinds = torch.tensor(low_pass, device=waves.device)
    return w.multiply_spectrum(waves, w.butterworth_gains(cutoffs, kinds, config.order, frequencies), size)


def _reverb(waves: Tensor, heard: Tensor, config: ReverbAugment, rngs: Generators, rate: int) -> Tensor:
    tails = []
    for rng in rngs:
        seconds = uniform(rng, *config.rt60_range)
        times = np.arange(1, max(2, round(seconds * rate)) + 1) / rate
        # 60 dB are a factor of 1000 in amplitude.
        tail = rng.standard_normal(len(times)) * 1000.0 ** (-times / seconds)
        tails.append(torch.from_numpy(np.concatenate([[0.0], tail]).astype(np.float32)))
    wet = torch.tensor([uniform(rng, *config.wet_range) for rng in rngs])
    return w.reverberate(waves, tails, wet, heard)


def _spectrum(waves: Tensor, rate: int) -> tuple[int, Tensor]:
    size = waves.shape[1] + round(_EDGE_SECONDS * rate)
    size += size % 2
    return size, torch.fft.rfftfreq(size, 1 / rate, device=waves.device)


_CHANGES: dict[type[Augmentation], Callable[..., Tensor]] = {
    GainAugment: _gain,
    TimeShiftAugment: _shift,
    TimeMaskAugment: _time_mask,
    FrequencyMaskAugment: _frequency_mask,
    FilterAugment: _filter,
    ReverbAugment: _reverb,
}
