"""BirdNET v2.4 as a model: through LiteRT, or as a PyTorch network with the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.batches import waveform_and_mask
from avex.models.birdnet.config import BirdNetConfig
from avex.models.birdnet.frontend import BirdNetFrontEnd
from avex.models.birdnet.graph import BirdNetGraphRunner
from avex.models.birdnet.native import load_state, read_state
from avex.models.birdnet.network import BirdNetBackbone
from avex.models.features import Features, TokenLayout
from avex.models.runtime.windows import (
    ScoredFeatures,
    cut_windows,
    join_features,
    run_on_cpu,
    window_features,
)
from avex.weights.deferred import DeferredInitialisation

Backend = Literal["litert", "native"]


class BirdNet(ModelBase):
    """BirdNET v2.4 (Kahl et al. 2021): 48 kHz, windows of 3 s, 6,522 species, embeddings of 1,024.

    Two backends compute the same numbers (logits within 1e-4):

    - `native`, the default, is a PyTorch network with the weights of the same file. It runs on any device that has
      float64, can be fine-tuned, and gives the output of every block. It has no batch norm and no dropout: train
      and eval mode compute the same.
    - `litert` runs the published graph on the CPU. It is frozen and gives its embedding only.

    Audio longer than 3 s is cut into consecutive windows, the last one zero-padded; a padding mask is ignored, as
    BirdNET hears padding as silence. Logits are the mean over windows. Features are (B, 1024) for one window and
    (B, windows, 1024) for more.

    Args:
        device: Where the network lives; with `litert`, where its results and a new classifier do.
        audio_config: Must say 48 kHz if given.
        num_classes: Size of a new linear classifier on the embedding; None keeps the file's.
        return_features_only: `forward` returns embeddings.
        checkpoint: The `.tflite` file; for `native` also a state dict of a fine-tuned network. Without one,
            `native` starts from random weights.
        backend: `litert` or `native`.
        config: Sizes of the native network, for tests and for training smaller ones.

    Raises:
        ConfigError: No checkpoint, another sample rate than 48 kHz, or an option that the backend does not have.
        WeightsError: The checkpoint is that of another network.

    Source:
        Kahl et al. (2021), https://doi.org/10.1016/j.ecoinf.2021.101236.

    Example:
        >>> model = load_model("birdnet")     # doctest: +SKIP
        >>> model(torch.zeros(1, 144000)).shape  # doctest: +SKIP
        torch.Size([1, 6522])
        >>> model.embed(torch.zeros(1, 144000), layers=["layer_8"]).shape  # doctest: +SKIP
        torch.Size([1, 108])
    """

    name = "birdnet"
    reads_graph_file = True

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        checkpoint: str | Path | None = None,
        backend: Backend = "native",
        config: BirdNetConfig | None = None,
    ) -> None:
        self.config = config or BirdNetConfig()
        seconds = self.config.window_samples / self.config.sample_rate
        audio = audio_config or AudioConfig(
            sample_rate=self.config.sample_rate,
            representation="raw",
            normalize=False,
            target_length_seconds=seconds,
        )
        super().__init__(device, audio, return_features_only)
        self.layout = TokenLayout("vector", frame_rate=1 / seconds)
        self.backend = backend
        self._check_options(audio, config)
        # Embeddings pass through it in both backends, so that they can be selected as a layer.
        self.embedding = nn.Identity()
        self.num_classes: int | None = None
        if backend == "native":
            self._build_native(checkpoint, num_classes)
        else:
            self._build_litert(checkpoint, num_classes)
        self.to(device)

    def _check_options(self, audio: AudioConfig, config: BirdNetConfig | None) -> None:
        if audio.sample_rate != self.config.sample_rate:
            raise ConfigError(
                f"BirdNET takes audio at {self.config.sample_rate} Hz, not {audio.sample_rate} Hz."
            )
        if self.backend not in ("litert", "native"):
            raise ConfigError(f"Unknown backend '{self.backend}' of BirdNET. Choose 'litert' or 'native'.")
        if self.backend == "litert" and config is not None:
            raise ConfigError(
                "BirdNET through LiteRT has one size. Leave backend='litert' away for another config."
            )

    def _build_litert(self, checkpoint: str | Path | None, num_classes: int | None) -> None:
        if checkpoint is None:
            raise ConfigError("BirdNET has no weights of its own to start from. Use load_model('birdnet').")
        self._runner = BirdNetGraphRunner(checkpoint)
        if not self.return_features_only:
            self.num_classes = num_classes or self.config.num_classes
            if num_classes is not None:
                self.classifier = nn.Linear(self.config.embedding_dim, num_classes)

    def _build_native(self, checkpoint: str | Path | None, num_classes: int | None) -> None:
        state = read_state(checkpoint, self.config) if checkpoint is not None else {}
        if not self.return_features_only:
            in_file = state.get("classifier.weight")
            self.num_classes = num_classes or (self.config.num_classes if in_file is None else len(in_file))
        if checkpoint is None:
            self._build_parts()
        else:
            with DeferredInitialisation() as deferred:
                self._build_parts()
            new_head = num_classes is not None
            report = load_state(self, state, new_head=new_head, source=str(checkpoint), deferred=deferred)
            self.__dict__["load_report"] = report
        for parameter in self.backbone.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def _build_parts(self) -> None:
        self.frontend = BirdNetFrontEnd(self.config)
        self.backbone = BirdNetBackbone(self.config)
        if self.num_classes is not None:
            self.classifier = nn.Linear(self.config.embedding_dim, self.num_classes)

    def get_embedding_dim(self) -> int:
        """1024."""
        return self.config.embedding_dim

    def get_model_layers(self) -> list[str]:
        """The embedding; before it, with the native backend, stem, blocks and last map of the network."""
        if self.backend == "litert":
            return ["embedding"]
        return [*(f"backbone.{name}" for name in self.backbone.layer_names()), "embedding"]

    def enable_gradient_checkpointing(self) -> None:
        """Keep only the maps between blocks for the backward pass (native backend)."""
        if self.backend == "litert":
            super().enable_gradient_checkpointing()
        self.backbone.gradient_checkpointing = True

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Embeddings of the windows of (B, S) at 48 kHz; padding is ignored."""
        seconds = self.config.window_samples / self.config.sample_rate
        windows = cut_windows(x, self.config.window_samples, "BirdNET")
        flat = windows.flatten(0, 1)
        if self.backend == "native":
            embedding, logits = self._encode(flat), None
        else:
            arrays = self._runner.run(run_on_cpu(flat).numpy())
            embedding, logits = (torch.from_numpy(values).to(self.device) for values in arrays)
            logits = logits.unflatten(0, windows.shape[:2])
        return window_features(self.embedding(embedding).unflatten(0, windows.shape[:2]), seconds, logits)

    def forward_head(self, features: Features) -> Tensor:
        """Logits (B, classes) of embeddings, the mean over windows.

        Raises:
            ValueError: The model gives features only; or, with `litert`, the features are not its own.
        """
        head = getattr(self, "classifier", None)
        if head is not None:
            return head(features.pooled("mean").to(head.weight.dtype)).float()
        if isinstance(features, ScoredFeatures) and features.logits is not None:
            return features.logits
        raise ValueError(
            "This BirdNet has no classifier for these features. Load it with its classes, without backend='litert'."
        )

    def layer_features(
        self,
        x: Tensor | Mapping[str, Tensor],
        layers: Sequence[str | int] = ("last_layer",),
        padding_mask: Tensor | None = None,
    ) -> dict[str, Features]:
        """Features of any layers; see `ModelBase.layer_features`. Those of windows follow each other in time."""
        waveform, _ = waveform_and_mask(x, padding_mask)
        windows = cut_windows(waveform, self.config.window_samples, "BirdNET")
        features = super().layer_features(windows.flatten(0, 1), layers)
        if windows.shape[1] == 1:
            return features
        seconds = self.config.window_samples / self.config.sample_rate
        return {name: join_features(layer, waveform.shape[0], seconds) for name, layer in features.items()}

    def _encode(self, windows: Tensor) -> Tensor:
        """Embeddings (N, D) of windows (N, S) by the native network."""
        spectrograms, _ = self.frontend(windows)
        dtype = next(self.backbone.parameters()).dtype
        return self.backbone(spectrograms.to(dtype)).float().mean((2, 3))
