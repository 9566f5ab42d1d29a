"""Distillation: a smaller encoder learns the features of a larger one."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.training.objectives.base import Batch, LossOutput, Objective, detached, waveform_of

Distance = Literal["cosine", "mse", "smooth_l1"]
What = Literal["embedding", "sequence"]


class DistillationObjective(Objective):
    """Make a student's features, mapped linearly, equal to a teacher's.

    Teacher features are layer-normalised for `mse` and `smooth_l1`, so that channels of large values do not
    outweigh the rest. Time steps are interpolated where the two count them differently.

    Args:
        model: The student.
        teacher: The teacher, at the student's sample rate; never changed, and not part of what `export` gives.
        what: `embedding`: the mean over time; `sequence`: every time step.
        distance: `cosine`, `mse` or `smooth_l1`.

    Raises:
        ConfigError: Different sample rates, or an unknown choice.

    Source:
        Romero et al. (2015), https://arxiv.org/abs/1412.6550 (features through a learned map).

    Example:
        >>> from avex.testing import tiny_model
        >>> student, teacher = (tiny_model(f, num_classes=None) for f in ("eat", "beats"))
        >>> DistillationObjective(student, teacher)({"raw_wav": torch.randn(2, 16000)}).loss.ndim
        0
    """

    name = "distillation"

    def __init__(
        self,
        model: ModelBase,
        teacher: ModelBase,
        *,
        what: What = "embedding",
        distance: Distance = "cosine",
    ) -> None:
        super().__init__(model)
        if what not in get_args(What) or distance not in get_args(Distance):
            raise ConfigError(
                f"Distillation of '{what}' by '{distance}': choose what from {', '.join(get_args(What))} and "
                f"distance from {', '.join(get_args(Distance))}."
            )
        if model.sample_rate != teacher.sample_rate:
            raise ConfigError(
                f"The student hears {model.sample_rate} Hz and the teacher {teacher.sample_rate} Hz; give both one "
                "rate, because a batch has one."
            )
        self.teacher = teacher.requires_grad_(False).eval()
        self.what = what
        self.distance = distance
        own, other = (self._probe(part).shape[-1] for part in (model, teacher))
        self.proj = nn.Linear(own, other, device=model.device)

    def train(self, mode: bool = True) -> DistillationObjective:
        """Set training mode; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S)."""
        waveform, padding = waveform_of(batch)
        with torch.no_grad():
            target = self._read(self.teacher.forward_features(waveform, padding)).float()
        own = self._read(self.model.forward_features(waveform, padding))
        if own.ndim == 3 and own.shape[1] != target.shape[1]:
            own = functional.interpolate(own.transpose(1, 2), target.shape[1], mode="linear").transpose(1, 2)
        guess = self.proj(own).float()
        cosine = functional.cosine_similarity(guess, target, dim=-1).mean()
        loss = 1.0 - cosine if self.distance == "cosine" else self._difference(guess, target)
        return LossOutput(loss, detached(loss=loss, cosine=cosine))

    def _difference(self, guess: Tensor, target: Tensor) -> Tensor:
        target = functional.layer_norm(target, target.shape[-1:])
        function = functional.mse_loss if self.distance == "mse" else functional.smooth_l1_loss
        return function(guess, target)

    def _read(self, features: Features) -> Tensor:
        return features.pooled("mean") if self.what == "embedding" else features.sequence()

    def _probe(self, model: ModelBase) -> Tensor:
        """Features of a window of silence, for their shape."""
        was_training = model.training
        seconds = model.window_seconds or 1.0
        silence = torch.zeros(1, round(seconds * model.sample_rate), device=model.device)
        with torch.no_grad():
            features = self._read(model.eval().forward_features(silence))
        model.train(was_training)
        return features
