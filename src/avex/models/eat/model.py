"""EAT as a model: waveform to tokens, embedding or logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.eat import EatFrontEnd
from avex.frontends.masks import frame_mask_to_patch_mask
from avex.models.base_model import ModelBase
from avex.models.eat.checkpoint import ADAPTERS, config_of
from avex.models.eat.config import FREQ_BINS, PATCH_SIZE, EatConfig
from avex.models.eat.network import EatBackbone
from avex.models.features import Features, TokenLayout

SAMPLE_RATE = 16000
_WINDOW = AudioConfig(
    sample_rate=SAMPLE_RATE, representation="raw", normalize=False, target_length_seconds=10
)


class Eat(ModelBase):
    """EAT, the efficient audio transformer.

    Features are (B, 513, C) whatever the length of the clip: the CLS token, then 64 steps of 160 ms with 8
    frequency bands each. A clip is padded with silence or cut to 1024 frames (10.24 s) before its spectrogram is
    normalised, so that padding takes part like sound unless `mask_padding` is set.

    Args:
        device: Where the model lives.
        audio_config: Must say 16 kHz if given.
        num_classes: Size of the classifier.
        return_features_only: No classifier; `forward` returns the tokens.
        model_id: Published model whose sizes to take, such as `worstchan/EAT-base_epoch30_pretrain`.
        eat_cfg: Fields of `EatConfig`.
        eat_norm_mean: Mean of the log-mel values; AudioSet's if None.
        eat_norm_std: Their standard deviation; AudioSet's if None.
        target_length: Frames that a clip is padded or cut to.
        pooling: What the classifier reads: the `cls` token (default), or the `mean` of all 513.
        mask_padding: Leave tokens of padding out of attention and pooling (the reference does not).
        handle_padding: Older name of `mask_padding`.
        pretraining_mode: Must not be True: this class encodes.
        checkpoint_config: Sizes that a checkpoint states; filled in by `load_model`.

    Raises:
        ConfigError: Another sample rate than 16 kHz, an unknown setting, or sizes that do not fit together.

    Source:
        Chen et al. (2024), https://arxiv.org/abs/2401.03497.

    Example:
        >>> model = load_model("eat", num_classes=10)                      # doctest: +SKIP
        >>> model(torch.zeros(1, 80000)).shape
        torch.Size([1, 10])
    """

    name = "eat_hf"
    layout = TokenLayout(
        "tokens", num_prefix_tokens=1, freq_bins=FREQ_BINS, order="time", frame_rate=100 / PATCH_SIZE
    )
    checkpoint_adapters = ADAPTERS

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        *,
        model_id: str | None = None,
        eat_cfg: Mapping[str, Any] | None = None,
        eat_norm_mean: float | None = None,
        eat_norm_std: float | None = None,
        target_length: int | None = None,
        pooling: Literal["cls", "mean"] | None = None,
        mask_padding: bool | None = None,
        handle_padding: bool | None = None,
        pretraining_mode: bool | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(device, audio_config or _WINDOW, return_features_only)
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"EAT takes audio at {SAMPLE_RATE} Hz, not {self.sample_rate} Hz.")
        if pretraining_mode:
            raise ConfigError("EAT is here an encoder; it cannot be built with pretraining_mode=True.")
        self.config = EatConfig.from_options(
            model_id,
            checkpoint_config,
            eat_cfg,
            norm_mean=eat_norm_mean,
            norm_std=eat_norm_std,
            target_length=target_length,
            pooling=pooling,
            mask_padding=handle_padding if mask_padding is None else mask_padding,
        )
        self.padding_rule = "masked" if self.config.mask_padding else "none"
        self.frontend = EatFrontEnd(
            norm_mean=self.config.norm_mean,
            norm_std=self.config.norm_std,
            target_length=self.config.target_length,
            mask_padding=self.config.mask_padding,
        )
        self.backbone = EatBackbone(self.config)
        if num_classes and not return_features_only:
            self.classifier = nn.Linear(self.config.embed_dim, num_classes)
        self.to(device)

    @classmethod
    def options_from_checkpoint(cls, metadata: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
        """Constructor options that a checkpoint states of itself."""
        return {"checkpoint_config": config_of(metadata, state)}

    def get_embedding_dim(self) -> int:
        """Length of a token: 768 for the base model."""
        return self.config.embed_dim

    def get_model_layers(self) -> list[str]:
        """What enters the first block, then the output of every block."""
        return ["backbone.pre_norm", *(f"backbone.blocks.{i}" for i in range(self.config.depth))]

    def enable_gradient_checkpointing(self) -> None:
        """In training, keep only what enters each block and compute the rest again in the backward pass."""
        self.backbone.blocks.gradient_checkpointing = True

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Tokens of a waveform.

        Args:
            x: (B, S) at 16 kHz, at least 400 samples (25 ms).
            padding_mask: (B, S) bool, True where padded; ignored unless the model was built with
                `mask_padding`, as in the reference.

        Returns:
            (B, 513, C).

        Raises:
            ValueError: The clip is shorter than one frame.
        """
        frames, frame_mask = self.frontend(x, padding_mask)
        padding = None
        if frame_mask is not None:
            padding = frame_mask_to_patch_mask(
                frame_mask, patch_size_time=PATCH_SIZE, n_freq_bins=frames.shape[-1]
            )
        return Features(self.backbone(frames, padding), self.layout, padding)

    def forward_head(self, features: Features) -> Tensor:
        """Logits (B, classes) of the CLS token, or of the mean over all tokens, CLS included."""
        if self.config.pooling == "cls":
            pooled = features.pooled("cls_token")
        else:
            mask = features.padding_mask
            mask = mask if mask is None else nn.functional.pad(mask, (1, 0), value=False)
            pooled = Features(features.values, TokenLayout("tokens"), mask).pooled("mean")
        if self.config.head_norm:
            pooled = self.backbone.fc_norm(pooled)
        return super().forward_head(Features(pooled, TokenLayout("vector")))
