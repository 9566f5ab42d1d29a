"""HuBERT from an ONNX file: the port of AVES and BirdAVES, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError, WeightsError, did_you_mean
from avex.configs import AudioConfig
from avex.frontends.base import check_padding_mask, check_waveform
from avex.models.base_model import ModelBase
from avex.models.features import Features, TokenLayout
from avex.models.hubert.config import HubertConfig
from avex.models.layers import LayerError
from avex.models.runtime.onnx import OnnxGraph
from avex.models.runtime.windows import run_on_cpu

SAMPLE_RATE = 16000
# Frames per sample are the same in every published HuBERT.
_TIMING = HubertConfig()


class HubertGraph(ModelBase):
    """AVES or BirdAVES as the ONNX file that its authors publish beside the PyTorch weights.

    The graph is frozen: it gives the features of its last layer in float32, no gradients and no other layers. Its
    values differ from those of the PyTorch weights by rounding, which can be large relative to values near zero
    (`avex.models.runtime.compare.largest_error`). Prefer the PyTorch weights where you have them.

    As in `Hubert`, padding changes all vectors of a clip; a padding mask is ignored, because the graph has no
    input for it.

    Args:
        device: `cpu` or `cuda`, for the graph and for a new classifier.
        audio_config: Must say 16 kHz if given.
        num_classes: Size of a new linear classifier on the mean over frames; None for none.
        return_features_only: `forward` returns frames.
        checkpoint: The `.onnx` file.
        output: Name of the output that holds the features, if the graph has several (B, T, D).
        num_threads: Threads of onnxruntime; None takes the processors that this process may use.

    Raises:
        ConfigError: No checkpoint, another sample rate, an `output` that has to be chosen, or a device that
            onnxruntime cannot use.
        WeightsError: The file is not a graph from waveforms to HuBERT's features.
        MissingExtraError: onnxruntime is not installed.

    Source:
        Hagiwara (2022), https://arxiv.org/abs/2210.14493; files: https://github.com/earthspecies/aves.

    Example:
        >>> model = load_model("aves", checkpoint_path="aves-base-bio.onnx", device="cpu")  # doctest: +SKIP
        >>> model(torch.zeros(1, 16000)).shape  # doctest: +SKIP
        torch.Size([1, 49, 768])
    """

    name = "hubert"
    reads_graph_file = True
    layout = TokenLayout("tokens", frame_rate=SAMPLE_RATE / _TIMING.hop_length)

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        num_classes: int | None = None,
        return_features_only: bool = False,
        checkpoint: str | Path | None = None,
        output: str | None = None,
        num_threads: int | None = None,
    ) -> None:
        default = AudioConfig(sample_rate=SAMPLE_RATE, representation="raw", normalize=False)
        super().__init__(device, audio_config or default, return_features_only or num_classes is None)
        if self.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"AVES takes audio at {SAMPLE_RATE} Hz, not {self.sample_rate} Hz.")
        if checkpoint is None:
            raise ConfigError("This model is its graph file: pass checkpoint_path=..., an .onnx file.")
        self.graph = OnnxGraph(checkpoint, str(device), num_threads)
        if len(self.graph.input_shape) != 2:
            raise WeightsError(
                f"'{checkpoint}' takes an input of shape {self.graph.input_shape}, expected (batch, samples)."
            )
        self._names = _feature_outputs(self.graph, output)
        # What the graph gives passes through these, so that it can be selected as a layer.
        self.outputs = nn.ModuleList(nn.Identity() for _ in self._names)
        self._embedding_dim = self._measured_dim()
        self.num_classes = None if return_features_only else num_classes
        if self.num_classes is not None:
            self.classifier = nn.Linear(self._embedding_dim, self.num_classes)
        self.to(device)

    @property
    def window_samples(self) -> int | None:
        """Samples of a clip, if the graph was exported for one length only."""
        return self.graph.input_shape[1]

    @property
    def window_seconds(self) -> float | None:
        """Length of a window in seconds: the graph's if that is fixed, else that of the audio settings."""
        fixed = self.window_samples
        return fixed / SAMPLE_RATE if fixed else super().window_seconds

    @property
    def min_samples(self) -> int:
        """Fewest samples that give a frame."""
        return _TIMING.min_samples

    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Frames of a waveform.

        Args:
            x: (B, S) at 16 kHz.
            padding_mask: (B, S) bool; ignored.

        Returns:
            (B, T, D), float32.

        Raises:
            ValueError: The waveform is not (B, S), gives no frame, or has another length than the graph takes.
            ConfigError: A gradient of the waveform is wanted.
        """
        check_waveform(x, self.min_samples)
        if padding_mask is not None:
            check_padding_mask(padding_mask, x)
        if x.requires_grad and torch.is_grad_enabled():
            raise ConfigError(
                "An ONNX graph gives no gradients with respect to its waveform. Load PyTorch weights (.pt, "
                ".safetensors) with checkpoint_path=..., or pass waveform.detach()."
            )
        if self.window_samples not in (None, x.shape[1]):
            raise ValueError(
                f"'{self.graph.path}' was exported for clips of {self.window_samples} samples "
                f"({self.window_seconds:g} s), not {x.shape[1]}. Cut the waveform into windows of that length."
            )
        arrays = self.graph.run(run_on_cpu(x).numpy(), self._names)
        values = [
            layer(torch.from_numpy(array).to(self.device))
            for layer, array in zip(self.outputs, arrays, strict=True)
        ]
        return Features(values[-1], self.layout)

    def get_embedding_dim(self) -> int:
        """Length of a frame's vector: 768 for base models, 1024 for large ones."""
        return self._embedding_dim

    def get_model_layers(self) -> list[str]:
        """The outputs of the graph, `outputs.0` and so on; the published graphs have one, their last layer."""
        return [f"outputs.{i}" for i in range(len(self._names))]

    def resolve_layers(self, layers: Sequence[str | int]) -> list[str]:
        """Turn layer selectors into names (`avex.models.layers.select_layers`)."""
        try:
            return super().resolve_layers(layers)
        except LayerError as error:
            raise LayerError(
                f"{error} An ONNX graph gives its outputs only ({', '.join(self._names)}); for other layers load "
                "PyTorch weights (.pt, .safetensors) with checkpoint_path=... ."
            ) from error

    def enable_gradient_checkpointing(self) -> None:
        """Not possible.

        Raises:
            ConfigError: Always; a graph is not trained.
        """
        raise ConfigError(
            "An ONNX graph is frozen. To fine-tune AVES, load PyTorch weights (.pt, .safetensors) with "
            "checkpoint_path=... ."
        )

    def _measured_dim(self) -> int:
        """Length of a vector, from a second of silence; proves that the graph has HuBERT's timing."""
        samples = self.window_samples or SAMPLE_RATE
        frames = _TIMING.num_frames(samples)
        silence = np.zeros((self.graph.input_shape[0] or 1, samples), np.float32)
        shapes = [array.shape for array in self.graph.run(silence, self._names)]
        for name, shape in zip(self._names, shapes, strict=True):
            if shape[:2] != (len(silence), frames):
                raise WeightsError(
                    f"'{self.graph.path}' is not a HuBERT: its output '{name}' for {samples} samples is {shape}, "
                    f"expected {frames} frames, ({len(silence)}, {frames}, length)."
                )
        return int(shapes[-1][2])


def _feature_outputs(graph: OnnxGraph, chosen: str | None) -> list[str]:
    """Outputs of rank 3 in the graph's order, the one with the features last."""
    listed = ", ".join(f"{name} {shape}" for name, shape in graph.outputs.items())
    sequences = [name for name, shape in graph.outputs.items() if len(shape) == 3]
    if not sequences:
        raise WeightsError(
            f"'{graph.path}' is not a HuBERT: none of its outputs ({listed}) is (batch, frames, length)."
        )
    if chosen is None and len(sequences) > 1:
        raise ConfigError(
            f"'{graph.path}' has several outputs that could be the features: {', '.join(sequences)}. Pass "
            "output=... with the name of one."
        )
    if chosen is not None and chosen not in sequences:
        raise ConfigError(
            f"'{graph.path}' has no output '{chosen}' of shape (batch, frames, length)."
            f"{did_you_mean(chosen, sequences)} It has: {listed}."
        )
    last = chosen or sequences[0]
    return [*(name for name in sequences if name != last), last]
