"""HuBERT's self-supervised training: guess the clusters of hidden frames."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase
from avex.models.hubert.model import Hubert
from avex.models.hubert.pretraining import (
    ClusterScores,
    HubertPretrainingConfig,
    SpectralTargets,
    layer_output,
    masked_forward,
)
from avex.nn.masking import span_mask
from avex.training.objectives.base import (
    Batch,
    LossOutput,
    Objective,
    detached,
    masked_mean,
    perplexity,
    require_family,
    waveform_of,
)
from avex.training.objectives.gathering import copy_of_first
from avex.training.objectives.kmeans import fit_kmeans, nearest


class HubertObjective(Objective):
    """Masked prediction of clusters, as HuBERT and AVES are trained.

    Before the first step, `prepare` finds the clusters on some of the audio: of spectral features in the first
    iteration, of a layer of the encoder of the first in the second (`target_layer`). They stay as they are from
    there on, and are part of the state dict.

    Args:
        model: A `Hubert` without classifier.
        config: Settings.
        teacher: With `target_layer`, the encoder of the iteration before, while `model` starts anew, as in the
            paper; None takes the model as it is at the start, which then goes on learning.
        generator: Source of the masks; None for torch's own, which a checkpoint of the training keeps.

    Raises:
        ConfigError: Another family, a classifier, which would stay as it is, or a teacher that does not fit.

    Source:
        Hsu et al. (2021), https://arxiv.org/abs/2106.07447.

    Example:
        >>> from avex.testing import tiny_model
        >>> settings = HubertPretrainingConfig(clusters=4, projection_dim=8)
        >>> objective = HubertObjective(tiny_model("hubert", num_classes=None), settings)
        >>> batch = {"raw_wav": torch.randn(2, 16000)}
        >>> objective.fit_targets([batch])
        >>> objective(batch).loss.ndim
        0
    """

    name = "hubert"
    layout = "fairseq"
    model: Hubert
    centres: Tensor
    fitted: Tensor

    def __init__(
        self,
        model: ModelBase,
        config: HubertPretrainingConfig | None = None,
        *,
        teacher: ModelBase | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        require_family(model, Hubert, self.name)
        if not model.return_features_only:
            raise ConfigError("HuBERT is pre-trained without a classifier: pass return_features_only=True.")
        super().__init__(model)
        self.config = config or HubertPretrainingConfig()
        self.generator = generator
        dim = self.model.config.encoder_embed_dim
        self.targets, width = self._target_network(teacher)
        self.scores = ClusterScores(dim, self.config)
        self.mask_vector = nn.Parameter(torch.empty(dim).uniform_())
        self.register_buffer("centres", torch.zeros(self.config.clusters, width))
        self.register_buffer("fitted", torch.tensor(False))
        self._has_targets = False
        self.to(model.device)

    def train(self, mode: bool = True) -> HubertObjective:
        """Set training mode; the network that targets come from stays in eval mode."""
        super().train(mode)
        self.targets.eval()
        return self

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Find the clusters, unless a checkpoint has brought them."""
        if not bool(self.fitted):
            self.fit_targets(batches)

    def fit_targets(
        self,
        batches: Iterable[Batch],
        *,
        max_frames: int = 200_000,
        iterations: int = 50,
        generator: torch.Generator | None = None,
    ) -> None:
        """Find the clusters; in distributed training those of the first process are taken.

        Args:
            batches: Audio to look at; it is read until there are `max_frames` frames.
            max_frames: Enough frames.
            iterations: Most iterations of k-means.
            generator: Source of randomness of k-means; None for torch's own.

        Raises:
            ConfigError: Fewer frames than clusters.
        """
        frames, count = [], 0
        for batch in batches:
            waveform, padding = self._waveform(batch)
            features = self._target_features(waveform)
            kept = features.flatten(0, 1) if padding is None else features[~padding]
            frames.append(kept)
            count += len(kept)
            if count >= max_frames:
                break
        if not frames:
            raise ConfigError("There is no audio to find clusters in.")
        points = torch.cat(frames)[:max_frames]
        centres = fit_kmeans(points, self.config.clusters, iterations=iterations, generator=generator)
        self.centres.copy_(copy_of_first(centres))
        self.fitted.fill_(True)

    def targets_of(self, waveform: Tensor) -> Tensor:
        """Cluster of every frame of waveforms (B, S): (B, T) int64.

        Raises:
            ConfigError: There are no clusters yet.
        """
        # Looking means waiting for the device: once is enough.
        self._has_targets = self._has_targets or bool(self.fitted)
        if not self._has_targets:
            raise ConfigError("HuBERT has no targets yet: call prepare(batches) before training.")
        features = self._target_features(waveform)
        return nearest(features.flatten(0, 1), self.centres)[0].view(features.shape[:2])

    def forward(self, batch: Batch) -> LossOutput:
        """Loss of `raw_wav` (B, S).

        Returns:
            `logs` has the accuracy on hidden frames and the number of clusters in use.
        """
        waveform, padding = self._waveform(batch)
        backbone, settings = self.model.backbone, self.config
        target = self.targets_of(waveform)
        features = _scale_gradient(backbone.feature_extractor(waveform), settings.feature_gradient)
        penalty = features.float().square().mean()
        mask = span_mask(
            len(target),
            target.shape[1],
            settings.mask_probability,
            settings.mask_span,
            settings.min_spans,
            generator=self.generator,
        ).to(target.device)
        scores = self.scores(masked_forward(backbone, features, mask, self.mask_vector, padding))
        real = torch.ones_like(mask) if padding is None else ~padding
        cost = functional.cross_entropy(scores.transpose(1, 2), target, reduction="none")
        hidden = masked_mean(cost, mask & real)
        loss = hidden + settings.feature_penalty * penalty
        logs = {"masked_loss": hidden, "feature_penalty": penalty}
        if settings.visible_weight:
            logs["visible_loss"] = visible = masked_mean(cost, ~mask & real)
            loss = loss + settings.visible_weight * visible
        logs["masked_accuracy"] = masked_mean((scores.argmax(-1) == target).float(), mask & real)
        logs["target_perplexity"] = perplexity(target, settings.clusters)
        return LossOutput(loss, detached(loss=loss, **logs))

    def _waveform(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Waveform at the objective's device, and which frames are padding, where the model looks at that."""
        waveform, mask = waveform_of(batch)
        waveform = waveform.to(self.centres)
        if mask is None or not self.model.handle_padding:
            return waveform, None
        return waveform, self.model._frame_padding(mask.to(waveform.device))

    @torch.no_grad()
    def _target_features(self, waveform: Tensor) -> Tensor:
        layer = self.config.target_layer
        if layer is None:
            return self.targets(waveform)
        return layer_output(cast(Any, self.targets), waveform, layer)

    def _target_network(self, teacher: ModelBase | None) -> tuple[nn.Module, int]:
        """What gives the features that are clustered, and their length."""
        model = self.model
        if self.config.target_layer is None:
            if teacher is not None:
                raise ConfigError(
                    "A teacher of HuBERT needs target_layer, the number of the layer to cluster."
                )
            return SpectralTargets(model.config, model.sample_rate), 39
        source = model if teacher is None else teacher
        require_family(source, Hubert, self.name)
        assert isinstance(source, Hubert)
        if source.config.hop_length != model.config.hop_length or source.sample_rate != model.sample_rate:
            raise ConfigError(
                "The teacher of HuBERT must have the frames of the model: its rate and its hop."
            )
        return copy.deepcopy(source.backbone).requires_grad_(False).eval(), source.config.encoder_embed_dim


def _scale_gradient(x: Tensor, factor: float) -> Tensor:
    """`x`, through which only a part of the gradient flows."""
    return x * factor + x.detach() * (1.0 - factor)
