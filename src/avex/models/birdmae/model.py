"""Bird-MAE as a model: waveform to embedding, tokens or logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.birdmae import BirdMaeFrontEnd
from avex.models.base_model import ModelBase
from avex.models.birdmae.checkpoint import ADAPTERS, config_of
from avex.models.birdmae.config import FREQ_BINS, PATCH_SIZE, BirdMaeConfig
from avex.models.birdmae.network import BirdMaeBackbone
from avex.models.features import Features, TokenLayout

SAMPLE_RATE = 32000
_WINDOW = AudioConfig(sample_rate=SAMPLE_RATE, representation="raw", normalize=False, target_length_seconds=5)
_TOKENS = TokenLayout(
    "tokens", num_prefix_tokens=1, freq_bins=FREQ_BINS, order="time", frame_rate=100 / PATCH_SIZE
)


class BirdMae(ModelBase):
    """Bird-MAE.

    The published model gives one embedding per clip: a norm of the mean over the patches. `forward_tokens` gives
    the tokens behind it. Clips are padded with silence or cut to their first 5 s.

    Args:
        device: Where the model lives.
        audio_config: Must say 32 kHz if given.
        num_classes: Size of the classifier.
        return_features_only: No classifier; `forward` returns the embedding.
        model_id: Published model whose sizes to take, such as `DBD-research-group/Bird-MAE-Base`. Without it the
            checkpoint's sizes count, and without a checkpoint those of Huge.
        config: Fields of `BirdMaeConfig`.
        checkpoint_config: Sizes that a checkpoint states; filled in by `load_model`.

    Raises:
        ConfigError: Another sample rate than 32 kHz, an unknown setting, or sizes that do not fit together.

    Source:
        Rauch et al. (2025), https://arxiv.org/abs/2504.12880.

    Example:
        >>> model = load_model("birdmae_base", return_features_only=True)  # doctest: +SKIP
        >>> model(torch.zeros(1, 160000)).shape  # doctest: +SKIP
        torch.Size([1, 768])
    """

    name = "birdmae"
    layout = TokenLayout("vector")
    token_layout = _TOKENS
    checkpoint_adapters = ADAPTERS
    # Checkpoints of the pre-training have none; the report of loading says so.
    optional_keys = ("backbone.fc_norm.*",)

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        *,
        model_id: str | None = None,
        config: Mapping[str, Any] | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(device, audio_config or _WINDOW, return_features_only)
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"Bird-MAE takes audio at {SAMPLE_RATE} Hz, not {self.sample_rate} Hz.")
        self.config = BirdMaeConfig.from_options(model_id, checkpoint_config, config)
        self.frontend = BirdMaeFrontEnd()
        self.backbone = BirdMaeBackbone(self.config)
        if num_classes and not return_features_only:
            self.classifier = nn.Linear(self.config.embed_dim, num_classes)
        self.to(device)

    @classmethod
    def options_from_checkpoint(cls, metadata: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
        """Constructor options that a checkpoint states of itself."""
        return {"checkpoint_config": config_of(state)}

    def get_embedding_dim(self) -> int:
        """Length of the embedding: 768, 1024 or 1280."""
        return self.config.embed_dim

    def get_model_layers(self) -> list[str]:
        """What enters the first block, then the output of every block."""
        return ["backbone.pos_drop", *(f"backbone.blocks.{i}" for i in range(self.config.depth))]

    def enable_gradient_checkpointing(self) -> None:
        """In training, keep only what enters each block and compute the rest again in the backward pass."""
        self.backbone.blocks.gradient_checkpointing = True

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Embedding of a waveform.

        Args:
            x: (B, S) at 32 kHz; what lies behind the first 160,000 samples is left out.
            padding_mask: Ignored, as in the reference: padding takes part like silence.

        Returns:
            (B, C).
        """
        return Features(self.backbone(self.frontend(x)[0]), self.layout)

    def forward_tokens(self, x: Tensor) -> Features:
        """Normed tokens of a waveform (B, S): (B, 257, C), CLS first, then 32 steps of 160 ms by 8 bands."""
        return Features(self.backbone.tokens(self.frontend(x)[0]), _TOKENS)
