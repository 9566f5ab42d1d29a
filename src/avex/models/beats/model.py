"""BEATs as a model: filter bank, transformer, classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.beats import BeatsFrontEnd
from avex.frontends.masks import group_padding_mask
from avex.models.base_model import ModelBase
from avex.models.beats.checkpoint import ADAPTERS
from avex.models.beats.config import BeatsConfig, sizes_from_shapes
from avex.models.beats.network import BeatsBackbone
from avex.models.features import Features, TokenLayout


class Beats(ModelBase):
    """BEATs (Bidirectional Encoder representation from Audio Transformers).

    Ten seconds give 62 time steps of 8 frequency bands, hence 496 tokens. With a padding mask, padded tokens
    take part in nothing, and the mean over tokens leaves them out; the mask goes from samples to tokens in the
    way of the published program, which does not follow time exactly (`group_padding_mask`). A front end with
    32 kHz in `audio_config` hears everything an octave lower: one published encoder was trained so.

    Args:
        device: Where the model lives.
        audio_config: `sample_rate` and window length.
        num_classes: Size of the classifier on the mean over tokens; None for none.
        return_features_only: `forward` returns tokens.
        init_config: Settings of the network (`BeatsConfig`).
        use_naturelm: Limit the waveform to [-1, 1], as NatureLM-audio does.
        fine_tuned: Have a `predictor`, as the published fine-tuned weights do.
        disable_layerdrop: Never leave out layers in training.
        checkpoint_config: What a checkpoint states of itself; `load_model` gives it.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058.

    Example:
        >>> model = Beats(init_config={"encoder_layers": 1}, return_features_only=True).eval()
        >>> model(torch.zeros(1, 16000)).shape
        torch.Size([1, 48, 768])
    """

    name = "beats"
    padding_rule = "leaks"  # from the filter bank's groups and the position convolution
    checkpoint_adapters = ADAPTERS

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        init_config: Mapping[str, Any] | None = None,
        use_naturelm: bool = False,
        fine_tuned: bool = False,
        disable_layerdrop: bool = False,
        checkpoint_config: Mapping[str, Any] | None = None,
    ) -> None:
        default = AudioConfig(sample_rate=16000, representation="raw", normalize=False)
        super().__init__(device, audio_config or default, return_features_only)
        options = {"finetuned_model": fine_tuned or use_naturelm, **(init_config or {})}
        if disable_layerdrop:
            options["encoder_layerdrop"] = 0.0
        config = self.config = BeatsConfig.from_options(options, checkpoint_config)
        self.frontend = BeatsFrontEnd(
            self.sample_rate,
            config.sample_frequency,
            num_mel_bins=config.num_mel_bins,
            frame_length=config.frame_length,
            frame_shift=config.frame_shift,
            fbank_mean=config.fbank_mean,
            fbank_std=config.fbank_std,
            clamp=use_naturelm,
        )
        self.backbone = BeatsBackbone(config)
        self.layout = TokenLayout(
            "tokens",
            freq_bins=config.bands,
            order="time",
            frame_rate=self.frontend.frame_rate / config.input_patch_size,
        )
        if num_classes is not None and not return_features_only:
            self.classifier = nn.Linear(config.encoder_embed_dim, num_classes)
        self.to(device)

    @classmethod
    def options_from_checkpoint(
        cls, metadata: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """What a checkpoint says of its own architecture: its `cfg`, and the shapes of its tensors."""
        prefix = "backbone."
        shapes = {
            key.removeprefix(prefix): tensor.shape for key, tensor in state.items() if key.startswith(prefix)
        }
        stated = metadata.get("cfg")
        settings = BeatsConfig.known_fields(stated) if isinstance(stated, Mapping) else {}
        return {"checkpoint_config": {**settings, **sizes_from_shapes(shapes)}}

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a token."""
        frames = self.config.input_patch_size
        return self.frontend.min_samples + (frames - 1) * self.frontend.hop_length

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Tokens of a waveform.

        Args:
            x: (B, S) at `sample_rate`.
            padding_mask: (B, S) bool, True where padded.

        Returns:
            (B, T * bands, C), the bands of one time step next to each other.

        Raises:
            ValueError: The waveform is not (B, S).
            ConfigError: (a `ValueError`) It is too short to give a token.
        """
        if x.ndim == 2 and x.shape[1] < self.min_samples:
            raise ConfigError(
                f"BEATs needs at least {self.min_samples} samples ({self.min_samples / self.sample_rate:g} s at "
                f"{self.sample_rate} Hz), not {x.shape[1]}. Pad the clip, or drop it."
            )
        fbank, frame_mask = self.frontend(x, padding_mask)
        padding = None
        if frame_mask is not None:
            padding = group_padding_mask(frame_mask, self.config.num_tokens(fbank.shape[1]))
        fbank = fbank.to(self.backbone.patch_embedding.weight.dtype)
        return Features(self.backbone(fbank, padding), self.layout, padding)

    def forward_predictor(self, features: Features) -> Tensor:
        """Logits of the classifier that the weights were fine-tuned with: AudioSet's, in the published ones.

        Raises:
            ValueError: There is none.

        Example:
            >>> model.forward_predictor(model.forward_features(audio)).sigmoid()      # doctest: +SKIP
        """
        if self.backbone.predictor is None:
            raise ValueError(
                "This BEATs has no predictor: its weights were not fine-tuned by their authors. Load fine-tuned "
                "ones, or train a classifier with num_classes=... ."
            )
        # Linear, so the mean over tokens may come first.
        return self.backbone.predictor(self.backbone.predictor_dropout(features.pooled("mean")))

    def get_embedding_dim(self) -> int:
        """Length of a token."""
        return self.config.encoder_embed_dim

    def get_model_layers(self) -> list[str]:
        """The input of the first layer, then every layer's output."""
        layers = [f"backbone.encoder.layers.{i}" for i in range(self.config.encoder_layers)]
        return ["backbone.encoder.dropout", *layers]

    def enable_gradient_checkpointing(self) -> None:
        """In training, keep only the inputs of the layers and compute the rest again."""
        self.backbone.encoder.gradient_checkpointing = True
