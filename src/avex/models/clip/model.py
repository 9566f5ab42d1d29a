"""CLIP for sound: audio and text in one space of embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avex.configs import AudioConfig
from avex.frontends.effnet import EfficientNetFrontEnd
from avex.models.base_model import ModelBase
from avex.models.clip.checkpoint import ADAPTERS, ROBERTA_ADAPTERS
from avex.models.clip.config import RobertaConfig
from avex.models.clip.text import TextEncoder, tokens_of
from avex.models.efficientnet.config import EfficientNetConfig
from avex.models.efficientnet.network import EfficientNet
from avex.models.features import Features, TokenLayout
from avex.weights import LoadReport, apply_state, choose_adapter, read_checkpoint

_MAX_LOG_SCALE = math.log(100)

Text = str | Sequence[str] | Mapping[str, Tensor] | Tensor


class Clip(ModelBase):
    """An EfficientNet for sounds and a RoBERTa for texts whose embeddings can be compared.

    Both towers end in a projection to vectors of length 1. Text is given as strings, for which a RoBERTa needs the
    extra `text`, or as token numbers. In features mode there is an audio tower only.

    Args:
        device: Where the model lives.
        audio_config: Settings of the spectrogram; None takes the defaults of `AudioConfig`.
        return_features_only: Build the audio tower and its projection only.
        text_model_name: `roberta-base`, `roberta-large` or `distilroberta-base`; or `bytes-small`, which reads
            bytes, has no published weights and needs nothing installed.
        projection_dim: Length of the joint embeddings.
        temperature: Start of the temperature that similarities are divided by.
        efficientnet_variant: `b0` or `b1`.

    Raises:
        ConfigError: Unknown variant or text model, or `representation='raw'`.

    Source:
        Radford et al. (2021), https://arxiv.org/abs/2103.00020.

    Example:
        >>> model = Clip(return_features_only=True).eval()
        >>> model(torch.zeros(2, 16000)).shape
        torch.Size([2, 512])
    """

    name = "clip"
    checkpoint_adapters = ADAPTERS
    # What features mode goes without, as other models go without their classifier.
    head_prefixes = ("text_encoder.", "text_projection.", "logit_scale")
    layout = TokenLayout("vector")

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        return_features_only: bool = False,
        text_model_name: str = "roberta-base",
        projection_dim: int = 512,
        temperature: float = 0.07,
        efficientnet_variant: str = "b0",
    ) -> None:
        super().__init__(device, audio_config or AudioConfig(), return_features_only)
        assert self.audio_config is not None
        audio, text = EfficientNetConfig.named(efficientnet_variant), RobertaConfig.named(text_model_name)
        self.text_model_name = text_model_name
        self.low_precision_ok = efficientnet_variant == "b0"
        self.frontend = EfficientNetFrontEnd(self.audio_config)
        self.backbone = EfficientNet(audio)
        self.audio_projection = _projection(audio.embedding_dim, projection_dim)
        self._projection_dim = projection_dim
        if not return_features_only:
            self.text_encoder = TextEncoder(text)
            self.text_projection = _projection(text.dim, projection_dim)
            self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        self.to(device)

    def forward(  # type: ignore[override]
        self, x: Tensor, text: Text | None = None, padding_mask: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Embed sounds and, if given, texts.

        Args:
            x: (B, S) waveforms at `sample_rate`.
            text: Strings or tokens of N texts, or None.
            padding_mask: Ignored, as in EfficientNet.

        Returns:
            Without text the audio embeddings (B, D); with text those, the text embeddings (N, D), both of
            length 1, and the scalar that their products are to be multiplied by.

        Raises:
            ValueError: Text is given in features mode, or a clip is too short.
            MissingExtraError: Strings are given and `transformers` is not installed.
        """
        audio = self.encode_audio(x)
        return audio if text is None else (audio, self.encode_text(text), self.scale())

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Audio embeddings (B, D) of waveforms (B, S); `padding_mask` is ignored."""
        return Features(self.encode_audio(x), self.layout)

    def encode_audio(self, x: Tensor) -> Tensor:
        """Embeddings (B, D), each of length 1, of waveforms (B, S) at `sample_rate`."""
        image, _ = self.frontend(x)
        return F.normalize(self.audio_projection(self.backbone(image).mean((2, 3))), dim=-1)

    def encode_text(self, text: Text) -> Tensor:
        """Embeddings (N, D), each of length 1, of N texts or of their tokens (N, L).

        Raises:
            ValueError: In features mode.
            MissingExtraError: Strings are given and `transformers` is not installed.
        """
        if self.return_features_only:
            raise ValueError(
                "This CLIP model was loaded without its text tower. Load a checkpoint without "
                "return_features_only=True, or build an untrained model with build_model('clip')."
            )
        tokens = tokens_of(text, self.text_model_name, self.text_encoder.config)
        vectors = self.text_encoder(*(tokens[key].to(self.device) for key in ("input_ids", "attention_mask")))
        return F.normalize(self.text_projection(vectors[:, 0]), dim=-1)

    def scale(self) -> Tensor:
        """What products of embeddings are multiplied by: 1 / temperature, at most 100."""
        if self.training:
            # Cut the parameter itself: behind a clamp its gradient would be zero for ever.
            with torch.no_grad():
                self.logit_scale.clamp_(max=_MAX_LOG_SCALE)
        return self.logit_scale.clamp(max=_MAX_LOG_SCALE).exp()

    def get_embedding_dim(self) -> int:
        """Length of the joint embeddings."""
        return self._projection_dim

    def get_model_layers(self) -> list[str]:
        """First convolution, blocks and last convolution of the audio tower, and its projection."""
        return [*(f"backbone.{name}" for name in self.backbone.block_names()), "audio_projection"]

    def enable_gradient_checkpointing(self) -> None:
        """Compute the inside of both towers' blocks again in the backward pass instead of keeping it."""
        self.backbone.enable_gradient_checkpointing()
        if not self.return_features_only:
            self.text_encoder.checkpointing = True

    def load_text_weights(self, path: str | Path) -> LoadReport:
        """Load a published RoBERTa into the text tower, to start training from.

        Args:
            path: `model.safetensors` or `pytorch_model.bin` of a Hugging Face RoBERTa of the same size.

        Raises:
            WeightsError: The file does not fit.
        """
        state = read_checkpoint(path).tensors
        adapter = choose_adapter(list(ROBERTA_ADAPTERS), set(state), path, self.text_model_name)
        return apply_state(self.text_encoder, adapter.convert(state), source=str(path))


def _projection(in_dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, out_dim), nn.ReLU(), nn.Linear(out_dim, out_dim))
