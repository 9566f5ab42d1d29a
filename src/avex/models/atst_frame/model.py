"""ATST-Frame as a model: waveform to frame embeddings, clip embedding or logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.atst import AtstFrontEnd
from avex.models.atst_frame.checkpoint import ADAPTERS, config_of
from avex.models.atst_frame.config import PATCH_FRAMES, AtstFrameConfig
from avex.models.atst_frame.network import CHUNK_TOKENS, AtstFrameBackbone
from avex.models.base_model import ModelBase
from avex.models.features import Features, TokenLayout

SAMPLE_RATE = 16000
_WINDOW = AudioConfig(
    sample_rate=SAMPLE_RATE, representation="raw", normalize=False, target_length_seconds=10
)


class AtstFrame(ModelBase):
    """ATST-Frame.

    Features are (B, N, D), one embedding every 40 ms, made of the outputs of all blocks: D is 4608 for small and
    9216 for base. `forward` of a model without classifier gives their mean, (B, D), as the published interface
    does; `forward_features` and `embed(..., aggregation="none")` give all of them. Clips may have any length from
    513 samples; what is longer than 10 s is seen in chunks of 1001 frames.

    Args:
        device: Where the model lives.
        audio_config: Must say 16 kHz if given.
        num_classes: Size of the classifier.
        return_features_only: No classifier; `forward` returns the mean embedding.
        model_id: `atst_frame_small`, `atst_frame_base` or `atst_frame_large`. Without it the checkpoint's sizes
            count, and without a checkpoint those of small.
        config: Fields of `AtstFrameConfig`.
        checkpoint_config: Sizes that a checkpoint states; filled in by `load_model`.

    Raises:
        ConfigError: Another sample rate than 16 kHz, an unknown setting, or sizes that do not fit together.

    Source:
        Li et al. (2024), https://arxiv.org/abs/2306.04186.

    Example:
        >>> model = load_model("atst", return_features_only=True)          # doctest: +SKIP
        >>> model(torch.zeros(1, 160000)).shape, model.forward_features(torch.zeros(1, 160000)).values.shape
        (torch.Size([1, 4608]), torch.Size([1, 250, 4608]))
    """

    name = "atst_frame"
    layout = TokenLayout("tokens", frame_rate=100 / PATCH_FRAMES)
    checkpoint_adapters = ADAPTERS

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
            raise ConfigError(f"ATST-Frame takes audio at {SAMPLE_RATE} Hz, not {self.sample_rate} Hz.")
        self.config = AtstFrameConfig.from_options(model_id, checkpoint_config, config)
        self.frontend = AtstFrontEnd()
        self.backbone = AtstFrameBackbone(self.config)
        if num_classes and not return_features_only:
            self.classifier = nn.Linear(self.config.embedding_dim, num_classes)
        self.to(device)

    @classmethod
    def options_from_checkpoint(cls, metadata: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
        """Constructor options that a checkpoint states of itself."""
        return {"checkpoint_config": config_of(state)}

    def get_embedding_dim(self) -> int:
        """Length of the embedding: 12 * 384 for small, 12 * 768 for base."""
        return self.config.embedding_dim

    def get_model_layers(self) -> list[str]:
        """What enters the first block, then the output of every block before the norm."""
        return ["backbone.pos_drop", *(f"backbone.blocks.{i}" for i in range(self.config.depth))]

    def enable_gradient_checkpointing(self) -> None:
        """In training, keep only what enters each block and compute the rest again in the backward pass."""
        self.backbone.blocks.gradient_checkpointing = True

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (B, classes), or without a classifier the mean embedding (B, D).

        Args:
            x: (B, S) at 16 kHz.
            padding_mask: Ignored, as in the reference: padding takes part like silence.
        """
        features = self.forward_features(x, padding_mask)
        return features.pooled("mean") if self.return_features_only else self.forward_head(features)

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Embeddings of a waveform, one every 40 ms.

        Args:
            x: (B, S) at 16 kHz, at least 513 samples.
            padding_mask: Ignored, as in the reference.

        Returns:
            (B, N, D).

        Raises:
            ValueError: The clip is shorter than one frame.
        """
        return Features(self.backbone(self.frontend(x)[0]), self.layout)

    def scene_embedding(self, x: Tensor) -> Tensor:
        """Clip embedding as the authors evaluate it: chunks of 10 s count alike, however short the last is.

        Args:
            x: (B, S) at 16 kHz.

        Returns:
            (B, D). Up to 10 s it is the mean over time.
        """
        chunks = self.forward_features(x).values.split(CHUNK_TOKENS, dim=1)
        return torch.stack([chunk.sum(1) / (chunk.shape[1] + 1e-6) for chunk in chunks]).mean(0)
