"""Checkpoint layouts of the EfficientNets.

| layout | keys |
|---|---|
| `avex` | this package's own: `backbone.features.*`, `classifier.*` |
| `esp` | Earth Species Project: `model.features.*`, `model.classifier.1.*` |
| `torchvision` | `features.*`, `classifier.1.*` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from avex.models.efficientnet.config import VARIANTS
from avex.weights import KeyMap, KeyMapAdapter
from avex.weights.adapter import rename_to_layout

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class TorchvisionAdapter(KeyMapAdapter):
    """A layout in which a classifier of 1000 rows is ImageNet's: it names no sounds and is never loaded.

    A classifier of another size was trained on something else and is kept.
    """

    head_key: str = "classifier.1.weight"

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors and leave ImageNet's classifier out.

        Raises:
            WeightsError: A key is not in the table.
        """
        left_out = self.dropped(state)
        return super().convert({key: tensor for key, tensor in state.items() if key not in left_out})

    def dropped(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the keys that are left out, each with the reason."""
        found = super().dropped(keys)
        if isinstance(keys, Mapping) and self._is_imagenet(keys):
            module = self.head_key.removesuffix("weight")
            found.update({key: "ImageNet classes" for key in keys if key.startswith(module)})
        return found

    def _is_imagenet(self, state: Mapping[str, Tensor]) -> bool:
        return self.head_key in state and state[self.head_key].shape[:1] == (_IMAGENET_CLASSES,)


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
    TorchvisionAdapter("torchvision", _table("", "classifier.1"), requires=(_STEM,)),
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
