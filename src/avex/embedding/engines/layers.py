"""How the embedding of a torch model is put together from layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from avex.embedding.engines.base import EngineOptions
    from avex.models.base_model import ModelBase


def layer_dims(model: ModelBase, options: EngineOptions) -> tuple[int, ...]:
    """Numbers that each of several layers contributes to an embedding, found with one window of silence.

    Args:
        model: The model.
        options: Which layers, and how they are pooled.

    Returns:
        One number per layer, in their order; empty if there is only one layer.
    """
    if len(model.layer_keys(options.layers)) == 1:
        return ()
    aggregation: Any = options.aggregation
    silence = torch.zeros(1, round((model.window_seconds or 1.0) * model.sample_rate), device=model.device)
    with torch.inference_mode():
        found = model.layer_features(silence, options.layers)
    return tuple(int(features.pooled(aggregation).shape[-1]) for features in found.values())
