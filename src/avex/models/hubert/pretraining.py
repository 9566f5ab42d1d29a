"""What only the pre-training of HuBERT needs: masked frames, the scores of clusters, and targets."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.frontends.base import Constant
from avex.frontends.kaldi import KaldiFbank
from avex.models.hubert.config import HubertConfig
from avex.models.hubert.network import HubertBackbone
from avex.models.layers import tap_layers
from avex.nn.linear import Linear


@dataclass(frozen=True)
class HubertPretrainingConfig:
    """Settings of HuBERT's pre-training; the defaults are those of the base model's first iteration.

    Attributes:
        clusters: Number of targets: 100 in the first iteration, 500 in the second.
        target_layer: None clusters spectral features (first iteration); a number clusters what that layer of the
            model puts out before training starts (6 for the base model's second iteration).
        mask_probability: Share of frames at which a hidden span starts.
        mask_span: Frames of a span.
        min_spans: Fewest spans of a clip.
        projection_dim: Length of the vectors that are compared.
        temperature: What cosines are divided by.
        visible_weight: Weight of the loss on frames that were not hidden, beside 1 for hidden ones.
        feature_penalty: Weight of the mean square of what the convolutions put out.
        feature_gradient: Factor on the gradient that goes into the convolutions, that of the penalty included.

    Source:
        Hsu et al. (2021), https://arxiv.org/abs/2106.07447, sections 2 to 4. AVES (Hagiwara 2022,
        https://arxiv.org/abs/2210.14493) follows the base model. Weight of the penalty and factor on the gradient
        are those of fairseq's `hubert_base_librispeech`.

    Example:
        >>> HubertPretrainingConfig(clusters=500, target_layer=6).mask_span
        10
    """

    clusters: int = 100
    target_layer: int | None = None
    mask_probability: float = 0.08
    mask_span: int = 10
    min_spans: int = 2
    projection_dim: int = 256
    temperature: float = 0.1
    visible_weight: float = 0.0
    feature_penalty: float = 10.0
    feature_gradient: float = 0.1

    def __post_init__(self) -> None:
        if self.clusters < 2:
            raise ConfigError(f"HuBERT needs at least 2 clusters, not {self.clusters}.")
        if self.temperature <= 0:
            raise ConfigError(f"The temperature must be above 0, not {self.temperature}.")


class ClusterScores(nn.Module):
    """Cosine of every frame with a learned vector of every cluster, divided by a temperature.

    Args:
        dim: Length of a frame's vector.
        config: Settings.
    """

    def __init__(self, dim: int, config: HubertPretrainingConfig) -> None:
        super().__init__()
        self.proj = Linear(dim, config.projection_dim)
        self.vectors = nn.Parameter(torch.empty(config.clusters, config.projection_dim).uniform_())
        self.temperature = config.temperature

    def forward(self, frames: Tensor) -> Tensor:
        """(..., D) to scores (..., clusters), float32."""
        x = functional.normalize(self.proj(frames).float(), dim=-1)
        return functional.linear(x, functional.normalize(self.vectors.float(), dim=-1)) / self.temperature


class SpectralTargets(nn.Module):
    """Cepstral features at HuBERT's frame rate, to be clustered in the first iteration.

    13 cepstral coefficients of 25 ms with their first and second differences, computed every half of the encoder's
    hop and taken at every other: feature `i` then starts where the encoder's frame `i` starts. As in fairseq's
    `dump_mfcc_feature.py` they are Kaldi's, of samples between -1 and 1, liftered, so that in the distances of
    k-means the shape of a spectrum counts beside its level.

    Args:
        config: Sizes of the encoder, which set the hop.
        sample_rate: In Hz.

    Example:
        >>> SpectralTargets(HubertConfig())(torch.zeros(1, 16000)).shape
        torch.Size([1, 49, 39])
    """

    def __init__(self, config: HubertConfig, sample_rate: int = 16000) -> None:
        super().__init__()
        shift = 1000 * config.hop_length / sample_rate / 2
        self.config = config
        self.fbank = KaldiFbank(23, sample_rate, 25.0, shift)
        self.cosines = Constant(_cosines(23, 13) * _lifter(13))

    def forward(self, waveform: Tensor) -> Tensor:
        """(B, S) to (B, T, 39), with T as the encoder has it."""
        cepstra = self.fbank(waveform.float()) @ self.cosines.value
        first = _differences(cepstra)
        features = torch.cat([cepstra, first, _differences(first)], dim=-1)[:, ::2]
        frames = self.config.num_frames(waveform.shape[1])
        if features.shape[1] < frames:  # the last frame may see a few samples more than the analysis has
            last = features[:, -1:].expand(-1, frames - features.shape[1], -1)
            features = torch.cat([features, last], dim=1)
        return features[:, :frames]


def masked_forward(
    backbone: HubertBackbone,
    features: Tensor,
    mask: Tensor,
    mask_vector: Tensor,
    padding: Tensor | None = None,
) -> Tensor:
    """Run the transformer on frames of which some are replaced by one learned vector.

    Args:
        backbone: The encoder.
        features: (B, T, C), from its convolutions.
        mask: (B, T) bool, True for frames to hide.
        mask_vector: (D,), what they are replaced by.
        padding: (B, T) bool, True for frames of padding, or None.

    Returns:
        (B, T, D).
    """
    encoder = backbone.encoder
    x = encoder.feature_projection(features)
    x = torch.where(mask.unsqueeze(-1), mask_vector.to(x.dtype), x)
    if padding is None:
        return encoder.transformer(x)
    x = x.masked_fill(padding.unsqueeze(-1), 0.0)
    keep = ~padding | padding.all(1, keepdim=True)
    return encoder.transformer(x, keep[:, None, None, :])


@torch.no_grad()
def layer_output(backbone: HubertBackbone, waveform: Tensor, layer: int) -> Tensor:
    """What a transformer layer puts out, (B, T, D); layers count from 1, as in the paper.

    Raises:
        ConfigError: There is no such layer.
    """
    layers = len(backbone.encoder.transformer.layers)
    if not 1 <= layer <= layers:
        raise ConfigError(f"target_layer={layer}: this HuBERT has layers 1 to {layers}.")
    name = f"encoder.transformer.layers.{layer - 1}"
    with tap_layers(backbone, [name]) as taps:
        backbone(waveform)
    return taps[name]


def _cosines(bands: int, coefficients: int) -> Tensor:
    """Matrix (bands, coefficients) of an orthonormal cosine transform (DCT-II)."""
    places = torch.arange(bands, dtype=torch.float64) + 0.5
    matrix = torch.cos(torch.outer(places, torch.arange(coefficients, dtype=torch.float64)) * math.pi / bands)
    matrix[:, 0] /= math.sqrt(2.0)
    return (matrix * math.sqrt(2.0 / bands)).float()


def _lifter(coefficients: int, length: int = 22) -> Tensor:
    """Kaldi's factor on each cepstral coefficient: from 1 for the first to `1 + length / 2` in the middle."""
    return 1.0 + 0.5 * length * torch.sin(math.pi * torch.arange(coefficients) / length)


def _differences(x: Tensor) -> Tensor:
    """Slope over five frames by least squares, (B, T, C); the edges are repeated."""
    padded = functional.pad(x.transpose(1, 2), (2, 2), mode="replicate").transpose(1, 2)
    weighted = [float(k) * padded[:, 2 + k : 2 + k + x.shape[1]] for k in (-2, -1, 1, 2)]
    return torch.stack(weighted).sum(0) / 10.0
