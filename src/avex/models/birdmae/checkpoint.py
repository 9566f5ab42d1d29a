"""The layouts in which Bird-MAE weights are published, and the way back into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from avex.models.birdmae.config import SIZES
from avex.nn.vit_config import read_sizes
from avex.weights.adapter import KeyMapAdapter, rename_to_layout
from avex.weights.keymap import KeyMap

_CLASSIFIER = ("classifier.{kind:weight|bias}", "classifier.{kind}")
_FRESH_NORM = {"backbone.fc_norm.weight": 1.0, "backbone.fc_norm.bias": 0.0}


def _encoder(prefix: str) -> list[tuple[str, str]]:
    return [
        (f"{prefix}{{token:cls_token|pos_embed}}", "backbone.{token}"),
        (f"{prefix}{{part:patch_embed.proj|norm|fc_norm}}.{{kind:weight|bias}}", "backbone.{part}.{kind}"),
        (f"{prefix}blocks.{{i}}.{{rest}}", "backbone.blocks.{i}.{rest}"),
    ]


ADAPTERS = (
    # Lightning checkpoints of the pre-training: an encoder without `fc_norm`, and a decoder.
    KeyMapAdapter(
        "pretraining",
        KeyMap([*_encoder("encoder."), ("decoder.{rest}", None, "decoder, used in pre-training only")]),
        requires=("encoder.cls_token",),
    ),
    KeyMapAdapter("huggingface", KeyMap(_encoder("")), requires=("cls_token",)),
    # The state dict of the earlier `avex` package's model.
    KeyMapAdapter("avex_wrapper", KeyMap([*_encoder("model."), _CLASSIFIER]), requires=("model.cls_token",)),
    # What `model.state_dict()` of this package gives.
    KeyMapAdapter("avex", KeyMap([*_encoder("backbone."), _CLASSIFIER]), requires=("backbone.cls_token",)),
)


def config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that a checkpoint states, as fields of `BirdMaeConfig`.

    Args:
        state: Its tensors under this package's names.

    Returns:
        Only what is known; the number of heads is that of the published model of the same length of token.
    """
    found = read_sizes(state)
    heads = {sizes["embed_dim"]: sizes["num_heads"] for sizes in SIZES.values()}
    if found.get("embed_dim") in heads:
        found["num_heads"] = heads[found["embed_dim"]]
    return found


def export_state(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Give a state dict the names of a published layout.

    Args:
        state: `model.state_dict()`.
        layout: `huggingface`, `pretraining`, `avex_wrapper` or `avex`. Published files of the pre-training have no
            norm of the pooled embedding: one that nobody has trained stays behind there.

    Raises:
        UnknownNameError: No such layout.
        WeightsError: The layout has no place for a tensor, such as a classifier.
    """
    if layout == "pretraining" and all(
        name in state and bool((state[name] == value).all()) for name, value in _FRESH_NORM.items()
    ):
        state = {name: tensor for name, tensor in state.items() if name not in _FRESH_NORM}
    return rename_to_layout(ADAPTERS, state, layout, "Bird-MAE")
