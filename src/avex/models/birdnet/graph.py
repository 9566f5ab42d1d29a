"""The BirdNET v2.4 network as a graph that gives embeddings and logits in one pass; no torch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import WeightsError
from avex.models.runtime.litert import LiteRTGraph, LiteRTSession

SAMPLE_RATE = 48_000
WINDOW_SECONDS = 3.0
WINDOW_SAMPLES = 144_000
EMBEDDING_DIM = 1024
NUM_CLASSES = 6522

# Two windows per call: larger batches are not faster on CPU, but take 50 MB of memory per window and session.
BATCH_SIZE = 2


class BirdNetGraph:
    """The network, from which any number of single-thread sessions can be made.

    Args:
        path: `BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite`.

    Raises:
        WeightsError: Another network than BirdNET v2.4.
        MissingExtraError: LiteRT is not installed.

    Example:
        >>> graph = BirdNetGraph(path)                                        # doctest: +SKIP
        >>> embedding, logits = graph.session().run(np.zeros((1, 144000), np.float32))
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._graph = LiteRTGraph(path, extra="birdnet")
        logits = self._graph.outputs[-1]
        # The classifier is the last operator; what it reads first is the embedding.
        embedding = self._graph.producer_inputs(logits)[0]
        self._graph.set_outputs([embedding, logits])

    def session(self, num_threads: int = 1) -> BirdNetSession:
        """Make a session; each thread needs its own."""
        return BirdNetSession(self._graph.session(BATCH_SIZE, num_threads))


class BirdNetSession:
    """One interpreter of BirdNET."""

    def __init__(self, session: LiteRTSession) -> None:
        self._session = session

    def run(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and logits of windows.

        Args:
            windows: (N, 144000) float32 waveform at 48 kHz.

        Returns:
            Embeddings (N, 1024) and logits (N, 6522), float32.
        """
        embedding, logits = self._session.run(windows)
        if embedding.shape[1:] != (EMBEDDING_DIM,):
            raise WeightsError(
                f"This is not BirdNET v2.4: its embedding is {embedding.shape[1:]}, not ({EMBEDDING_DIM},)."
            )
        return embedding, logits


class BirdNetGraphRunner:
    """The network for use from any thread: each has its own interpreter. Copies and pickles read the file again.

    Args:
        path: As in `BirdNetGraph`.
    """

    def __init__(self, path: str | Path) -> None:
        self._graph = BirdNetGraph(path)
        self._sessions = threading.local()

    def run(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `BirdNetSession.run`."""
        if not hasattr(self._sessions, "own"):
            self._sessions.own = self._graph.session()
        return self._sessions.own.run(windows)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._graph.path,)
