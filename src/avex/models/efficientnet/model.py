"""EfficientNet as a model: waveform to log-mel picture to features and logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from avex.configs import AudioConfig
from avex.frontends.effnet import EfficientNetFrontEnd
from avex.models.base_model import ModelBase
from avex.models.efficientnet.checkpoint import ADAPTERS, infer_variant
from avex.models.efficientnet.config import EfficientNetConfig
from avex.models.efficientnet.network import EfficientNet
from avex.models.features import Features, TokenLayout

_DOWNSAMPLING = 32


class EfficientNetModel(ModelBase):
    """EfficientNet-B0 or B1 on a spectrogram, supervised on animal sounds (ESP-AVES2) or ImageNet.

    Features are a map (B, 1280, F, T): the picture's bands and frames, both divided by 32 and rounded up (four
    bands, and for ten seconds 32 steps, with the published settings). Each clip is scaled to [0, 1] by its own
    extremes, so that padding changes all of its features; there is nothing a padding mask could leave out, and
    it is ignored. Give clips of equal length.

    Args:
        device: Where the model lives.
        audio_config: Settings of the spectrogram; None takes the defaults of `AudioConfig`.
        num_classes: Size of a linear classifier on the mean of the map; None for features.
        return_features_only: `forward` returns the map; no classifier is built.
        efficientnet_variant: `b0` or `b1`.

    Raises:
        ConfigError: Unknown variant, or `representation='raw'`.

    Source:
        Tan and Le (2019), https://arxiv.org/abs/1905.11946; Miron et al. (2025),
        https://arxiv.org/abs/2508.11845.

    Example:
        >>> audio = AudioConfig(n_fft=800, hop_length=160)
        >>> model = EfficientNetModel(audio_config=audio, return_features_only=True).eval()
        >>> model(torch.zeros(1, 16000)).shape
        torch.Size([1, 1280, 4, 4])
    """

    name = "efficientnet"
    checkpoint_adapters = ADAPTERS

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        efficientnet_variant: str = "b0",
    ) -> None:
        super().__init__(device, audio_config or AudioConfig(), return_features_only or num_classes is None)
        assert self.audio_config is not None
        config = EfficientNetConfig.named(efficientnet_variant)
        self.efficientnet_variant = efficientnet_variant
        self.low_precision_ok = efficientnet_variant == "b0"
        self.frontend = EfficientNetFrontEnd(self.audio_config)
        self.backbone = EfficientNet(config)
        self.layout = TokenLayout("map", frame_rate=self.frontend.frame_rate / _DOWNSAMPLING)
        self._embedding_dim = config.embedding_dim
        if not self.return_features_only and num_classes is not None:
            self.dropout = nn.Dropout(config.dropout)
            self.classifier = nn.Linear(config.embedding_dim, num_classes)
        self.to(device)

    @classmethod
    def options_from_checkpoint(cls, metadata: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Any]:
        """Return the variant that a checkpoint's tensors belong to, if it is a known one."""
        variant = infer_variant(state)
        return {} if variant is None else {"efficientnet_variant": variant}

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Feature map (B, 1280, F, T) of waveforms (B, S); `padding_mask` is ignored.

        Raises:
            ValueError: A clip is shorter than half an FFT.
        """
        image, _ = self.frontend(x)
        return Features(self.backbone(image), self.layout)

    def forward_head(self, features: Features) -> Tensor:
        """Logits (B, C) of the mean over the map."""
        if self.return_features_only:
            return super().forward_head(features)
        return self.classifier(self.dropout(features.pooled("mean")))

    def get_embedding_dim(self) -> int:
        """1280."""
        return self._embedding_dim

    def get_model_layers(self) -> list[str]:
        """The first convolution, every block, and the last convolution."""
        return [f"backbone.{name}" for name in self.backbone.block_names()]

    def resolve_layers(self, layers: Sequence[str | int]) -> list[str]:
        """Turn layer selectors into names; `model.features...` and `model.avgpool` of published recipes too."""
        return super().resolve_layers([_current_name(layer) for layer in layers])

    def enable_gradient_checkpointing(self) -> None:
        """Compute the inside of blocks again in the backward pass instead of keeping it."""
        self.backbone.enable_gradient_checkpointing()


def _current_name(layer: str | int) -> str | int:
    if layer == "model.avgpool":  # the pooled last layer
        return "last_layer"
    if isinstance(layer, str) and layer.startswith("model.features"):
        return "backbone" + layer.removeprefix("model")
    return layer
