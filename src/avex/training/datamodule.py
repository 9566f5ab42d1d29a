"""The loaders of a training run, as Lightning wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader

from avex.audio import info
from avex.configs.augmentation import NoiseAugment
from avex.configs.training import RunConfig
from avex.data.augmentation import NoisePool
from avex.data.clips import Clip
from avex.data.dataset import ClipDataset
from avex.data.sampling import EpochBatches, EpochOrder, Order, ShardOrder, balanced_weights, share_of
from avex.models.base_model import ModelBase
from avex.training.data import TrainingData
from avex.training.loader import ResumableLoader, TrainingDataset, collate_training


class TrainingDataModule(pl.LightningDataModule):
    """Loaders for training and validation.

    Args:
        config: The run.
        data: Its clips.
        model: Says at what rate and length it wants them.
    """

    def __init__(self, config: RunConfig, data: TrainingData, model: ModelBase) -> None:
        super().__init__()
        self.config = config
        self.data = data
        self.sample_rate = model.sample_rate
        self.seconds = model.window_seconds
        audio = model.audio_config
        self.window_selection = "random" if audio is None else audio.window_selection
        noises = [(i, item) for i, item in enumerate(config.augmentations) if isinstance(item, NoiseAugment)]
        self.noise = [NoisePool(item, self.sample_rate, config.seed, i) for i, item in noises]

    def train_dataloader(self) -> ResumableLoader:
        """Batches of training clips, in random order."""
        config, sampling, clips = self.config, self.config.sampling, self.data.train
        rank, world = self._place()
        batches = EpochBatches(
            self._order(),
            config.training_params.batch_size,
            rank,
            world,
            lengths=lengths_of(clips) if sampling.bucket_by_length else None,
        )
        dataset = self._dataset(clips, self.window_selection)
        return ResumableLoader(
            TrainingDataset(dataset, self.noise, with_text=self._with_text),
            batches,
            workers=config.num_workers,
            pin_memory=self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of this process's share of the validation clips, in order; the middle of longer ones."""
        return self.evaluation_loader(self.data.validation)

    def evaluation_loader(
        self, clips: tuple[Clip, ...], max_clips: int | None = None
    ) -> DataLoader[dict[str, Any]]:
        """Batches of this process's share of some clips, in order, without augmentation.

        Args:
            clips: The clips; `index` of a batch counts in them.
            max_clips: At most so many, spread evenly.
        """
        chosen = np.arange(len(clips))
        if max_clips is not None and max_clips < len(clips):
            chosen = np.linspace(0, len(clips) - 1, max_clips).round().astype(np.int64)
        rank, world = self._place()
        mine = [(0, int(chosen[i]), 0) for i in share_of(len(chosen), rank, world)]
        size = self.config.training_params.batch_size
        workers = self.config.num_workers
        return DataLoader(
            TrainingDataset(self._dataset(clips, "center"), with_text=self._with_text),
            batch_sampler=[mine[i : i + size] for i in range(0, len(mine), size)],
            collate_fn=collate_training,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="spawn" if workers else None,
        )

    def _order(self) -> Order:
        seed, sampling, clips = self.config.seed, self.config.sampling, self.data.train
        if sampling.balanced:
            weights = balanced_weights([clip.labels for clip in clips])
            return EpochOrder(len(clips), seed, weights, sampling.clips_per_epoch)
        if any(clip.piece for clip in clips):
            archives = [clip.piece.archive if clip.piece else clip.path.as_posix() for clip in clips]
            return ShardOrder(archives, seed, sampling.mixed_shards, sampling.clips_per_epoch)
        return EpochOrder(len(clips), seed, clips_per_epoch=sampling.clips_per_epoch)

    @property
    def _with_text(self) -> bool:
        return self.config.label_type == "text"

    def _place(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _dataset(self, clips: tuple[Clip, ...], window_selection: str) -> ClipDataset:
        return ClipDataset(
            clips,
            self.sample_rate,
            self.data.encoder,
            target_seconds=self.seconds,
            window_selection=window_selection,  # type: ignore[arg-type]
            seed=self.config.seed,
        )


def lengths_of(clips: Sequence[Clip]) -> npt.NDArray[np.float64]:
    """(N,) lengths of clips in seconds; headers are read of those that go on to the end of their recording."""
    known = [clip.duration_s for clip in clips]
    return np.array(
        [
            info(clip.path).duration_s - clip.start_s if length is None else length
            for clip, length in zip(clips, known, strict=True)
        ]
    )
