"""An encoder with a probe on top as one engine, so that recordings go through the pipeline of `avex.predict`."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import ConfigError, WeightsError
from avex.embedding.embed import WindowOptions
from avex.embedding.engines import Engine, EngineInfo, EngineOutput, EngineSession, load_engine
from avex.models.probes import Probe, load_probe
from avex.training.probes.loop import predict_logits
from avex.weights import LabelMap, state_fingerprint


class ProbeEngine:
    """An engine whose logits are those of a probe.

    Args:
        engine: Runs the encoder.
        probe: A probe on embeddings, with labels.
        name: What the two are called in tables.
        allow_other_weights: Take an encoder with other weights than the probe was trained on.

    Attributes:
        base_card: Name of the encoder's card.
        trained: What is known of the training: `window_s`, `resampler`, metrics.

    Raises:
        ConfigError: The probe has no labels, reads sequences, or reads something else than the engine gives.
        WeightsError: The probe was trained on other weights.

    Example:
        >>> probe = load_probe("frogs.safetensors")                             # doctest: +SKIP
        >>> engine = ProbeEngine(load_engine("birdnet"), probe, "frogs")
        >>> avex.predict("pond.wav", engine).detections()
    """

    def __init__(self, engine: Engine, probe: Probe, name: str, *, allow_other_weights: bool = False) -> None:
        if probe.labels is None:
            raise ConfigError(
                f"Probe '{name}' has no labels. Save it again with save_probe(..., labels=[...])."
            )
        check_probe(probe, engine.info, name, allow_other_weights=allow_other_weights)
        self._engine, self._probe = engine, probe
        self.base_card = engine.info.card
        self.trained = probe.info.metadata
        self.labels: LabelMap | None = LabelMap.from_labels(probe.labels)
        self.sessions, self.batch_size = engine.sessions, engine.batch_size
        both = f"{engine.info.weights_sha256} {state_fingerprint(probe)}"
        activation: Any = probe.info.metadata.get("activation", "softmax")
        self.info: EngineInfo = replace(
            engine.info,
            card=name,
            weights_sha256=hashlib.sha256(both.encode()).hexdigest(),
            activation=activation,
        )

    def session(self) -> EngineSession:
        """See `Engine.session`."""
        return _ProbeSession(self._engine.session(), self._probe)


class _ProbeSession:
    """A session of the encoder, and the probe on what it gives."""

    def __init__(self, session: EngineSession, probe: Probe) -> None:
        self._session, self._probe = session, probe

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`."""
        embedding = self._session.run(windows, valid).embedding
        return EngineOutput(embedding, predict_logits(self._probe, embedding))


def check_probe(probe: Probe, info: EngineInfo, name: str, *, allow_other_weights: bool = False) -> None:
    """Check that a probe reads what an engine gives for one window.

    Raises:
        ConfigError: Sequences, other layers, another pooling or another width.
        WeightsError: Other weights.
    """
    if probe.kind == "sequence":
        raise ConfigError(
            f"Probe '{name}' ({probe.probe_type}) reads sequences of windows, but detections are made "
            "window by window. Train a linear or mlp probe, or use `avex probe eval`."
        )
    stated = probe.info.metadata
    layers = list(stated.get("layers") or probe.layers)
    pooling = stated.get("pooling", info.aggregation)
    if layers != list(info.layers) or pooling != info.aggregation:
        raise ConfigError(
            f"Probe '{name}' reads {', '.join(layers)} pooled by '{pooling}', but the engine of "
            f"'{info.card}' gives {', '.join(info.layers)} pooled by '{info.aggregation}'. Load the engine "
            "with the layers of the probe."
        )
    if probe.inputs.dim != info.embedding_dim:
        raise ConfigError(
            f"Probe '{name}' reads embeddings of {probe.inputs.dim} numbers, but '{info.card}' gives "
            f"{info.embedding_dim}. Use the model that it was trained on: '{probe.info.card}'."
        )
    if probe.info.weights != info.weights_sha256 and not allow_other_weights:
        raise WeightsError(
            f"Probe '{name}' was trained on weights {probe.info.weights}, but '{info.card}' has "
            f"{info.weights_sha256}: its scores would mean nothing. Use the model that it was trained on, "
            f"'{probe.info.card}', or allow other weights if you know that they are the same."
        )


def load_probe_engine(
    path: str | Path, model: Any = None, *, allow_other_weights: bool = False, **options: Any
) -> ProbeEngine:
    """Load a saved probe and the model that it was trained on.

    Args:
        path: What `ProbeFit.save` wrote; its name without ending is what tables call it.
        model: Another name, card or file of the model; None takes the card that the probe names.
        allow_other_weights: Take a model with other weights.
        **options: Of `load_engine`: `device`, `workers`, `batch_size`, `precision`, `backend`.

    Raises:
        ConfigError: The probe names no model, or does not fit it.
        WeightsError: Not a probe, or a model with other weights.
    """
    probe, name = load_probe(path), Path(path).stem
    chosen = model or probe.info.card
    if chosen is None:
        raise ConfigError(
            f"Probe '{path}' does not say which model it belongs to. Name it, e.g. --model birdnet."
        )
    stated = probe.info.metadata
    layers = tuple(stated.get("layers") or probe.layers)
    pooling = str(stated.get("pooling", "mean"))
    engine = load_engine(chosen, layers=layers, aggregation=pooling, classify=False, **options)
    return ProbeEngine(engine, probe, name, allow_other_weights=allow_other_weights)


def trained_windows(engine: ProbeEngine, windows: WindowOptions | None = None) -> WindowOptions:
    """Options of windowing with the window and the resampler of the training, where nothing else is said.

    Example:
        >>> trained_windows(load_probe_engine("frogs.safetensors")).window      # doctest: +SKIP
        3.0
    """
    asked = windows or WindowOptions()
    return replace(
        asked,
        window=asked.window if asked.window is not None else engine.trained.get("window_s"),
        resampler=asked.resampler or engine.trained.get("resampler"),
    )
