"""The contract between the pipeline and whatever computes: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from avex.audio import Method
    from avex.weights.labels import LabelMap


@dataclass(frozen=True)
class EngineOptions:
    """How a model is to be run; every engine takes all of them, or says what it does not have.

    Attributes:
        device: `cpu`, `cuda`, ...; None takes the card's.
        workers: Parallel sessions, for engines that have several; None takes one per processor.
        batch_size: Windows per call; None takes what suits the engine.
        precision: `fp32`, `bf16`, `fp16` or `auto` (`avex.models.precision`).
        layers: Layers that make up the embedding.
        aggregation: How their values are pooled.
        backend: What computes, for families with a choice; None takes the first of them.
        compile: Compile the network with `torch.compile`.
        classify: Give logits as well, if the model has a classifier.

    Example:
        >>> EngineOptions(precision="bf16").own_output
        True
    """

    device: str | None = None
    workers: int | None = None
    batch_size: int | None = None
    precision: str = "fp32"
    layers: tuple[str | int, ...] = ("last_layer",)
    aggregation: str = "mean"
    backend: str | None = None
    compile: bool = False
    classify: bool = True

    @property
    def own_output(self) -> bool:
        """Whether the embedding is what the model itself puts out."""
        return list(self.layers) in (["last_layer"], ["backbone"])

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers as text, for headers."""
        return tuple(str(layer) for layer in self.layers)


@dataclass(frozen=True)
class EngineInfo:
    """What must be known of a model to feed it and to describe its output.

    Attributes:
        card: Name of the model card.
        sample_rate: Rate of the audio, in Hz.
        window_seconds: The model's own window, or None if it takes any length.
        fixed_window: Only that window length is possible.
        embedding_dim: Length of an embedding.
        weights_sha256: Checksum of the weights; part of what makes two runs comparable.
        resampler: The resampler that belongs to the model.
        runtime: What computes, for people ("LiteRT 2.3.0 on CPU, 2 sessions").
        precision: Arithmetic of the network: `float32`, `bfloat16` or `float16`.
        layers: Layers that make up the embedding.
        aggregation: How they were pooled.
        layer_dims: Numbers that each of several layers contributes; empty for one layer.
        activation: What turns logits into scores.
        band_hz: Frequencies the model hears, for selection tables.
        license: Licence of the weights.
        license_note: What users must know about it.
    """

    card: str
    sample_rate: int
    window_seconds: float | None
    fixed_window: bool
    embedding_dim: int
    weights_sha256: str | None
    resampler: Method
    runtime: str
    precision: str = "float32"
    layers: tuple[str, ...] = ("last_layer",)
    aggregation: str = "mean"
    layer_dims: tuple[int, ...] = ()
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    band_hz: tuple[float, float] | None = None
    license: str | None = None
    license_note: str | None = None


@dataclass(frozen=True)
class EngineOutput:
    """Results for a batch: embeddings (N, D) and, if asked for and had, logits (N, C); float32."""

    embedding: np.ndarray
    logits: np.ndarray | None = None


class EngineSession(Protocol):
    """One worker's handle on the model; used by one thread at a time."""

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """Compute a batch.

        Args:
            windows: (N, S) float32 waveforms at the model's rate, zero-padded at the end.
            valid: (N,) number of samples that are audio and not padding.
        """
        ...


class Engine(Protocol):
    """A model ready to run.

    Attributes:
        info: Facts about it.
        labels: Labels of its classifier, or None.
        sessions: How many sessions to run in parallel.
        batch_size: Windows per call that suit it.
    """

    info: EngineInfo
    labels: LabelMap | None
    sessions: int
    batch_size: int

    def session(self) -> EngineSession:
        """Make a session."""
        ...
