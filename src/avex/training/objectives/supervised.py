"""Training a classifier, and with it the encoder below."""

from __future__ import annotations

from torch import Tensor

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.training.objectives.base import Batch, LossOutput, Objective, detached, required, waveform_of
from avex.training.objectives.losses import ClassificationLoss


class SupervisedObjective(Objective):
    """Make a model's logits fit labels.

    Args:
        model: A model with a classifier.
        loss: `cross_entropy`, `bce` or `focal`; see `ClassificationLoss` for this and the following.
        label_smoothing: Share of every label that is spread evenly.
        class_weights: (C,), factor on each class.
        focal_gamma: How much confident right answers lose in weight.
        focal_alpha: Weight of positive labels.

    Raises:
        ConfigError: The model has no classifier, or a setting is out of range.

    Example:
        >>> import torch
        >>> from avex.testing import tiny_model
        >>> objective = SupervisedObjective(tiny_model("eat", num_classes=3))
        >>> batch = {"raw_wav": torch.zeros(2, 16000), "label": torch.tensor([0, 2])}
        >>> objective(batch).outputs["logits"].shape
        torch.Size([2, 3])
    """

    name = "supervised"

    def __init__(
        self,
        model: ModelBase,
        loss: str = "cross_entropy",
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
        focal_gamma: float = 2.0,
        focal_alpha: float | None = None,
    ) -> None:
        super().__init__(model)
        if model.return_features_only:
            raise ConfigError(
                "Supervised training needs a classifier: build the model with num_classes=... ."
            )
        self.loss = ClassificationLoss(
            loss,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            focal_gamma=focal_gamma,
            focal_alpha=focal_alpha,
        ).to(model.device)

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S) with `label` (B,) int or (B, C) float; logs `accuracy` for class numbers.

        Returns:
            `outputs` has `logits` (B, C) and `targets`.
        """
        waveform, padding = waveform_of(batch)
        target = required(batch, "label", self.name)
        logits = self.model(waveform, padding_mask=padding)
        loss = self.loss(logits, target)
        logs = {"loss": loss}
        if self.loss.loss == "cross_entropy":
            best = target if target.ndim == 1 else target.argmax(1)
            logs["accuracy"] = (logits.argmax(1) == best).float().mean()
        return LossOutput(loss, detached(**logs), detached(logits=logits, targets=target))
