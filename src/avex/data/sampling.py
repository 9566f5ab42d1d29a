"""Which clips an epoch takes, in what order, and which of them a process reads. NumPy only.

Everything follows from the seed and the epoch: a training that is resumed, or that runs on another number of
processes with the same total batch size, sees the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError

_BUCKET_BATCHES = 50
Indices = npt.NDArray[np.int64]


class Order(Protocol):
    """An order of clips for every epoch."""

    @property
    def count(self) -> int:
        """Number of clips there are."""
        ...

    @property
    def seed(self) -> int:
        """Of the run."""
        ...

    @property
    def clips_per_epoch(self) -> int | None:
        """Clips of an epoch; None for `count`."""
        ...

    def __call__(self, epoch: int) -> Indices:
        """Numbers of the clips, in order."""
        ...


@dataclass(frozen=True, eq=False)
class EpochOrder:
    """The order of clips in each epoch.

    Attributes:
        count: Number of clips.
        seed: Of the run.
        weights: (N,) how likely each clip is, for drawing with repetition; None takes each clip once.
        clips_per_epoch: Clips of an epoch; None for `count`.
        shuffle: Whether the order is random; else it is that of the dataset.

    Raises:
        ConfigError: There are no clips, or weights that do not fit.

    Example:
        >>> sorted(EpochOrder(4, seed=0)(epoch=2).tolist())
        [0, 1, 2, 3]
    """

    count: int
    seed: int = 0
    weights: npt.NDArray[np.float64] | None = None
    clips_per_epoch: int | None = None
    shuffle: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError("There are no clips to take. Check the dataset's split and transformations.")
        if self.weights is not None and (len(self.weights) != self.count or not np.sum(self.weights) > 0):
            raise ConfigError(f"{len(self.weights)} weights do not fit {self.count} clips.")

    def __call__(self, epoch: int) -> Indices:
        """Numbers of the clips, in order."""
        wanted = self.clips_per_epoch or self.count
        rng = np.random.default_rng((self.seed, epoch))
        if self.weights is not None:
            share = self.weights / self.weights.sum()
            return rng.choice(self.count, wanted, p=share).astype(np.int64)
        rounds = -(-wanted // self.count)
        orders = [
            rng.permutation(self.count) if self.shuffle else np.arange(self.count) for _ in range(rounds)
        ]
        return np.concatenate(orders)[:wanted].astype(np.int64)


@dataclass(frozen=True, eq=False)
class ShardOrder:
    """An order of clips that opens few archives at a time.

    Archives come in random order; clips are mixed within groups of `window` archives.

    Attributes:
        archives: (N) archive of each clip.
        seed: Of the run.
        window: Archives that are mixed.
        clips_per_epoch: Clips of an epoch, at most N; None for N.

    Raises:
        ConfigError: There are no clips.

    Example:
        >>> ShardOrder(["a", "b", "a", "b"], window=1)(epoch=0).tolist()
        [1, 3, 2, 0]
    """

    archives: Sequence[str]
    seed: int = 0
    window: int = 4
    clips_per_epoch: int | None = None

    def __post_init__(self) -> None:
        if not self.archives:
            raise ConfigError("There are no clips to take. Check the dataset's split and transformations.")

    @property
    def count(self) -> int:
        """Number of clips."""
        return len(self.archives)

    def __call__(self, epoch: int) -> Indices:
        """Numbers of the clips, in order."""
        rng = np.random.default_rng((self.seed, epoch, 2))
        names, numbers = np.unique(np.asarray(self.archives), return_inverse=True)
        place = np.empty(len(names), np.int64)
        place[rng.permutation(len(names))] = np.arange(len(names)) // self.window
        group = place[numbers]
        mixed = rng.permutation(self.count)
        order = mixed[np.argsort(group[mixed], kind="stable")]
        return order[: self.clips_per_epoch].astype(np.int64)


@dataclass(eq=False)
class EpochBatches:
    """Batches of an epoch for one process: `(epoch, clip, repetition)` keys, for a torch `DataLoader`.

    The repetition counts how often the clip was taken in this epoch before.

    The batches of all processes together are consecutive parts of the order. The last one is filled up from the
    beginning of the order, so that every batch is full and every process has as many.

    Attributes:
        order: The order of clips.
        batch_size: Clips of a batch and process.
        rank: Number of this process.
        world_size: Number of processes.
        lengths: (N,) lengths of the clips: batches are then of clips of similar length, in random order.
        epoch: The current epoch.
        start: Batches to leave out at the beginning of the current epoch.

    Example:
        >>> order = EpochOrder(5, shuffle=False)
        >>> [list(keys) for keys in EpochBatches(order, batch_size=2, rank=1, world_size=2)]
        [[(0, 2, 0), (0, 3, 0)], [(0, 1, 1), (0, 2, 1)]]
    """

    order: Order
    batch_size: int
    rank: int = 0
    world_size: int = 1
    lengths: npt.NDArray[np.float64] | None = None
    epoch: int = 0
    start: int = 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        wanted = self.order.clips_per_epoch or self.order.count
        return -(-wanted // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        batches = self.all_batches(self.epoch)
        repetitions = count_repetitions(batches.ravel()).reshape(batches.shape)
        own = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        for clips, counts in zip(batches[self.start :, own], repetitions[self.start :, own], strict=True):
            yield [(self.epoch, int(i), int(n)) for i, n in zip(clips, counts, strict=True)]

    @property
    def sampler(self) -> EpochBatches:
        """Itself: where Lightning looks for what to tell the epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.epoch = epoch

    def all_batches(self, epoch: int) -> Indices:
        """(batches, batch_size * world_size) clips of all processes."""
        order = self.order(epoch)
        size = self.batch_size * self.world_size
        missing = len(self) * size - len(order)
        order = np.concatenate([order, np.resize(order, missing)])
        if self.lengths is not None:
            return self._bucketed(order, size, epoch)
        return order.reshape(-1, size)

    def _bucketed(self, order: Indices, size: int, epoch: int) -> Indices:
        assert self.lengths is not None
        span = size * _BUCKET_BATCHES
        pools = [order[i : i + span] for i in range(0, len(order), span)]
        by_length = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        rng = np.random.default_rng((self.order.seed, epoch, 1))
        return rng.permutation(by_length.reshape(-1, size), axis=0)


def count_repetitions(values: Indices) -> Indices:
    """(N,) how often each value has come before.

    Example:
        >>> count_repetitions(np.array([7, 3, 7, 7])).tolist()
        [0, 0, 1, 2]
    """
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    first = np.searchsorted(ranked, ranked, side="left")
    counts = np.empty(len(values), np.int64)
    counts[order] = np.arange(len(values)) - first
    return counts


def balanced_weights(labels: Sequence[Sequence[Any]]) -> npt.NDArray[np.float64]:
    """How likely each clip must be for every class to be as likely as any other.

    A clip of several classes has the weight of its rarest one; clips without any count as one more class.

    Args:
        labels: (N) labels of each clip.

    Example:
        >>> balanced_weights([["frog"], ["frog"], ["newt"]]).tolist()
        [0.5, 0.5, 1.0]
    """
    counts: dict[Any, int] = {}
    for names in labels:
        for name in names or (None,):
            counts[name] = counts.get(name, 0) + 1
    return np.array([1.0 / min(counts[name] for name in names or (None,)) for names in labels])


def share_of(count: int, rank: int, world_size: int) -> Indices:
    """Clips that a process evaluates: every `world_size`-th.

    All processes get as many; for that, the first clips come again at the end if need be.

    Example:
        >>> share_of(3, 1, 2).tolist()
        [1, 0]
    """
    total = -(-count // world_size) * world_size
    return (np.arange(rank, total, world_size) % count).astype(np.int64)
