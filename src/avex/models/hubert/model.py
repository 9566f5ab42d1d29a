"""HuBERT as a model: AVES and BirdAVES."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.frontends.base import check_padding_mask, check_waveform
from avex.models.base_model import ModelBase
from avex.models.features import Features, TokenLayout
from avex.models.hubert.checkpoint import ADAPTERS
from avex.models.hubert.config import HubertConfig, read_config, sizes_from_shapes
from avex.models.hubert.network import HubertBackbone
from avex.weights.source import WeightSource

SAMPLE_RATE = 16000


class Hubert(ModelBase):
    """HuBERT on raw 16 kHz audio: AVES (birds and other animals) and BirdAVES.

    Fifty vectors per second. The first convolution is normalised over the whole clip, so padding changes all
    vectors of a clip, whatever is done afterwards: give clips of one length, or one clip at a time. A padding
    mask is ignored, as in the published programs, unless `handle_padding` asks for what torchaudio does with
    lengths: attention and mean then leave out padded frames.

    The ONNX port of AVES is another class with the same name: `load_model("aves", checkpoint_path="x.onnx")` gives
    `avex.models.hubert.graph.HubertGraph`.

    Args:
        device: Where the model lives.
        audio_config: Must say 16 kHz if given.
        num_classes: Size of the classifier on the mean over frames; None for none.
        return_features_only: `forward` returns frames.
        init_config: Settings of the network (`HubertConfig`), such as the content of the JSON beside the weights.
        config_path: That JSON file; `init_config` wins over it.
        handle_padding: Keep padded frames out of attention and mean. The mask must be True at the end only.
        checkpoint_config: What a checkpoint shows of itself; `load_model` gives it.

    Raises:
        ConfigError: Settings that do not fit together, or another sample rate.

    Source:
        Hagiwara (2022), https://arxiv.org/abs/2210.14493; network: Hsu et al. (2021),
        https://arxiv.org/abs/2106.07447.

    Example:
        >>> model = Hubert(init_config={"encoder_num_layers": 1}, return_features_only=True).eval()
        >>> model(torch.zeros(1, 16000)).shape
        torch.Size([1, 49, 768])
    """

    name = "hubert"
    checkpoint_adapters = ADAPTERS

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        init_config: Mapping[str, Any] | None = None,
        config_path: str | Path | None = None,
        handle_padding: bool = False,
        checkpoint_config: Mapping[str, Any] | None = None,
    ) -> None:
        default = AudioConfig(sample_rate=SAMPLE_RATE, representation="raw", normalize=False)
        super().__init__(device, audio_config or default, return_features_only)
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"AVES takes audio at {SAMPLE_RATE} Hz, not {self.sample_rate} Hz.")
        options = {**(read_config(config_path) if config_path else {}), **(init_config or {})}
        config = self.config = HubertConfig.from_options(options, checkpoint_config)
        self.handle_padding = handle_padding
        # The norm after the first convolution sees the whole clip, whatever attention leaves out.
        self.padding_rule = "leaks" if handle_padding else "none"
        self.backbone = HubertBackbone(config)
        self.layout = TokenLayout("tokens", frame_rate=SAMPLE_RATE / config.hop_length)
        if num_classes is not None and not return_features_only:
            self.classifier = nn.Linear(config.encoder_embed_dim, num_classes)
        self.to(device)

    @classmethod
    def for_checkpoint(cls, source: WeightSource) -> type[ModelBase]:
        """The class that takes a weights file: `HubertGraph` for an ONNX graph, by its name or stated format."""
        if source.format != "onnx" and not source.uri.lower().endswith(".onnx"):
            return cls
        from avex.models.hubert.graph import HubertGraph

        return HubertGraph

    @classmethod
    def options_from_checkpoint(
        cls, metadata: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> dict[str, Any]:
        """What the shapes of a checkpoint's tensors say of its architecture."""
        prefix = "backbone."
        shapes = {
            key.removeprefix(prefix): tensor.shape for key, tensor in state.items() if key.startswith(prefix)
        }
        return {"checkpoint_config": sizes_from_shapes(shapes)}

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame."""
        return self.config.min_samples

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Frames of a waveform.

        Args:
            x: (B, S) at 16 kHz.
            padding_mask: (B, S) bool, True where padded; ignored without `handle_padding`.

        Returns:
            (B, T, D).

        Raises:
            ValueError: The waveform is not (B, S), or gives no frame.
        """
        check_waveform(x, self.min_samples)
        padding = None
        if padding_mask is not None:
            check_padding_mask(padding_mask, x)
            padding = self._frame_padding(padding_mask) if self.handle_padding else None
        dtype = next(self.backbone.feature_extractor.parameters()).dtype
        return Features(self.backbone(x.to(dtype), padding), self.layout, padding)

    def _frame_padding(self, mask: Tensor) -> Tensor:
        """A frame is padding unless all samples that it sees are audio."""
        frames = self.config.num_frames(mask.shape[1])
        last = torch.arange(frames, device=mask.device) * self.config.hop_length + self.config.min_samples
        return last > (~mask).sum(1, keepdim=True)

    def get_embedding_dim(self) -> int:
        """Length of a frame's vector."""
        return self.config.encoder_embed_dim

    def get_model_layers(self) -> list[str]:
        """The input of the first layer, then every layer's output."""
        transformer = "backbone.encoder.transformer"
        layers = [f"{transformer}.layers.{i}" for i in range(self.config.encoder_num_layers)]
        return [f"{transformer}.dropout", *layers]

    def enable_gradient_checkpointing(self) -> None:
        """In training, keep only the inputs of the layers and compute the rest again."""
        self.backbone.encoder.transformer.gradient_checkpointing = True
