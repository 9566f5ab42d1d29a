"""Choosing the engine of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex._core.registry import load_attribute
from avex.configs import ModelCard, ModelSpec
from avex.embedding.engines.base import Engine
from avex.models.utils.families import canonical_family
from avex.models.utils.registry import resolve

# Families with an engine of their own; all others run as torch models.
_FAMILY_ENGINES = {"birdnet": "avex.embedding.engines.birdnet:BirdNetEngine"}
# `none` gives no vector per window.
_AGGREGATIONS = ("mean", "max", "cls_token")
_TORCH_ENGINE = "avex.embedding.engines.torch_engine:TorchEngine"


def load_engine(
    model: str | Path | ModelSpec | ModelCard = "birdnet",
    *,
    device: str | None = None,
    workers: int | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    layers: Sequence[str | int] = ("last_layer",),
    aggregation: str = "mean",
) -> Engine:
    """Load a model for running over many windows.

    Args:
        model: Anything that `avex.load_model` takes.
        device: `cpu`, `cuda`, ...; None takes the card's.
        workers: Parallel sessions, for engines that have several.
        batch_size: Windows per call; None takes what suits the engine.
        precision: `float32`, `bfloat16`, `float16`.
        layers: Layers that make up the embedding.
        aggregation: How their values are pooled.

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
    card = resolve(model)
    reference = _FAMILY_ENGINES.get(canonical_family(card.model_spec.name) or "", _TORCH_ENGINE)
    engine: Any = load_attribute(reference)
    return engine(
        card,
        device=device,
        workers=workers,
        batch_size=batch_size,
        precision=precision,
        layers=tuple(layers),
        aggregation=aggregation,
    )
