"""Checkpoint layouts of the EfficientNets.

| layout | keys |
|---|---|
| `avex` | this package's own: `backbone.features.*`, `classifier.*` |
| `esp` | Earth Species Project: `model.features.*`, `model.classifier.1.*` |
| `torchvision` | `features.*`, `classifier.1.*` |
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avex.models.efficientnet.config import VARIANTS
from avex.weights import KeyMap, KeyMapAdapter
from avex.weights.adapter import rename_to_layout
from avex.weights.imagenet import PictureAdapter


def _table(prefix: str, head: str) -> KeyMap:
    return KeyMap(
        [
            (prefix + "features.{rest}", "backbone.features.{rest}"),
            (head + ".{kind:weight|bias}", "classifier.{kind}"),
        ]
    )


_STEM = "features.0.0.weight"
ADAPTERS: tuple[KeyMapAdapter, ...] = (
    KeyMapAdapter("avex", _table("backbone.", "classifier"), requires=("backbone." + _STEM,)),
    KeyMapAdapter("esp", _table("model.", "model.classifier.1"), requires=("model." + _STEM,)),
    PictureAdapter("torchvision", _table("", "classifier.1"), requires=(_STEM,), head="classifier.1."),
)


def infer_variant(state: Mapping[str, Tensor]) -> str | None:
    """Return the variant whose blocks a state dict in this package's names has, or None.

    Example:
        >>> infer_variant({"backbone.features.0.0.weight": None})
    """
    blocks: dict[int, set[int]] = {}
    for key in state:
        parts = key.split(".")
        if parts[:2] == ["backbone", "features"] and len(parts) > 5 and parts[4] == "block":
            blocks.setdefault(int(parts[2]), set()).add(int(parts[3]))
    counts = [len(blocks[stage]) for stage in sorted(blocks)]
    return next(
        (name for name, config in VARIANTS.items() if [s.blocks for s in config.stages] == counts), None
    )


def export_state(state: Mapping[str, Tensor], layout: str = "esp") -> dict[str, Tensor]:
    """Return a model's state dict under the keys of a published layout; tensors are not copied.

    Args:
        state: `model.state_dict()`.
        layout: `avex`, `esp` or `torchvision`.

    Raises:
        UnknownNameError: There is no such layout.

    Example:
        >>> export_state({"backbone.features.0.0.weight": None}, "torchvision")
        {'features.0.0.weight': None}
    """
    return rename_to_layout(ADAPTERS, state, layout, "EfficientNet")
