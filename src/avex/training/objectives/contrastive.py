"""Contrastive training of sounds and texts (CLIP, CLAP)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.models.clip.model import Clip
from avex.training.objectives.base import (
    Batch,
    LossOutput,
    Objective,
    detached,
    require_family,
    required,
    waveform_of,
)
from avex.training.objectives.gathering import gather_with_gradient, world
from avex.weights import WeightSource


def contrastive_loss(audio: Tensor, text: Tensor, scale: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Symmetric cross-entropy of matching each sound with its text among the texts of all processes, and back.

    Each process scores its own rows against everybody's, which takes (B, processes * B) numbers, not the square
    of all.

    Args:
        audio: (B, D) embeddings of length 1.
        text: (B, D) of their texts.
        scale: Scalar, 1 / temperature.

    Returns:
        The loss, and the shares of this process's sounds and texts that found their partner, `acc_a2t` and
        `acc_t2a`.

    Raises:
        ConfigError: There are not as many texts as sounds, or processes have batches of different sizes.

    Source:
        Radford et al. (2021), https://arxiv.org/abs/2103.00020, section 2.3.

    Example:
        >>> loss, logs = contrastive_loss(torch.eye(3), torch.eye(3), torch.tensor(100.0))
        >>> round(loss.item(), 3), logs["acc_a2t"].item()
        (0.0, 1.0)
    """
    if audio.shape != text.shape:
        raise ConfigError(f"{len(audio)} sounds need as many texts, not {len(text)}.")
    audio, text = audio.float(), text.float()
    all_audio, all_text = gather_with_gradient(audio), gather_with_gradient(text)
    a2t, t2a = scale * audio @ all_text.t(), scale * text @ all_audio.t()
    own = torch.arange(len(audio), device=audio.device) + world()[0] * len(audio)
    loss = (functional.cross_entropy(a2t, own) + functional.cross_entropy(t2a, own)) / 2
    return loss, {
        "acc_a2t": (a2t.argmax(1) == own).float().mean(),
        "acc_t2a": (t2a.argmax(1) == own).float().mean(),
    }


class ContrastiveObjective(Objective):
    """Bring sounds and their texts together, and others apart.

    The temperature is learned. The batch is that of all processes together; gradients are those of one process with
    the whole batch.

    Args:
        model: A `Clip` with both towers.
        freeze_text: Leave the text tower as it is and train its projection only.
        text_weights: Path or URI of a published RoBERTa for the text tower to start from, such as
            `hf://FacebookAI/roberta-base/model.safetensors`; None takes the tower as it is.

    Raises:
        ConfigError: Another model, or one without its text tower.
        WeightsError: `text_weights` do not fit the tower.

    Source:
        Radford et al. (2021), https://arxiv.org/abs/2103.00020; Elizalde et al. (2022),
        https://arxiv.org/abs/2206.04769.

    Example:
        >>> ContrastiveObjective(load_model("clip", text_model_name="roberta-base"))   # doctest: +SKIP
    """

    name = "contrastive"
    model: Clip

    def __init__(
        self, model: ModelBase, *, freeze_text: bool = False, text_weights: str | Path | None = None
    ) -> None:
        require_family(model, Clip, self.name)
        if model.return_features_only:
            raise ConfigError("Contrastive training needs a CLIP model with its text tower.")
        super().__init__(model)
        if text_weights is not None:
            self.model.load_text_weights(WeightSource(str(text_weights)).fetch())
        self.freeze_text = freeze_text
        if freeze_text:
            self.model.text_encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> ContrastiveObjective:
        """Set training mode; a frozen text tower stays in eval mode, without dropout."""
        super().train(mode)
        if self.freeze_text:
            self.model.text_encoder.eval()
        return self

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S) with `text`, B strings or their tokens.

        Returns:
            `logs` has `acc_a2t`, `acc_t2a` and `temperature`; `outputs` the embeddings `audio` and `text`.
        """
        waveform, padding = waveform_of(batch)
        audio, text, scale = self.model(
            waveform, text=required(batch, "text", self.name), padding_mask=padding
        )
        loss, accuracies = contrastive_loss(audio, text, scale)
        logs = {"loss": loss, **accuracies, "temperature": 1.0 / scale}
        return LossOutput(loss, detached(**logs), detached(audio=audio, text=text))
