"""Checkpoint layouts of CLIP models, and of the RoBERTa that a text tower may start from.

| layout | keys |
|---|---|
| `avex` | this package's own: `backbone.*`, `text_encoder.*`, `audio_projection.*`, `text_projection.*` |
| `esp` | the wrapper of avex 1: the same, with `audio_encoder.model.*` for the audio tower |
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avex.weights import KeyMap, KeyMapAdapter
from avex.weights.adapter import rename_to_layout

_UNUSED_CLASSIFIER = "classifier of the audio tower, which a joint embedding has no use for"
_UNUSED_POOLER = "pooler of the text tower, which a joint embedding has no use for"
_COMMON: list[tuple[str, str | None] | tuple[str, str | None, str]] = [
    ("{tower:audio_projection|text_projection}.{rest}", "{tower}.{rest}"),
    ("text_encoder.pooler.{rest}", None, _UNUSED_POOLER),
    ("text_encoder.embeddings.position_ids", None, "constants, which are computed"),
    ("text_encoder.{rest}", "text_encoder.{rest}"),
    ("logit_scale", "logit_scale"),
]
ADAPTERS: tuple[KeyMapAdapter, ...] = (
    KeyMapAdapter(
        "avex",
        KeyMap([("backbone.features.{rest}", "backbone.features.{rest}"), *_COMMON]),
        requires=("backbone.features.0.0.weight", "audio_projection.0.weight"),
    ),
    KeyMapAdapter(
        "esp",
        KeyMap(
            [
                ("audio_encoder.model.features.{rest}", "backbone.features.{rest}"),
                ("audio_encoder.model.classifier.{rest}", None, _UNUSED_CLASSIFIER),
                *_COMMON,
            ]
        ),
        requires=("audio_encoder.model.features.0.0.weight", "audio_projection.0.weight"),
    ),
)

ROBERTA_ADAPTERS: tuple[KeyMapAdapter, ...] = tuple(
    KeyMapAdapter(
        name,
        KeyMap(
            [
                ("lm_head.{rest}", None, "head that guesses words"),
                (prefix + "pooler.{rest}", None, _UNUSED_POOLER),
                (prefix + "embeddings.position_ids", None, "constants, which are computed"),
                (prefix + "{part:embeddings|encoder}.{rest}", "{part}.{rest}"),
            ]
        ),
        requires=(prefix + "embeddings.word_embeddings.weight",),
    )
    for name, prefix in (("huggingface", "roberta."), ("huggingface_bare", ""))
)


def export_state(state: Mapping[str, Tensor], layout: str = "esp") -> dict[str, Tensor]:
    """Return a model's state dict under the keys of another layout; tensors are not copied.

    Args:
        state: `Clip(...).state_dict()`.
        layout: `avex` or `esp`; the latter without the two parts that are never used.

    Raises:
        UnknownNameError: There is no such layout.

    Example:
        >>> export_state({"backbone.features.0.1.bias": None})
        {'audio_encoder.model.features.0.1.bias': None}
    """
    return rename_to_layout(ADAPTERS, state, layout, "CLIP")
