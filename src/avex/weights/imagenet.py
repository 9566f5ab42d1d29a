"""Layouts of networks for pictures, whose published classifiers name no sounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from avex.weights.adapter import KeyMapAdapter

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class PictureAdapter(KeyMapAdapter):
    """A layout in which a classifier of 1000 rows is ImageNet's: it names no sounds and is never loaded.

    A classifier of another size was trained on something else and is kept.

    Attributes:
        head: What the keys of the classifier begin with.
    """

    head: str = "classifier."

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
            found.update({key: "ImageNet classes" for key in keys if key.startswith(self.head)})
        return found

    def _is_imagenet(self, state: Mapping[str, Tensor]) -> bool:
        weight = state.get(f"{self.head}weight")
        return weight is not None and weight.shape[:1] == (_IMAGENET_CLASSES,)
