"""The layouts in which ATST-Frame weights are published, and the way back into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from avex.nn.vit_config import read_sizes
from avex.weights.adapter import KeyMapAdapter, rename_to_layout
from avex.weights.keymap import KeyMap

_CLASSIFIER = ("classifier.{kind:weight|bias}", "classifier.{kind}")


def _encoder(prefix: str) -> list[tuple[str, str]]:
    return [
        (f"{prefix}{{token:mask_embed|pos_embed}}", "backbone.{token}"),
        (
            f"{prefix}{{part:patch_embed.patch_embed|norm_frame}}.{{kind:weight|bias}}",
            "backbone.{part}.{kind}",
        ),
        (f"{prefix}blocks.{{i}}.{{rest}}", "backbone.blocks.{i}.{rest}"),
    ]


ADAPTERS = (
    # The authors' Lightning checkpoints: the teacher is the encoder that is used.
    KeyMapAdapter(
        "lightning",
        KeyMap(
            [
                *_encoder("model.teacher.encoder."),
                ("model.{rest}", None, "student and projections, used in pre-training only"),
            ]
        ),
        requires=("model.teacher.encoder.pos_embed",),
    ),
    # The encoder alone.
    KeyMapAdapter("encoder", KeyMap(_encoder("")), requires=("pos_embed", "mask_embed")),
    # The state dict of the earlier `avex` package's model.
    KeyMapAdapter("avex_wrapper", KeyMap([*_encoder("atst."), _CLASSIFIER]), requires=("atst.pos_embed",)),
    # What `model.state_dict()` of this package gives.
    KeyMapAdapter("avex", KeyMap([*_encoder("backbone."), _CLASSIFIER]), requires=("backbone.pos_embed",)),
)


def config_of(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that a checkpoint states, as fields of `AtstFrameConfig`.

    Args:
        state: Its tensors under this package's names.

    Returns:
        Only what is known; the heads are 64 long, as in all published models.
    """
    found = read_sizes(state)
    if (dim := found.get("embed_dim")) and dim % 64 == 0:
        found["num_heads"] = dim // 64
    return found


def export_state(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Give a state dict the names of a published layout.

    Args:
        state: `model.state_dict()`.
        layout: `encoder`, `lightning`, `avex_wrapper` or `avex`.

    Raises:
        UnknownNameError: No such layout.
        WeightsError: The layout has no place for a tensor, such as a classifier.
    """
    return rename_to_layout(ADAPTERS, state, layout, "ATST-Frame")
