"""Published checkpoint layouts of AVES and BirdAVES, there and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from avex.nn.position import WEIGHT_NORM_NAMES
from avex.weights.adapter import KeyMapAdapter, rename_to_layout
from avex.weights.keymap import KeyMap

if TYPE_CHECKING:
    from torch import Tensor

_TRANSFORMER = "backbone.encoder.transformer"
Rules = list[tuple[str, str | None] | tuple[str, str | None, str]]


def _positions(published: str, norm: str) -> Rules:
    own, (g, v) = f"{_TRANSFORMER}.pos_conv_embed", WEIGHT_NORM_NAMES[norm]
    return [
        (f"{published}.{g}", f"{own}.weight_g"),
        (f"{published}.{v}", f"{own}.weight_v"),
        (f"{published}.bias", f"{own}.bias"),
    ]


def _torchaudio(name: str, norm: str, prefix: str = "") -> KeyMapAdapter:
    positions = f"{prefix}encoder.transformer.pos_conv_embed.conv"
    rules: Rules = [
        *_positions(positions, norm),
        (f"{prefix}feature_extractor.{{rest}}", "backbone.feature_extractor.{rest}"),
        (f"{prefix}encoder.{{rest}}", "backbone.encoder.{rest}"),
    ]
    if prefix:
        rules.append(("classifier.{kind:weight|bias}", "classifier.{kind}"))
    requires = (
        f"{positions}.{WEIGHT_NORM_NAMES[norm][0]}",
        f"{prefix}feature_extractor.conv_layers.0.conv.weight",
    )
    return KeyMapAdapter(name, KeyMap(rules), requires)


def _fairseq(name: str, norm: str) -> KeyMapAdapter:
    layer, own = "encoder.layers.{i}", f"{_TRANSFORMER}.layers.{{i}}"
    convs, own_convs = "feature_extractor.conv_layers", "backbone.feature_extractor.conv_layers"
    kind = "{kind:weight|bias}"
    rules: Rules = [
        *_positions("encoder.pos_conv.0", norm),
        (f"{convs}.0.2.{kind}", f"{own_convs}.0.layer_norm.{{kind}}"),
        (f"{convs}.{{i}}.0.{kind}", f"{own_convs}.{{i}}.conv.{{kind}}"),
        (f"layer_norm.{kind}", "backbone.encoder.feature_projection.layer_norm.{kind}"),
        (f"post_extract_proj.{kind}", "backbone.encoder.feature_projection.projection.{kind}"),
        (f"encoder.layer_norm.{kind}", f"{_TRANSFORMER}.layer_norm.{{kind}}"),
        (f"{layer}.self_attn.{{name}}.{kind}", f"{own}.attention.{{name}}.{{kind}}"),
        (f"{layer}.self_attn_layer_norm.{kind}", f"{own}.layer_norm.{{kind}}"),
        (f"{layer}.fc1.{kind}", f"{own}.feed_forward.intermediate_dense.{{kind}}"),
        (f"{layer}.fc2.{kind}", f"{own}.feed_forward.output_dense.{{kind}}"),
        (f"{layer}.final_layer_norm.{kind}", f"{own}.final_layer_norm.{{kind}}"),
        ("mask_emb", None, "used in pre-training only"),
        ("final_proj.{rest}", None, "used in pre-training only"),
        ("label_embs_concat", None, "used in pre-training only"),
    ]
    requires = (f"{convs}.0.0.weight", f"encoder.pos_conv.0.{WEIGHT_NORM_NAMES[norm][0]}")
    return KeyMapAdapter(name, KeyMap(rules), requires)


ADAPTERS: tuple[KeyMapAdapter, ...] = (
    KeyMapAdapter(
        "avex",
        KeyMap([("backbone.{rest}", "backbone.{rest}"), ("classifier.{rest}", "classifier.{rest}")]),
        requires=(f"{_TRANSFORMER}.pos_conv_embed.weight_g",),
    ),
    _torchaudio("torchaudio", "legacy"),
    _torchaudio("torchaudio_parametrized", "parametrized"),
    _torchaudio("esp", "legacy", "model."),
    _torchaudio("esp_parametrized", "parametrized", "model."),
    _fairseq("fairseq", "legacy"),
    _fairseq("fairseq_parametrized", "parametrized"),
)
_HEADLESS = frozenset(a.name for a in ADAPTERS if not a.name.startswith(("avex", "esp")))


def export_state(state: Mapping[str, Tensor], layout: str = "torchaudio") -> dict[str, Tensor]:
    """Turn a model's state dict into a published layout; a classifier stays behind unless that has one.

    Args:
        state: `Hubert(...).state_dict()`.
        layout: Name of one of the adapters: `torchaudio`, `torchaudio_parametrized`, `esp`, `fairseq`, ...

    Returns:
        Tensors that the original programs load.

    Raises:
        UnknownNameError: No such layout.
        WeightsError: A tensor has no place in that layout.

    Example:
        >>> export_state(model.state_dict(), "torchaudio").keys()                # doctest: +SKIP
    """
    return rename_to_layout(ADAPTERS, state, layout, "HuBERT", _HEADLESS)
