"""BirdNET v2.4 through LiteRT, one single-thread session per core; torch is not imported."""

from __future__ import annotations

import os
from importlib.metadata import version

import numpy as np

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOutput
from avex.io import sha256_of
from avex.models.birdnet.graph import (
    EMBEDDING_DIM,
    NUM_CLASSES,
    SAMPLE_RATE,
    WINDOW_SECONDS,
    BirdNetGraph,
    BirdNetSession,
)
from avex.weights.labels import LabelMap
from avex.weights.source import WeightSource

# What the network's two spectrograms cover.
BAND_HZ = (0.0, 15_000.0)


def available_cpus() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


class BirdNetEngine:
    """BirdNET on the CPU.

    Args:
        card: The card with the file's path and checksum.
        workers: Parallel sessions; None takes one per processor.
        batch_size: Windows handed to a session at once.
        precision: Only `float32`: the file holds no other arithmetic.
        device: Only the CPU.

    Raises:
        ConfigError: Another precision, device or layer than the graph offers.
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
        device: str | None = None,
        layers: tuple[str, ...] = ("last_layer",),
        aggregation: str = "mean",
    ) -> None:
        if precision != "float32":
            raise ConfigError(f"BirdNET through LiteRT computes in float32 only, not {precision}.")
        if device not in (None, "cpu"):
            raise ConfigError(f"BirdNET through LiteRT runs on the CPU only, not on '{device}'.")
        if layers != ("last_layer",):
            raise ConfigError(f"BirdNET through LiteRT gives its embedding only, not layers {layers}.")
        if card.checkpoint_path is None:
            raise ConfigError("The card of BirdNET must state checkpoint_path.")
        source = WeightSource(card.checkpoint_path, card.checkpoint_format, card.sha256)
        path = source.fetch()
        self._graph = BirdNetGraph(path)
        self.sessions = workers or available_cpus()
        self.batch_size = batch_size or 4
        self.labels = LabelMap.load(card.class_mapping_path) if card.class_mapping_path else None
        if self.labels is not None and self.labels.num_classes != NUM_CLASSES:
            raise ConfigError(
                f"The labels of '{card.name}' name {self.labels.num_classes} classes, not {NUM_CLASSES}. "
                "Correct class_mapping_path in the card."
            )
        plural = "session" if self.sessions == 1 else "sessions"
        self.info = EngineInfo(
            card=card.name,
            sample_rate=SAMPLE_RATE,
            window_seconds=WINDOW_SECONDS,
            fixed_window=True,
            embedding_dim=EMBEDDING_DIM,
            weights_sha256=card.sha256 or sha256_of(path),
            resampler=card.resampler,
            runtime=f"LiteRT {version('ai-edge-litert')} on CPU, {self.sessions} {plural} of 1 thread",
            aggregation=aggregation,
            band_hz=BAND_HZ,
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )

    def session(self) -> _Session:
        """Make a session; about 80 MB of memory each."""
        return _Session(self._graph.session())


class _Session:
    def __init__(self, session: BirdNetSession) -> None:
        self._session = session

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`; BirdNET hears padding as silence."""
        return EngineOutput(*self._session.run(windows))
