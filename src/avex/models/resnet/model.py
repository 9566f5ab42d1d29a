"""ResNets as models: waveform to log-mel picture to features and logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.resnet import ResNetFrontEnd
from avex.models.base_model import ModelBase
from avex.models.features import Features, TokenLayout
from avex.models.resnet.checkpoint import ADAPTERS
from avex.models.resnet.config import ResNetConfig
from avex.models.resnet.network import ResNet

_DOWNSAMPLING = 32


class ResNet18(ModelBase):
    """A ResNet on a spectrogram; ResNet-18 unless `variant` says otherwise.

    Features are a map (B, 512 or 2048, F, T): the picture's bands and frames, both divided by 32 and rounded
    up. Each clip is scaled by its own extremes, so that padding changes all of its features; there is nothing a
    padding mask could leave out, and it is ignored. Give clips of equal length.

    Args:
        device: Where the model lives.
        audio_config: Settings of the spectrogram; None takes the defaults of `AudioConfig`.
        num_classes: Size of a linear classifier on the mean of the map; None for features.
        return_features_only: `forward` returns the map; no classifier is built.
        variant: `resnet18`, `resnet34`, `resnet50`, `resnet101` or `resnet152`.

    Raises:
        ConfigError: Unknown variant, one that contradicts the class, or `representation='raw'`.

    Source:
        He et al. (2016), https://arxiv.org/abs/1512.03385.

    Example:
        >>> audio = AudioConfig(n_fft=800, hop_length=160)
        >>> ResNet18(audio_config=audio, return_features_only=True).eval()(torch.zeros(1, 16000)).shape
        torch.Size([1, 512, 4, 4])
    """

    name = "resnet18"
    checkpoint_adapters = ADAPTERS
    # The family `resnet` is this class, so it is the one that takes any variant.
    fixed_variant: ClassVar[str | None] = None
    low_precision_ok = False  # cosine to float32 down to 0.998

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        variant: str | None = None,
    ) -> None:
        super().__init__(device, audio_config or AudioConfig(), return_features_only or num_classes is None)
        assert self.audio_config is not None
        if variant is not None and self.fixed_variant not in (None, variant):
            raise ConfigError(
                f"Model '{self.name}' cannot be of variant '{variant}'. Use the name 'resnet' with a variant, or "
                f"'{self.name}' without one."
            )
        self.variant = variant or self.fixed_variant or "resnet18"
        config = ResNetConfig.named(self.variant)
        self.frontend = ResNetFrontEnd(self.audio_config)
        self.backbone = ResNet(config)
        self.layout = TokenLayout("map", frame_rate=self.frontend.frame_rate / _DOWNSAMPLING)
        self._embedding_dim = config.embedding_dim
        if not self.return_features_only and num_classes is not None:
            self.classifier = nn.Linear(config.embedding_dim, num_classes)
        self.to(device)

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Feature map (B, C, F, T) of waveforms (B, S); `padding_mask` is ignored.

        Raises:
            ValueError: A clip is shorter than half an FFT.
        """
        image, _ = self.frontend(x)
        return Features(self.backbone(image), self.layout)

    def get_embedding_dim(self) -> int:
        """512 for ResNet-18 and 34, else 2048."""
        return self._embedding_dim

    def get_model_layers(self) -> list[str]:
        """What feeds the first block, and every block."""
        return [f"backbone.{name}" for name in self.backbone.block_names()]

    def enable_gradient_checkpointing(self) -> None:
        """Compute the inside of blocks again in the backward pass instead of keeping it."""
        self.backbone.enable_gradient_checkpointing()


class ResNet50(ResNet18):
    """ResNet-50 on a spectrogram. See `ResNet18`."""

    name = "resnet50"
    fixed_variant = "resnet50"


class ResNet152(ResNet18):
    """ResNet-152 on a spectrogram. See `ResNet18`."""

    name = "resnet152"
    fixed_variant = "resnet152"
