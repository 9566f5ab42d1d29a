"""How wide a layer's vectors are, found out with as little work as possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.models.layers import OWN_OUTPUT
from avex.models.probes.inputs import HeadInput, LayerMix
from avex.models.probes.modes import in_eval_mode

InputDim = int | tuple[int, ...] | list[Any]


def mix_for_embeddings(config: ProbeConfig, kind: HeadInput, input_dim: InputDim) -> LayerMix:
    """The input of a probe on stored embeddings.

    Args:
        config: The probe.
        kind: What its head reads.
        input_dim: D; or the shape of a clip's embedding, (D,), (T, D) or (C, F, T); or a list with one of these
            per layer.

    Raises:
        ConfigError: A shape that is none of these, or one that does not fit the probe.

    Example:
        >>> config = ProbeConfig(target_layers=["layer_6", "layer_12"], aggregation="none")
        >>> mix_for_embeddings(config, "vector", [768, (31, 768)]).dims
        (768, 768)
    """
    shapes = input_dim if isinstance(input_dim, list) else [input_dim]
    dims = tuple(_width(shape, config, kind) for shape in shapes)
    stated = [str(layer) for layer in config.target_layers]
    fits = len(stated) == len(dims) and "all" not in stated and len(set(stated)) == len(stated)
    names = tuple(stated) if fits else tuple(f"input_{i}" for i in range(len(dims)))
    return LayerMix(names, dims, kind, config.aggregation, config.input_processing)


def _width(shape: Any, config: ProbeConfig, kind: HeadInput) -> int:
    sizes = (
        (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape) if isinstance(shape, tuple) else ()
    )
    if not 1 <= len(sizes) <= 3 or not all(isinstance(n, (int, np.integer)) and n > 0 for n in sizes):
        raise ConfigError(
            f"input_dim={shape!r} is neither the width D of an embedding, nor its shape (T, D) or (C, F, T), nor a "
            "list of these, one per layer."
        )
    if config.input_processing == "flatten":
        return math.prod(sizes)
    if (
        kind == "vector"
        and config.input_processing == "none"
        and config.aggregation == "none"
        and len(sizes) > 1
    ):
        raise ConfigError(
            f"input_processing='none' takes vectors (B, D) as they are, but input_dim={sizes}. Use "
            "input_processing='pooled'."
        )
    if len(sizes) == 3:
        return int(sizes[0] * sizes[1] if kind == "sequence" else sizes[0])
    return int(sizes[-1])


def mix_for_model(
    config: ProbeConfig, kind: HeadInput, base: ModelBase, target_length: int | None = None
) -> LayerMix:
    """The input of a probe on a model: its layers, and their widths.

    The model is asked for the width of its own output. Other layers, and flattened ones, are looked at in one
    forward pass of silence, in eval mode and without gradients.

    Args:
        config: The probe.
        kind: What its head reads.
        base: The model.
        target_length: Samples of the clips to come, for `flatten`.

    Raises:
        ConfigError: Pooling that a layer does not have, or `flatten` on a model of any length.
        LayerError: A layer that the model does not have.
    """
    names = base.layer_keys(config.target_layers)
    if config.input_processing == "flatten" and (target_length or base.window_seconds) is None:
        raise ConfigError(
            "input_processing='flatten' needs clips of one length, and this model takes any. Give target_length "
            "(samples), or use input_processing='pooled'."
        )
    known = None if config.input_processing == "flatten" else _stated_width(names, kind, base)
    if known is not None and (config.aggregation != "cls_token" or base.layout.num_prefix_tokens):
        dims: tuple[int, ...] = (known,)
    else:
        samples = target_length or round((base.window_seconds or 1.0) * base.sample_rate)
        features = look_at_layers(base, names, samples)
        dims = tuple(_looked_up_width(name, f, config, kind) for name, f in features.items())
    return LayerMix(tuple(names), dims, kind, config.aggregation, config.input_processing)


def _stated_width(names: Sequence[str], kind: HeadInput, base: ModelBase) -> int | None:
    states_it = type(base).get_embedding_dim is not ModelBase.get_embedding_dim
    if list(names) != [OWN_OUTPUT] or not states_it:
        return None
    if base.layout.kind == "map" and kind == "sequence":
        return None  # width times bands
    return base.get_embedding_dim()


def look_at_layers(base: ModelBase, names: Sequence[str], samples: int) -> dict[str, Features]:
    """Features of a clip of silence; neither the model's mode nor the random state changes."""
    silence = torch.zeros(1, samples, device=base.device)
    cuda = [base.device] if base.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), torch.no_grad(), in_eval_mode(base):
        return base.layer_features(silence, names)


def _looked_up_width(name: str, features: Features, config: ProbeConfig, kind: HeadInput) -> int:
    if config.aggregation == "cls_token" and features.layout.num_prefix_tokens == 0:
        raise ConfigError(
            f"Layer '{name}' has no CLS token, so aggregation='cls_token' has nothing to take. Use "
            "aggregation='mean' or 'max'."
        )
    if kind == "sequence":
        return features.tokens().shape[-1]
    if config.input_processing == "flatten":
        return features.values[0].numel()
    return features.pooled("mean").shape[-1]
