"""Losses on logits: targets as class numbers, several labels, or the soft labels of mixed clips."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean

LossName = Literal["cross_entropy", "bce", "focal"]
# The names in configurations, and other names that they have.
LOSSES: dict[str, LossName] = {
    "cross_entropy": "cross_entropy",
    "ce": "cross_entropy",
    "bce": "bce",
    "binary_cross_entropy": "bce",
    "binary_cross_entropy_with_logits": "bce",
    "bce_with_logits": "bce",
    "focal": "focal",
    "focal_loss": "focal",
}


class ClassificationLoss(nn.Module):
    """Cross-entropy over classes, or binary cross-entropy or focal loss of each class on its own.

    Class numbers (B,) and rows of labels (B, C) between 0 and 1 are both understood. For `cross_entropy` a row is a
    distribution: it is divided by its sum, so that two labels count half each; a row without labels costs
    nothing. For `bce` and `focal` each entry is a label of its own, soft ones included.

    Args:
        loss: `cross_entropy`, `bce` or `focal`, or another name in `LOSSES`.
        label_smoothing: Share of every label that is spread evenly: over the classes for `cross_entropy`, over yes
            and no for the others.
        class_weights: (C,), factor on each class.
        focal_gamma: How much confident right answers lose in weight.
        focal_alpha: Weight of positive labels, with `1 - alpha` for negative ones; None for none.

    Raises:
        UnknownNameError: No such loss.
        ConfigError: A setting out of range.

    Source:
        Lin et al. (2017), https://arxiv.org/abs/1708.02002 (focal); Szegedy et al. (2016),
        https://arxiv.org/abs/1512.00567 (smoothing).

    Example:
        >>> ClassificationLoss("cross_entropy")(torch.zeros(2, 4), torch.tensor([0, 3]))
        tensor(1.3863)
    """

    class_weights: Tensor | None

    def __init__(
        self,
        loss: str = "cross_entropy",
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        focal_gamma: float = 2.0,
        focal_alpha: float | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise UnknownNameError(
                f"Unknown loss '{loss}'.{did_you_mean(loss, LOSSES)} Choose {', '.join(sorted(LOSSES))}."
            )
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing must lie in [0, 1), not {label_smoothing}.")
        if focal_gamma < 0 or (focal_alpha is not None and not 0 <= focal_alpha <= 1):
            raise ConfigError("focal_gamma must not be negative, and focal_alpha must lie in [0, 1].")
        self.loss = LOSSES[loss]
        self.label_smoothing = label_smoothing
        self.gamma = focal_gamma
        self.alpha = focal_alpha
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean loss of a batch.

        Args:
            logits: (B, C).
            target: (B,) int, or (B, C) float.

        Raises:
            ConfigError: The target or the class weights do not fit the logits.
        """
        logits = logits.float()
        self._check(logits, target)
        if self.loss == "cross_entropy":
            if target.ndim == 2:
                target = target.float()
                target = target / target.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
            return functional.cross_entropy(
                logits, target, weight=self.class_weights, label_smoothing=self.label_smoothing
            )
        return self._binary(logits, as_rows(target, logits.shape[1]))

    def total_weight(self, target: Tensor) -> float:
        """What the mean of `forward` divides by: the means of two batches make that of both with these weights."""
        if self.loss == "cross_entropy" and target.ndim == 1 and self.class_weights is not None:
            return float(self.class_weights[target].sum())
        return float(len(target))

    def _binary(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target * (1.0 - self.label_smoothing) + 0.5 * self.label_smoothing
        loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        if self.loss == "focal":
            right = logits.sigmoid() * target + (1.0 - logits.sigmoid()) * (1.0 - target)
            loss = loss * (1.0 - right) ** self.gamma
            if self.alpha is not None:
                loss = loss * (self.alpha * target + (1.0 - self.alpha) * (1.0 - target))
        return (loss if self.class_weights is None else loss * self.class_weights).mean()

    def _check(self, logits: Tensor, target: Tensor) -> None:
        classes = logits.shape[1]
        if target.shape not in (logits.shape[:1], logits.shape):
            raise ConfigError(
                f"Labels of shape {tuple(target.shape)} do not fit logits of shape {tuple(logits.shape)}: class "
                f"numbers ({len(logits)},) or rows ({len(logits)}, {classes}) are expected."
            )
        if target.ndim == 1 and target.is_floating_point():
            raise ConfigError("Labels (B,) are class numbers, hence integers; these are floats.")
        if self.class_weights is not None and self.class_weights.shape != (classes,):
            raise ConfigError(
                f"{tuple(self.class_weights.shape)} class weights do not fit a classifier of {classes} classes."
            )


def as_rows(target: Tensor, classes: int) -> Tensor:
    """Class numbers (B,) as rows (B, C) float; rows stay as they are."""
    return functional.one_hot(target, classes).float() if target.ndim == 1 else target.float()
