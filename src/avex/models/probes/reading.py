"""Stored embeddings in the forms that users have them in: tensors, lists, dicts, `Features`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avex.models.features import Features, TokenLayout

# Keys of a batch that are not embeddings.
_NOT_LAYERS = frozenset({"label", "labels", "padding_mask"})
_KINDS = {2: "vector", 3: "tokens", 4: "map"}


def read_embeddings(
    x: Any,
    padding_mask: Tensor | None,
    names: Sequence[str],
    *,
    has_cls_token: bool = False,
    needs_time: bool = False,
) -> list[Features]:
    """The embeddings of each layer, with the meaning of their axes.

    Args:
        x: (B, D), (B, T, D) or (B, C, F, T) as a tensor or an array, or `Features`; or a list of these in the
            order of the layers; or a dict of these, by the names of the layers or else in their order. In a dict,
            `label` is left out and `padding_mask` is the mask.
        padding_mask: (B, T) bool at the rate of the embeddings, True where padded.
        names: The layers.
        has_cls_token: Take the first token of tensors (B, T, D) for a CLS token.
        needs_time: Refuse tensors (B, D).

    Returns:
        One `Features` per layer.

    Raises:
        ValueError: Another number of layers, or a shape that is none of these.
        TypeError: Something that holds no numbers.

    Example:
        >>> [f.layout.kind for f in read_embeddings([torch.ones(2, 8), torch.ones(2, 5, 8)], None, ["a", "b"])]
        ['vector', 'tokens']
    """
    if isinstance(x, Mapping):
        padding_mask = x.get("padding_mask", padding_mask)
        x = _in_order({key: value for key, value in x.items() if key not in _NOT_LAYERS}, names)
    layers = list(x) if isinstance(x, (list, tuple)) else [x]
    if len(layers) != len(names):
        raise ValueError(
            f"The probe reads {len(names)} layers ({', '.join(names)}), but got {len(layers)}. Pass one tensor per "
            "layer, as a list in this order or as a dict by name."
        )
    return [_as_features(layer, padding_mask, has_cls_token, needs_time) for layer in layers]


def _in_order(layers: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    if set(names) <= set(layers):
        return [layers[name] for name in names]
    if len(layers) == len(names):
        return list(layers.values())
    raise ValueError(
        f"The probe reads the layers {', '.join(names)}, but the dict holds {', '.join(map(str, layers)) or 'no'}."
    )


def _as_features(x: Any, mask: Tensor | None, has_cls_token: bool, needs_time: bool) -> Features:
    if isinstance(x, Features):
        return x
    if isinstance(x, np.ndarray):
        # Tables hand out arrays that may not be written to, which torch does not have.
        x = torch.from_numpy(np.require(x, requirements=["C", "W"]))
    if not isinstance(x, Tensor):
        raise TypeError(f"Embeddings are tensors, arrays or Features, not {type(x).__name__}.")
    if x.ndim not in _KINDS:
        raise ValueError(f"Embeddings have shape (B, D), (B, T, D) or (B, C, F, T), not {tuple(x.shape)}.")
    if x.ndim == 2 and needs_time:
        raise ValueError(
            f"The probe reads sequences (B, T, D), but got vectors {tuple(x.shape)}. Store embeddings with "
            "aggregation='none', or use a linear or mlp probe."
        )
    prefix = 1 if has_cls_token and x.ndim == 3 else 0
    layout = TokenLayout(_KINDS[x.ndim], num_prefix_tokens=prefix)  # type: ignore[arg-type]
    return Features(x, layout, _fitting_mask(mask, x, prefix))


def _fitting_mask(mask: Tensor | None, x: Tensor, prefix: int) -> Tensor | None:
    if mask is None or x.ndim == 2:
        return None
    steps = x.shape[-1] if x.ndim == 4 else x.shape[1]
    if mask.shape != (x.shape[0], steps):
        raise ValueError(
            f"padding_mask {tuple(mask.shape)} does not fit embeddings {tuple(x.shape)}: expected "
            f"({x.shape[0]}, {steps}), one value per time step. Masks of samples are for probes with a base_model."
        )
    return mask.to(x.device, torch.bool)[:, prefix:]
