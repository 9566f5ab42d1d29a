"""Checkpoint layouts of the ResNets.

| layout | keys |
|---|---|
| `avex` | `backbone.*`, `classifier.*`, as this package and the wrapper of avex 1 save it |
| `torchvision` | no prefix, `fc.*`; a classifier of 1000 classes is ImageNet's and is left out |
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from avex.weights import KeyMap, KeyMapAdapter
from avex.weights.adapter import rename_to_layout
from avex.weights.imagenet import PictureAdapter

_TORCHVISION = KeyMap(
    [
        ("fc.{kind:weight|bias}", "classifier.{kind}"),
        ("{part:conv1|bn1}.{rest}", "backbone.{part}.{rest}"),
        ("layer{i}.{rest}", "backbone.layer{i}.{rest}"),
    ]
)
ADAPTERS: tuple[KeyMapAdapter, ...] = (
    KeyMapAdapter(
        "avex",
        KeyMap([("backbone.{rest}", "backbone.{rest}"), ("classifier.{rest}", "classifier.{rest}")]),
        requires=("backbone.conv1.weight", "backbone.layer1.0.conv1.weight"),
    ),
    PictureAdapter(
        "torchvision", _TORCHVISION, requires=("conv1.weight", "layer1.0.conv1.weight"), head="fc."
    ),
)


def export_state(state: Mapping[str, Tensor], layout: str = "avex") -> dict[str, Tensor]:
    """Return a model's state dict under the keys of a published layout; tensors are not copied.

    Args:
        state: `model.state_dict()`.
        layout: `avex` or `torchvision`.

    Raises:
        UnknownNameError: There is no such layout.

    Example:
        >>> export_state({"backbone.layer1.0.bn1.bias": None}, "torchvision")
        {'layer1.0.bn1.bias': None}
    """
    return rename_to_layout(ADAPTERS, state, layout, "ResNet")
