"""Reading batches for training: keys of clips in, batches out, and a place in the epoch that can be stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from torch.utils.data import DataLoader, Dataset

from avex._core.errors import ConfigError
from avex.data.augmentation.draws import clip_generator
from avex.data.augmentation.noise import NoisePool, stack_noise
from avex.data.dataset import ClipDataset, collate
from avex.data.sampling import EpochBatches

Key: TypeAlias = tuple[int, int, int]
_REPETITIONS = 1 << 32  # apart from epochs
_TEXT_STEP = 997  # apart from the places of augmentations


class TrainingDataset(Dataset[dict[str, Any]]):
    """Clips by `(epoch, number, repetition)`, with noise and a text where these are wanted.

    The epoch comes with the key, because workers live on from one epoch to the next. A clip that comes several
    times in an epoch is cut and changed in another way each time.

    Args:
        clips: The clips.
        noise: Noise to read along, for `BatchAugmenter`.
        with_text: Give each clip a `text`, one of its texts at random if it has several.

    Raises:
        ConfigError: A clip has no text although it should.
    """

    def __init__(
        self, clips: ClipDataset, noise: Sequence[NoisePool] = (), *, with_text: bool = False
    ) -> None:
        self.clips = clips
        self.noise = tuple(noise)
        self.with_text = with_text
        if with_text:
            for clip in clips.clips:
                if not texts_of(clip.extra.get("text_label")):
                    raise ConfigError(
                        f"Clip '{clip.id}' has no text. Add a column 'text_label', or the transformation "
                        "text_label_from_features."
                    )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index, repetition = key
        epoch += _REPETITIONS * repetition
        self.clips.set_epoch(epoch)
        item: dict[str, Any] = {**self.clips[index], "index": index, "epoch": epoch}
        item.pop("text_label", None)
        if self.with_text:
            texts = texts_of(self.clips.clips[index].extra.get("text_label"))
            rng = clip_generator(self.clips.seed, epoch, index, _TEXT_STEP)
            item["text"] = texts[int(rng.integers(len(texts)))]
        if self.noise:
            length = len(item["raw_wav"])
            item["noise"] = [pool.draw(epoch, index, length) for pool in self.noise]
        return item


def texts_of(value: Any) -> list[str]:
    """The texts of a clip: one, several, or none."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    return [str(text) for text in value] if isinstance(value, (list, tuple)) else []


def collate_training(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put items of a `TrainingDataset` into a batch.

    Returns:
        As `avex.data.dataset.collate`, and `index` and `epoch` (B) lists, and where there are any `text` (B) list
        and `noise`, a `NoiseBatch` per noise augmentation.
    """
    batch = collate(items)  # type: ignore[arg-type]
    batch["index"] = [item["index"] for item in items]
    batch["epoch"] = [item["epoch"] for item in items]
    if "text" in items[0]:
        batch["text"] = [item["text"] for item in items]
    if "noise" in items[0]:
        length = batch["raw_wav"].shape[1]
        draws = zip(*(item["noise"] for item in items), strict=True)
        batch["noise"] = [stack_noise(one, length) for one in draws]
    return batch


class ResumableLoader(DataLoader[dict[str, Any]]):
    """Batches of an epoch, from the place where a stopped training left off.

    Lightning stores `state_dict` in its checkpoints and gives it back.

    Args:
        dataset: What the keys of `batches` mean.
        batches: Keys of each batch.
        workers: Processes that read; 0 reads in this one.
        pin_memory: Whether batches go to a GPU.
    """

    def __init__(
        self, dataset: TrainingDataset, batches: EpochBatches, *, workers: int = 0, pin_memory: bool = False
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            collate_fn=collate_training,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            # A forked process would inherit locks of threads that it does not have.
            multiprocessing_context="spawn" if workers else None,
        )
        self.batches = batches
        self._given = 0
        self._next = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        # A generator: nothing is read before the first batch is wanted, when the epoch is known.
        self.batches.start, self._given = self._next, self._next
        self._next = 0
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.batches)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch were given out."""
        return {"batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next pass after so many batches; a finished epoch begins anew."""
        self._next = state["batches"] % max(1, len(self.batches))
