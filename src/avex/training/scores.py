"""Logits and labels of a validation, kept on disk: a table of clips by classes may be larger than memory."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from avex.training.reduction import gather_objects

Labels = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float64]
_BLOCK_VALUES = 4_000_000


class ScoreTable:
    """Labels and logits that are added batch by batch, and read class by class.

    Rows are in temporary files (in `TMPDIR`) that go with the table, three numbers of each clip in memory. What is
    read are the rows of all processes together; every process has to read in step with the others.

    Args:
        block_values: About as many values as a process reads at a time.

    Example:
        >>> table = ScoreTable()
        >>> table.add(np.array([[2.0, 1.0]]), np.array([1]))
        >>> [part.tolist() for part in table.choices()]
        [[1], [0]]
    """

    def __init__(self, block_values: int = _BLOCK_VALUES) -> None:
        self.block_values = block_values
        self._rows, self._classes, self._single = 0, 0, True
        files = ExitStack()
        self._labels, self._logits = (files.enter_context(tempfile.TemporaryFile()) for _ in range(2))  # noqa: SIM115
        weakref.finalize(self, files.close)
        self._truth: list[Numbers] = []
        self._best: list[Numbers] = []
        self._normaliser: list[Logits] = []

    def add(self, logits: npt.NDArray[np.floating], targets: npt.NDArray[Any]) -> None:
        """Add a batch.

        Args:
            logits: (B, C).
            targets: (B,) class numbers, or (B, C) where more than 0.5 is a label.
        """
        rows = np.ascontiguousarray(logits, np.float32)
        self._rows, self._classes = self._rows + len(rows), rows.shape[1]
        positive = targets[:, None] == np.arange(self._classes) if targets.ndim == 1 else targets > 0.5
        self._labels.write(np.ascontiguousarray(positive, np.bool_).tobytes())
        self._logits.write(rows.tobytes())
        self._single &= bool((positive.sum(1) == 1).all())
        self._truth.append(positive.argmax(1))
        self._best.append(rows.argmax(1))
        self._normaliser.append(np.logaddexp.reduce(rows.astype(np.float64), axis=1))

    @property
    def sizes(self) -> tuple[int, int, bool]:
        """Clips, classes, and whether each clip has exactly one label."""
        rows, classes, single = zip(*gather_objects((self._rows, self._classes, self._single)), strict=True)
        return sum(rows), max(classes), all(single)

    def choices(self) -> tuple[Numbers, Numbers]:
        """(N,) the label and (N,) the highest logit of each clip, where each has one label."""
        parts = gather_objects((_joined(self._truth, np.int64), _joined(self._best, np.int64)))
        truth, best = (np.concatenate(column) for column in zip(*parts, strict=True))
        return truth, best

    def columns(self) -> Iterator[tuple[Labels, Logits]]:
        """(N, K) labels and logits of some classes at a time, in order.

        Where each clip has one label, logits are those of softmax: minus the logarithm of their sum.
        """
        rows, classes, single = self.sizes
        width = max(1, self.block_values // max(1, rows))
        for first in range(0, classes, width):
            parts = gather_objects(self._block(slice(first, min(first + width, classes)), single))
            labels, logits = (np.concatenate(column) for column in zip(*parts, strict=True))
            yield labels, logits

    def _block(self, chosen: slice, single: bool) -> tuple[Labels, Logits]:
        if not self._rows:  # a process without clips of its own
            width = chosen.stop - chosen.start
            return np.empty((0, width), np.bool_), np.empty((0, width))
        labels = np.array(self._mapped(self._labels, np.bool_)[:, chosen])
        logits = self._mapped(self._logits, np.float32)[:, chosen].astype(np.float64)
        return labels, logits - _joined(self._normaliser, np.float64)[:, None] if single else logits

    def _mapped(self, file: IO[bytes], dtype: type[np.generic]) -> npt.NDArray[Any]:
        file.flush()
        return np.memmap(file, dtype, mode="r", shape=(self._rows, self._classes))


def _joined(parts: list[npt.NDArray[Any]], dtype: type[np.generic]) -> npt.NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
