"""BirdNET v2.4 through LiteRT, one single-thread session per core; torch is not imported."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from avex._core.errors import ConfigError
from avex._core.processors import available_cpus
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOptions, EngineOutput
from avex.io import sha256_of
from avex.models.birdnet.graph import (
    EMBEDDING_DIM,
    NUM_CLASSES,
    SAMPLE_RATE,
    WINDOW_SECONDS,
    BirdNetGraph,
    BirdNetSession,
)
from avex.models.precision import canonical_precision
from avex.weights.labels import LabelMap
from avex.weights.source import WeightSource

# What the network's two spectrograms cover.
BAND_HZ = (0.0, 15_000.0)


class BirdNetEngine:
    """BirdNET's published graph on the CPU.

    Args:
        card: The card with the file's path and checksum.
        options: Float32, the CPU and the model's own embedding only; nothing is compiled.

    Raises:
        ConfigError: Another precision, device or layer than the graph offers.
    """

    def __init__(self, card: ModelCard, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        _check(options)
        if card.checkpoint_path is None:
            raise ConfigError("The card of BirdNET must state checkpoint_path.")
        source = WeightSource(card.checkpoint_path, card.checkpoint_format, card.sha256)
        path = source.fetch()
        self._graph = BirdNetGraph(path)
        self._classify = options.classify
        self.sessions = options.workers or available_cpus()
        self.batch_size = options.batch_size or 4
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
            aggregation=options.aggregation,
            band_hz=BAND_HZ,
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )

    def session(self) -> _Session:
        """Make a session; about 80 MB of memory each."""
        return _Session(self._graph.session(), self._classify)


class _Session:
    def __init__(self, session: BirdNetSession, classify: bool) -> None:
        self._session = session
        self._classify = classify

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`; BirdNET hears padding as silence."""
        embedding, logits = self._session.run(windows)
        return EngineOutput(embedding, logits if self._classify else None)


def _check(options: EngineOptions) -> None:
    native = "Use backend='native'."
    if canonical_precision(options.precision) not in ("fp32", "auto"):
        raise ConfigError(f"BirdNET through LiteRT computes in fp32 only, not {options.precision}. {native}")
    if options.device not in (None, "cpu"):
        raise ConfigError(f"BirdNET through LiteRT runs on the CPU only, not on '{options.device}'. {native}")
    if not options.own_output:
        raise ConfigError(
            f"BirdNET through LiteRT gives its embedding only, not layers {list(options.layers)}. {native}"
        )
    if options.compile:
        raise ConfigError(f"BirdNET through LiteRT is a graph already and cannot be compiled. {native}")
