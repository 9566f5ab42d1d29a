"""Choosing the engine of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
from avex._core.registry import load_attribute
from avex.configs import ModelCard, ModelSpec
from avex.embedding.engines.base import Engine, EngineOptions
from avex.models.precision import canonical_precision
from avex.models.utils.families import canonical_family
from avex.models.utils.registry import resolve

# `none` gives no vector per window.
_AGGREGATIONS = ("mean", "max", "cls_token")
_TORCH = "avex.embedding.engines.torch_engine:TorchEngine"
# Backends of families; the first is taken if none is asked for.
_BACKENDS: dict[str, dict[str, str]] = {
    "birdnet": {
        "native": "avex.embedding.engines.birdnet_native:BirdNetNativeEngine",
        "litert": "avex.embedding.engines.birdnet:BirdNetEngine",
    },
    "perch": {"onnx": _TORCH},
    "perch2": {"onnx": _TORCH},
}
_DEFAULT_BACKENDS = {"torch": _TORCH}


def load_engine(
    model: str | Path | ModelSpec | ModelCard = "birdnet",
    *,
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: str = "fp32",
    layers: Sequence[str | int] = ("last_layer",),
    aggregation: str = "mean",
    backend: str | None = None,
    compile: bool = False,
    classify: bool = True,
) -> Engine:
    """Load a model for running over many windows.

    Args:
        model: Anything that `avex.load_model` takes.
        device: `cpu`, `cuda`, ...; None takes the card's.
        workers: Parallel sessions, for engines that have several.
        batch_size: Windows per call; None takes what suits the engine.
        precision: `fp32`, `bf16`, `fp16` or `auto`.
        layers: Layers that make up the embedding.
        aggregation: How their values are pooled.
        backend: What computes: for BirdNET `native` (default) or `litert`, which needs no torch.
        compile: Compile the network with `torch.compile`: minutes at the start, for long runs.
        classify: Give logits as well, if the model has a classifier.

    Raises:
        UnknownModelError: No such model.
        FamilyNotAvailableError: Its architecture is not implemented yet.
        ConfigError: The engine cannot do what was asked.

    Example:
        >>> engine = load_engine("birdnet")                                  # doctest: +SKIP
        >>> engine.session().run(np.zeros((1, 144000), np.float32), np.array([144000])).embedding.shape
        (1, 1024)
    """
    if aggregation not in _AGGREGATIONS:
        raise ConfigError(f"Unknown aggregation '{aggregation}'. Choose {', '.join(_AGGREGATIONS)}.")
    canonical_precision(precision)
    card = resolve(model)
    options = EngineOptions(
        device, workers, batch_size, precision, tuple(layers), aggregation, backend, compile, classify
    )
    engine: Any = load_attribute(choose_backend(card, backend)[1])
    return engine(card, options)


def choose_backend(card: ModelCard, backend: str | None) -> tuple[str, str]:
    """The backend that computes a card, None being its family's first, and where its engine is.

    Raises:
        ConfigError: The family has no such backend.

    Example:
        >>> choose_backend(resolve("birdnet"), None)[0]
        'native'
    """
    backends = _BACKENDS.get(canonical_family(card.model_spec.name) or "", _DEFAULT_BACKENDS)
    if backend is None:
        return next(iter(backends.items()))
    if backend not in backends:
        raise ConfigError(
            f"Model '{card.name}' has no backend '{backend}'.{did_you_mean(backend, backends)} "
            f"Choose {' or '.join(backends)}."
        )
    return backend, backends[backend]
