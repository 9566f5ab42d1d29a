"""BirdNET v2.4 as a model: LiteRT inside, tensors outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.birdnet.graph import (
    EMBEDDING_DIM,
    NUM_CLASSES,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    WINDOW_SECONDS,
    BirdNetGraph,
)
from avex.models.features import Features, TokenLayout


class BirdNet(ModelBase):
    """BirdNET v2.4 run through LiteRT on the CPU; its network is frozen.

    Audio longer than 3 s is cut into consecutive windows, the last one zero-padded. Logits are the mean over
    windows. Features are (B, 1024) for one window and (B, windows, 1024) for more.

    Args:
        device: Where a new classifier lives; BirdNET itself always runs on the CPU.
        audio_config: Must say 48 kHz if given.
        num_classes: Size of a new linear classifier on the embedding; None keeps BirdNET's 6,522 classes.
        return_features_only: `forward` returns embeddings.
        checkpoint: The `.tflite` file.

    Raises:
        ConfigError: No checkpoint, or another sample rate than 48 kHz.

    Source:
        Kahl et al. (2021), https://doi.org/10.1016/j.ecoinf.2021.101236.

    Example:
        >>> model = load_model("birdnet")                       # doctest: +SKIP
        >>> model(torch.zeros(1, 144000)).shape
        torch.Size([1, 6522])
    """

    name = "birdnet"
    reads_graph_file = True
    layout = TokenLayout("vector", frame_rate=1 / WINDOW_SECONDS)

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        checkpoint: str | Path | None = None,
    ) -> None:
        config = audio_config or AudioConfig(
            sample_rate=SAMPLE_RATE,
            representation="raw",
            normalize=False,
            target_length_seconds=WINDOW_SECONDS,
        )
        super().__init__(device, config, return_features_only)
        if config.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"BirdNET takes audio at {SAMPLE_RATE} Hz, not {config.sample_rate} Hz.")
        if checkpoint is None:
            raise ConfigError("BirdNET has no weights of its own to start from. Use load_model('birdnet').")
        self._session = BirdNetGraph(checkpoint).session()
        self._has_own_head = not return_features_only and num_classes is not None
        self.num_classes = None if return_features_only else num_classes or NUM_CLASSES
        if self._has_own_head:
            self.classifier = nn.Linear(EMBEDDING_DIM, num_classes or NUM_CLASSES)
        self.to(device)

    def get_embedding_dim(self) -> int:
        """1024."""
        return EMBEDDING_DIM

    def get_model_layers(self) -> list[str]:
        """The embedding is the only layer that the graph gives."""
        return ["embedding"]

    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (B, classes), or embeddings in features mode. `x`: (B, S) at 48 kHz; padding is ignored."""
        embedding, logits = self._run(x)
        if self.return_features_only:
            return self._features(embedding).values
        return self.forward_head(self._features(embedding)) if self._has_own_head else logits.mean(1)

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Embeddings of the windows of (B, S)."""
        return self._features(self._run(x)[0])

    def _features(self, embedding: Tensor) -> Features:
        if embedding.shape[1] == 1:
            return Features(embedding[:, 0], self.layout)
        return Features(embedding, TokenLayout("tokens", frame_rate=self.layout.frame_rate))

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, windows, 1024) and logits (B, windows, 6522)."""
        if x.ndim != 2 or x.shape[1] == 0:
            raise ValueError(f"BirdNET takes a waveform (batch, samples), not shape {tuple(x.shape)}.")
        audio = x.detach().to("cpu", torch.float32)
        windows = -(-audio.shape[1] // WINDOW_SAMPLES)
        audio = nn.functional.pad(audio, (0, windows * WINDOW_SAMPLES - audio.shape[1]))
        flat = np.ascontiguousarray(audio.reshape(-1, WINDOW_SAMPLES).numpy())
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(values).reshape(len(x), windows, -1).to(self.device)
            for values in self._session.run(flat)
        )
