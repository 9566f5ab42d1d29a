"""Masked autoencoding of spectrograms (Audio-MAE, Bird-MAE)."""

from __future__ import annotations

import torch

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.models.birdmae.model import BirdMae
from avex.models.birdmae.pretraining import MaeDecoder, MaePretrainingConfig, encode_visible, patches_of
from avex.nn.masking import random_mask, visible_places
from avex.training.objectives.base import (
    Batch,
    LossOutput,
    Objective,
    detached,
    masked_mean,
    require_family,
    waveform_of,
)


class MaeObjective(Objective):
    """Reconstruct the hidden patches of a spectrogram from the visible quarter.

    The loss is the mean squared difference over hidden patches only. The norm in front of the classifier
    (`fc_norm`) takes no part and is left as it is, as in the published checkpoints of the pre-training.

    Args:
        model: A `BirdMae` without classifier.
        config: Settings.
        generator: Source of the masks; None for torch's own, which a checkpoint of the training keeps.

    Raises:
        ConfigError: Another family, or a classifier, which would stay as it is.

    Source:
        Huang et al. (2022), https://arxiv.org/abs/2207.06405; Rauch et al. (2025),
        https://arxiv.org/abs/2504.12880.

    Example:
        >>> from avex.testing import tiny_model
        >>> settings = MaePretrainingConfig(decoder_dim=16, decoder_layers=2, decoder_heads=2)
        >>> objective = MaeObjective(tiny_model("birdmae", num_classes=None), settings)
        >>> objective({"raw_wav": torch.randn(2, 32000)}).loss.ndim
        0
    """

    name = "mae"
    layout = "pretraining"
    model: BirdMae

    def __init__(
        self,
        model: ModelBase,
        config: MaePretrainingConfig | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        require_family(model, BirdMae, self.name)
        if not model.return_features_only:
            raise ConfigError("A masked autoencoder has no classifier: pass return_features_only=True.")
        super().__init__(model)
        self.config = config or MaePretrainingConfig()
        self.generator = generator
        self.decoder = MaeDecoder(self.model.config.embed_dim, self.config).to(model.device)
        # It would be a parameter without gradient, which data parallelism refuses.
        self.model.backbone.fc_norm.requires_grad_(False)

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S); padding is heard as silence."""
        frames, _ = self.model.frontend(waveform_of(batch)[0])
        target = patches_of(frames, normalise=self.config.normalise_patches)
        mask = random_mask(len(frames), target.shape[1], self.config.mask_ratio, generator=self.generator)
        places, mask = visible_places(mask).to(frames.device), mask.to(frames.device)
        tokens = encode_visible(self.model.backbone, frames, places)
        guess = self.decoder(tokens[:, 1:], places).float()
        loss = masked_mean((guess - target).square().mean(-1), mask)
        return LossOutput(loss, detached(loss=loss))

    def export(self) -> ModelBase:
        """A copy of the encoder in eval mode on the CPU, ready to be fine-tuned."""
        model = super().export()
        assert isinstance(model, BirdMae)
        model.backbone.fc_norm.requires_grad_(True)
        return model
