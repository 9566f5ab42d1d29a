"""Deciding what `load_model` does: one pure function with one truth table (design, section 4).

| return_features_only | num_classes | weights | has head | result |
|---|---|---|---|---|
| True | any | any | any | no classifier; backbone weights if there are any |
| False | n | yes | any | new classifier of n; backbone weights; head weights reported as reset |
| False | n | no | - | new classifier of n; random backbone |
| False | None | yes | yes | classifier kept, n from file, card or labels; labels attached |
| False | None | yes | no | features mode |
| False | None | no | - | features mode |
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from avex._core.errors import ConfigError


@dataclass(frozen=True)
class LoadPlan:
    """What to build and what to load.

    Attributes:
        features_only: Build without a classifier.
        num_classes: Size of the classifier, or None without one.
        head: `none`, `new` (fresh parameters) or `checkpoint` (parameters from the file).
        weights: Load backbone weights.
        attach_labels: Attach the label map.
    """

    features_only: bool
    num_classes: int | None
    head: Literal["none", "new", "checkpoint"]
    weights: bool
    attach_labels: bool


def plan_load(
    *,
    return_features_only: bool,
    num_classes: int | None,
    has_weights: bool,
    has_head: bool = False,
    head_classes: int | None = None,
    card_classes: int | None = None,
    label_classes: int | None = None,
) -> LoadPlan:
    """Decide between features, a new classifier and the checkpoint's classifier.

    Args:
        return_features_only: The caller wants unpooled features.
        num_classes: The caller wants a new classifier of this size.
        has_weights: There is a checkpoint (given, the card's, or the family's default).
        has_head: The checkpoint holds a classifier.
        head_classes: Its size, read from the file.
        card_classes: The size its card states.
        label_classes: The number of labels.

    Raises:
        ConfigError: `num_classes` is not positive; or the checkpoint has a classifier whose size is unknown.

    Example:
        >>> plan_load(return_features_only=False, num_classes=10, has_weights=True, has_head=True).head
        'new'
    """
    if num_classes is not None:
        whole = isinstance(num_classes, Integral) and not isinstance(num_classes, bool)
        if not whole or num_classes < 1:
            raise ConfigError(f"num_classes must be a whole number and at least 1, not {num_classes}.")
    if return_features_only:
        return LoadPlan(True, None, "none", has_weights, attach_labels=False)
    if num_classes is not None:
        return LoadPlan(False, num_classes, "new", has_weights, attach_labels=False)
    if has_weights and has_head:
        classes = next((n for n in (head_classes, card_classes, label_classes) if n is not None), None)
        if classes is None:
            raise ConfigError(
                "The checkpoint has a classifier, but neither it nor the card nor its labels say of how many "
                "classes. Pass num_classes=... for a new one, or return_features_only=True."
            )
        return LoadPlan(False, classes, "checkpoint", weights=True, attach_labels=True)
    return LoadPlan(True, None, "none", has_weights, attach_labels=False)
