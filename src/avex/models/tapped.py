"""What the axes of a tapped layer's output mean, and how the outputs of several layers are put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from avex.models.features import Features, TokenLayout
from avex.models.layers import OWN_OUTPUT, LayerError, path_to_layer, tap_layers

LayerAggregation = Literal["none", "mean", "max", "cls_token", "concat"]

if TYPE_CHECKING:
    from avex.models.base_model import ModelBase

# Modules that put channels before time: their outputs are (B, C, T).
_CHANNELS_FIRST = (
    nn.Conv1d,
    nn.BatchNorm1d,
    nn.InstanceNorm1d,
    nn.MaxPool1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
)


def read_layers(
    model: ModelBase, keys: Sequence[str], waveform: Tensor, padding_mask: Tensor | None
) -> dict[str, Features]:
    """Features of layers from one forward pass of a model.

    Args:
        model: The model.
        keys: Names of modules, and `last_layer` for the model's own output.
        waveform: (B, S).
        padding_mask: (B, S) bool, or None.

    Raises:
        LayerError: A layer that did not run.
        ValueError: A layer whose output `tapped_features` cannot make sense of.
    """
    tapped = [key for key in keys if key != OWN_OUTPUT]
    with tap_layers(model, tapped) as outputs:
        own = model.forward_features(waveform, padding_mask)
    if silent := [name for name in tapped if name not in outputs]:
        raise LayerError(
            f"Layer '{silent[0]}' took no part in this forward pass, so it has no output. Inside of a layer that "
            "layer drop left out nothing runs: use eval mode, or whole layers (get_model_layers())."
        )
    batch, seconds = waveform.shape[0], waveform.shape[-1] / model.sample_rate
    found: dict[str, Features] = {}
    for name, values in outputs.items():
        module = path_to_layer(model, name)[-1]
        found[name] = tapped_features(name, module, values, own, batch, seconds, model.token_layout)
    return {key: found.get(key, own) for key in keys}


def tapped_features(
    name: str,
    module: nn.Module,
    values: Tensor,
    own: Features,
    batch: int,
    seconds: float,
    token_layout: TokenLayout | None = None,
) -> Features:
    """Say what the output of a layer is.

    Args:
        name: Name of the layer, for messages.
        module: The layer.
        values: Its output.
        own: The model's own features of the same pass.
        batch: Clips in the batch.
        seconds: Length of the clips.
        token_layout: Layout of the model's token layers, if its own features are something else.

    Returns:
        Tokens laid out like the model's own, with its mask, if there are as many; else tokens, a map (B, C, F, T)
        or vectors with a frame rate of their own. A mask is then the model's own, stretched over the layer's steps.

    Raises:
        ValueError: Other axes, or an output that is not batch first.
    """
    if not 2 <= values.ndim <= 4:
        raise ValueError(
            f"Layer '{name}' has {values.ndim} axes; embeddings are made of layers with 2, 3 or 4."
        )
    if values.shape[0] != batch:
        raise ValueError(
            f"Layer '{name}' gives {tuple(values.shape)} for {batch} clips: its first axis is not the batch. "
            "Choose another layer, or put batches first in the model."
        )
    if values.ndim == 2:
        return Features(values, TokenLayout("vector"))
    if values.ndim == 3 and isinstance(module, _CHANNELS_FIRST):
        values = values.unsqueeze(2)
    if values.ndim == 4:
        steps = values.shape[-1]
        same = own.layout.kind == "map" and own.values.shape[-1] == steps
        layout = own.layout if same else TokenLayout("map", frame_rate=steps / seconds)
        return Features(values, layout, _stretched_mask(own, steps))
    tokens = own.layout if own.layout.kind == "tokens" else token_layout
    if tokens is not None and _fits(values, tokens, own):
        return Features(values, tokens, own.padding_mask if own.layout.kind == "tokens" else None)
    steps = values.shape[1]
    return Features(values, TokenLayout("tokens", frame_rate=steps / seconds), _stretched_mask(own, steps))


def _fits(values: Tensor, layout: TokenLayout, own: Features) -> bool:
    if own.layout.kind == "tokens":
        return values.shape[1] == own.values.shape[1]
    count = values.shape[1] - layout.num_prefix_tokens
    return count > 0 and count % layout.freq_bins == 0


def _stretched_mask(own: Features, steps: int) -> Tensor | None:
    mask = own.sequence_mask()
    if mask is None:
        return None
    source = torch.arange(steps, device=mask.device) * mask.shape[1] // steps
    return mask[:, source]


def join_layers(
    features: Mapping[str, Features],
    aggregation: LayerAggregation,
    form: type[dict] | type[list] | None = None,
) -> Tensor | list[Tensor] | dict[str, Tensor]:
    """Put the embeddings of layers together as `ModelBase.extract_embeddings` promises.

    Args:
        features: By layer.
        aggregation: See there.
        form: `dict`, `list` or None.

    Raises:
        ValueError: An unknown form, `concat` with layers of different lengths, or pooling that a layer does not
            have.
    """
    if form not in (None, dict, list):
        raise ValueError(f"return_layers must be dict, list or None, not {form!r}.")
    if aggregation == "concat":
        tensors = {name: layer.tokens() for name, layer in features.items()}
    else:
        tensors = {name: layer.pooled(aggregation) for name, layer in features.items()}
    if form is dict:
        return tensors
    values = list(tensors.values())
    if form is list:
        return values
    if len(values) == 1:
        return values[0]
    if aggregation == "none":
        return values
    lengths = {name: value.shape[1] for name, value in tensors.items()}
    if aggregation == "concat" and len(set(lengths.values())) > 1:
        raise ValueError(
            f"aggregation='concat' puts sequences of one length side by side; these have {lengths}. Use 'none', or "
            "pool."
        )
    return torch.cat(values, dim=-1)
