"""The layouts in which EAT weights are published, and the way back into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from avex.models.eat.config import FREQ_BINS
from avex.nn.vit_config import read_sizes
from avex.weights.adapter import KeyMapAdapter, rename_to_layout
from avex.weights.keymap import KeyMap

_ENCODER = (
    "{part:extra_tokens|fixed_positional_encoder.positions|local_encoder.proj.weight|local_encoder.proj.bias}"
)
_HEAD = "classifier.{kind:weight|bias}"
_HEAD_NORM = "backbone.fc_norm.{kind:weight|bias}"


def _encoder(prefix: str) -> list[tuple[str, str]]:
    """Rules for a module tree as in the published port, under a prefix."""
    return [
        (f"{prefix}{_ENCODER}", "backbone.{part}"),
        (f"{prefix}pre_norm.{{kind:weight|bias}}", "backbone.pre_norm.{kind}"),
        (f"{prefix}blocks.{{i}}.{{rest}}", "backbone.blocks.{i}.{rest}"),
    ]


def _fairseq(prefix: str) -> list[tuple[str, str | None] | tuple[str, str | None, str]]:
    """Rules for the names of the original training code, under a prefix."""
    image = f"{prefix}modality_encoders.IMAGE."
    return [
        (f"{image}{_ENCODER}", "backbone.{part}"),
        (f"{image}context_encoder.norm.{{kind:weight|bias}}", "backbone.pre_norm.{kind}"),
        (f"{prefix}blocks.{{i}}.{{rest}}", "backbone.blocks.{i}.{rest}"),
        (f"{image}decoder.{{rest}}", None, "decoder, used in pre-training only"),
        ("_ema.{rest}", None, "teacher of the pre-training"),
    ]


def _classifier(prefix: str = "") -> list[tuple[str, str]]:
    """Rules for the head of a fine-tuned model."""
    return [
        (f"{prefix}fc_norm.{{kind:weight|bias}}", "backbone.fc_norm.{kind}"),
        (f"{prefix}head.{{kind:weight|bias}}", "classifier.{kind}"),
    ]


ADAPTERS = (
    # Supervised encoders of ESP-AVES2: the published port inside a wrapper, with a classifier of their own.
    KeyMapAdapter(
        "esp",
        KeyMap([*_encoder("backbone.model."), (_HEAD, "classifier.{kind}")]),
        requires=("backbone.model.extra_tokens",),
    ),
    # Pre-trained by the original code, also published as safetensors by ESP-AVES2 (eat_all, eat_bio).
    KeyMapAdapter("fairseq", KeyMap(_fairseq("")), requires=("modality_encoders.IMAGE.extra_tokens",)),
    # Fine-tuned by the original code.
    KeyMapAdapter(
        "fairseq_finetuned",
        KeyMap([*_fairseq("model."), *_classifier()]),
        requires=("model.modality_encoders.IMAGE.extra_tokens",),
    ),
    # The authors' port, pre-trained or fine-tuned; with and without its outer module.
    KeyMapAdapter(
        "huggingface", KeyMap([*_encoder("model."), *_classifier("model.")]), requires=("model.extra_tokens",)
    ),
    KeyMapAdapter("huggingface_core", KeyMap([*_encoder(""), *_classifier()]), requires=("extra_tokens",)),
    # What `model.state_dict()` of this package gives.
    KeyMapAdapter(
        "avex",
        KeyMap(
            [*_encoder("backbone."), (_HEAD_NORM, "backbone.fc_norm.{kind}"), (_HEAD, "classifier.{kind}")]
        ),
        requires=("backbone.extra_tokens",),
    ),
)


def config_of(metadata: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes that a checkpoint states, as fields of `EatConfig`.

    Args:
        metadata: What else the file holds; fairseq's settings name the heads.
        state: Its tensors under this package's names.

    Returns:
        Only what is known; the heads, where no setting names them, are 64 long as in all published models.
    """
    found = read_sizes(state)
    if (dim := found.get("embed_dim")) and dim % 64 == 0:
        found["num_heads"] = dim // 64
    positions = state.get("backbone.fixed_positional_encoder.positions")
    if positions is not None and positions.ndim == 3:
        found["max_length"] = positions.shape[1] // FREQ_BINS
    found["head_norm"] = "backbone.fc_norm.weight" in state
    return {**found, **_stated_heads(metadata)}


def export_state(state: Mapping[str, Tensor], layout: str) -> dict[str, Tensor]:
    """Give a state dict the names of a published layout.

    Args:
        state: `model.state_dict()`.
        layout: `esp`, `fairseq`, `fairseq_finetuned`, `huggingface`, `huggingface_core` or `avex`.

    Raises:
        UnknownNameError: No such layout.
        WeightsError: The layout has no place for a tensor, such as the classifier of a pre-training layout.

    Example:
        >>> export_state({"backbone.extra_tokens": torch.zeros(1, 1, 8)}, "huggingface").keys()   # doctest: +SKIP
        dict_keys(['model.extra_tokens'])
    """
    return rename_to_layout(ADAPTERS, state, layout, "EAT")


def _stated_heads(metadata: Mapping[str, Any]) -> dict[str, int]:
    settings: Any = metadata.get("cfg")
    for name in ("model", "num_heads"):
        settings = settings.get(name) if isinstance(settings, Mapping) else None
    return {"num_heads": settings} if isinstance(settings, int) and settings > 0 else {}
