"""Perch as a model: onnxruntime inside, tensors outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.models.base_model import ModelBase
from avex.models.batches import waveform_and_mask
from avex.models.features import Features, TokenLayout
from avex.models.perch.config import SAMPLE_RATE, TARGET_PEAK, WINDOW_SAMPLES, PerchOutputs
from avex.models.runtime.onnx import OnnxGraph
from avex.models.runtime.windows import (
    ScoredFeatures,
    cut_windows,
    join_features,
    run_on_cpu,
    window_features,
)


def scale_peak(windows: Tensor, target_peak: float) -> Tensor:
    """Windows (N, S) without their mean, with the peak `target_peak`; silence stays silent.

    Example:
        >>> scale_peak(torch.tensor([[1.0, 3.0]]), 0.25)
        tensor([[-0.2500,  0.2500]])
    """
    centred = windows - windows.mean(1, keepdim=True)
    peak = centred.abs().amax(1, keepdim=True)
    return centred / torch.where(peak > 0, peak, 1.0) * target_peak


class Perch(ModelBase):
    """Perch v2 (van Merriënboer et al. 2025), Perch v1 (Ghani et al. 2023) or SurfPerch (Williams et al. 2024).

    The network is the ONNX file, and frozen: on the CPU, or on CUDA with onnxruntime's build for it. Which of its
    outputs is what is found by name, so all three are one class.

    Each window is scaled as in the authors' programs (perch, perch-hoplite): its mean is subtracted and its peak
    brought to 0.25. Other packages leave that out; `target_peak=None` does so too.

    Audio longer than 5 s is cut into consecutive windows, the last one zero-padded at its end, as is a shorter clip
    (perch-hoplite leaves out an end that fills no window, and puts a shorter clip in the middle of the zeros). A
    padding mask is ignored.
    Logits are the mean over windows. Features are (B, D) for one window and (B, windows, D) for more.

    Args:
        device: `cpu` or `cuda`, for the network and for a new classifier.
        audio_config: Must say 32 kHz if given.
        num_classes: Size of a new linear classifier on the embedding; None keeps the file's, if it has one.
        return_features_only: `forward` returns embeddings.
        checkpoint: The `.onnx` file.
        target_peak: Peak of each window, or None to take the audio as it is.
        num_threads: Threads of onnxruntime; None takes the processors that this process may use.

    Raises:
        ConfigError: No checkpoint, another sample rate than 32 kHz, a peak that is not positive, or a device
            that onnxruntime cannot use.
        WeightsError: The file is not a Perch model.
        MissingExtraError: onnxruntime is not installed.

    Source:
        https://arxiv.org/abs/2508.04665 (v2), https://arxiv.org/abs/2307.06292 (v1),
        https://arxiv.org/abs/2404.16436 (SurfPerch).

    Example:
        >>> model = load_model("perch_v2")                                    # doctest: +SKIP
        >>> model.embed(torch.zeros(1, 160000)).shape  # doctest: +SKIP
        torch.Size([1, 1536])
    """

    name = "perch"
    reads_graph_file = True

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        checkpoint: str | Path | None = None,
        target_peak: float | None = TARGET_PEAK,
        num_threads: int | None = None,
    ) -> None:
        config = audio_config or AudioConfig(
            sample_rate=SAMPLE_RATE,
            representation="raw",
            normalize=False,
            target_length_seconds=WINDOW_SAMPLES / SAMPLE_RATE,
        )
        super().__init__(device, config, return_features_only)
        if config.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"Perch takes audio at {SAMPLE_RATE} Hz, not {config.sample_rate} Hz.")
        if target_peak is not None and not target_peak > 0:
            raise ConfigError(f"target_peak must be positive, or None, not {target_peak}.")
        if checkpoint is None:
            raise ConfigError("Perch is its graph file: pass checkpoint_path=..., an .onnx file.")
        self.graph = OnnxGraph(checkpoint, str(device), num_threads)
        self.outputs = PerchOutputs.find(self.graph.outputs, str(checkpoint))
        self.window_samples = self.graph.input_shape[-1] or WINDOW_SAMPLES
        self.layout = TokenLayout("vector", frame_rate=SAMPLE_RATE / self.window_samples)
        self.target_peak = target_peak
        # What the graph gives passes through these, so that it can be selected as a layer.
        self.embedding = nn.Identity()
        if self.outputs.spatial:
            self.spatial_embedding = nn.Identity()
        self.num_classes = None if return_features_only else num_classes or self.outputs.num_classes
        if not return_features_only and num_classes is not None:
            self.classifier = nn.Linear(self.outputs.embedding_dim, num_classes)
        # A file without a classifier gives features.
        self.return_features_only = return_features_only or self.num_classes is None
        self.to(device)

    def get_embedding_dim(self) -> int:
        """1536 for Perch v2, 1280 for Perch v1 and SurfPerch."""
        return self.outputs.embedding_dim

    def get_model_layers(self) -> list[str]:
        """`spatial_embedding`, a map (B, D, F, T), if the file gives it, and `embedding`."""
        return [*(["spatial_embedding"] if self.outputs.spatial else []), "embedding"]

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Embeddings of the windows of (B, S) at 32 kHz; padding is ignored."""
        windows = cut_windows(x, self.window_samples, "Perch")
        audio = run_on_cpu(windows.flatten(0, 1))
        outputs = self._run(audio if self.target_peak is None else scale_peak(audio, self.target_peak))
        if self.outputs.spatial:
            # The graph has time before frequency, with the channels last.
            self.spatial_embedding(outputs[self.outputs.spatial].permute(0, 3, 2, 1))
        embedding = self.embedding(outputs[self.outputs.embedding]).unflatten(0, windows.shape[:2])
        logits = outputs[self.outputs.logits].unflatten(0, windows.shape[:2]) if self.outputs.logits else None
        return window_features(embedding, self.window_samples / SAMPLE_RATE, logits)

    def forward_head(self, features: Features) -> Tensor:
        """Logits (B, classes), the mean over windows: of a new classifier, or those that the graph gave.

        Raises:
            ValueError: There is no classifier, or the graph's one and features that are not the graph's own.
        """
        if hasattr(self, "classifier"):
            return super().forward_head(features)
        if isinstance(features, ScoredFeatures) and features.logits is not None:
            return features.logits
        raise ValueError("This Perch has no classifier for these features. Load it with num_classes=... .")

    def layer_features(
        self,
        x: Tensor | Mapping[str, Tensor],
        layers: Sequence[str | int] = ("last_layer",),
        padding_mask: Tensor | None = None,
    ) -> dict[str, Features]:
        """Features of any layers; see `ModelBase.layer_features`. Those of windows follow each other in time."""
        waveform, _ = waveform_and_mask(x, padding_mask)
        windows = cut_windows(waveform, self.window_samples, "Perch")
        features = super().layer_features(windows.flatten(0, 1), layers)
        if windows.shape[1] == 1:
            return features
        seconds = self.window_samples / SAMPLE_RATE
        return {name: join_features(layer, waveform.shape[0], seconds) for name, layer in features.items()}

    def _run(self, windows: Tensor) -> dict[str, Tensor]:
        wanted = (self.outputs.embedding, self.outputs.logits, self.outputs.spatial)
        names = [name for name in wanted if name is not None]
        arrays = self.graph.run(np.ascontiguousarray(windows.numpy()), names)
        return {
            name: torch.from_numpy(values).to(self.device) for name, values in zip(names, arrays, strict=True)
        }
