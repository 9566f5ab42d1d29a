"""Published checkpoint layouts of BEATs, there and back.

All of them name the same tensors: with or without `backbone.` in front, with the weight norm of the position
convolution in PyTorch's older or newer naming, and with twelve copies of the table of relative positions, which
the model holds once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from avex._core.errors import WeightsError
from avex.nn.position import WEIGHT_NORM_NAMES
from avex.weights.adapter import KeyMapAdapter, rename_to_layout
from avex.weights.keymap import KeyMap

if TYPE_CHECKING:
    from torch import Tensor

_TABLE = "backbone.encoder.relative_attention_bias.weight"
_COPY = re.compile(r"(.*encoder\.layers\.)[0-9]+(\.self_attn\.relative_attention_bias\.weight)")


@dataclass(frozen=True)
class SharedTableAdapter(KeyMapAdapter):
    """A layout that holds the table of relative positions once per layer."""

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors and leave out the copies of the table.

        Raises:
            WeightsError: As for `KeyMapAdapter`, or the copies differ, or are there without the first layer's.
        """
        _check_copies({key: table for key, table in state.items() if _COPY.fullmatch(key)})
        return super().convert(state)


def _check_copies(tables: Mapping[str, Tensor]) -> None:
    """Raise unless all tables are copies of the first layer's, which is checked later, with the other tensors."""
    if not tables:
        return
    own = _COPY.sub(r"\g<1>0\g<2>", next(iter(tables)))
    if own not in tables:
        raise WeightsError(f"The checkpoint lacks the table of relative positions '{own}'; others are there.")
    first = tables[own]
    if not first.is_floating_point() or not first.isfinite().all():
        return  # not the copies' fault
    for key, table in tables.items():
        if table.dtype != first.dtype:
            raise WeightsError(
                f"The checkpoint has the table of relative positions as {table.dtype} in '{key}' and as "
                f"{first.dtype} in '{own}'; in BEATs all layers share one. It was converted wrongly."
            )
        if not table.isfinite().all():
            raise WeightsError(
                f"The checkpoint has values in '{key}' that are not finite (NaN or infinite). It is damaged: "
                "download it again, or ask its author."
            )
        if not table.equal(first):
            raise WeightsError(
                f"The checkpoint has another table of relative positions in '{key}' than in '{own}'; in BEATs "
                "all layers share one. It is the file of another architecture."
            )


def _layout(name: str, norm: str, prefix: str = "", predictor: str = "backbone.predictor") -> KeyMapAdapter:
    g, v = WEIGHT_NORM_NAMES[norm]
    copy = f"{prefix}encoder.layers.{{i}}.self_attn.relative_attention_bias.weight"
    rules: list[tuple[str, str | None] | tuple[str, str | None, str]] = [
        (copy.replace("{i}", "0"), _TABLE),
        (copy, None, "a copy of the table of layer 0"),
        (f"{prefix}encoder.pos_conv.0.{g}", "backbone.encoder.pos_conv.weight_g"),
        (f"{prefix}encoder.pos_conv.0.{v}", "backbone.encoder.pos_conv.weight_v"),
        (f"{prefix}encoder.pos_conv.0.bias", "backbone.encoder.pos_conv.bias"),
        (f"{prefix}encoder.{{rest}}", "backbone.encoder.{rest}"),
        (f"{prefix}fbank.{{rest}}", None, "constants of the filter bank, which are computed"),
        (f"{prefix}predictor.{{kind:weight|bias}}", f"{predictor}.{{kind}}"),
        *(
            (f"{prefix}{part}.{{kind:weight|bias}}", f"backbone.{part}.{{kind}}")
            for part in ("patch_embedding", "layer_norm", "post_extract_proj")
        ),
    ]
    if prefix:
        rules.append(("classifier.{kind:weight|bias}", "classifier.{kind}"))
    requires = (f"{prefix}patch_embedding.weight", f"{prefix}encoder.pos_conv.0.{g}")
    return SharedTableAdapter(name, KeyMap(rules), requires)


def _audioset(name: str) -> KeyMapAdapter:
    """The layout of Microsoft's fine-tuned files with their predictor as the classifier.

    The keys do not tell it from `microsoft`, so it is used only where a card or user names it. A model of such
    a card that was trained further and saved has the model's own names; they are let through.
    """
    layout = _layout(name, "legacy", predictor="classifier")
    own = [("backbone.{rest}", "backbone.{rest}"), ("classifier.{rest}", "classifier.{rest}")]
    return SharedTableAdapter(name, KeyMap([*layout.key_map, *own]), layout.requires)


ADAPTERS: tuple[KeyMapAdapter, ...] = (
    KeyMapAdapter(
        "avex",
        KeyMap([("backbone.{rest}", "backbone.{rest}"), ("classifier.{rest}", "classifier.{rest}")]),
        requires=("backbone.encoder.pos_conv.weight_g",),
    ),
    _layout("esp", "legacy", "backbone."),
    _layout("esp_parametrized", "parametrized", "backbone."),
    _layout("microsoft", "legacy"),
    _layout("microsoft_parametrized", "parametrized"),
    _audioset("microsoft_audioset"),
)


def export_state(state: Mapping[str, Tensor], layout: str = "microsoft") -> dict[str, Tensor]:
    """Turn a model's state dict into a published layout.

    Args:
        state: `Beats(...).state_dict()`.
        layout: `esp`, `esp_parametrized`, `microsoft` or `microsoft_parametrized` (without a classifier), or
            `microsoft_audioset` (with the classifier as predictor).

    Returns:
        Tensors that the original programs load, the table of relative positions once per layer. Save them with
        safetensors or, for Microsoft's program, as `torch.save({"cfg": dataclasses.asdict(config), "model": ...})`.

    Raises:
        UnknownNameError: No such layout.
        WeightsError: A tensor has no place in that layout.

    Example:
        >>> export_state(model.state_dict(), "esp").keys()                       # doctest: +SKIP
    """
    if layout.startswith("microsoft"):
        other_head = "backbone.predictor." if layout == "microsoft_audioset" else "classifier."
        state = {key: tensor for key, tensor in state.items() if not key.startswith(other_head)}
    renamed = rename_to_layout(ADAPTERS, state, layout, "BEATs")
    layers = {key.split(".")[3] for key in state if key.startswith("backbone.encoder.layers.")}
    for key in list(renamed):
        if match := _COPY.fullmatch(key):
            renamed.update({f"{match[1]}{i}{match[2]}": renamed[key].clone() for i in layers - {"0"}})
    return renamed
