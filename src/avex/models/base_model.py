"""`ModelBase`: what every model of avex can do, and the base class for a user's own."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from avex.configs import AudioConfig
from avex.models.autocast import in_precision, wrap_methods
from avex.models.features import Aggregation, Features, PaddingRule, TokenLayout
from avex.models.layer_access import LayerAccess
from avex.models.layers import tap_layers

if TYPE_CHECKING:
    from avex.weights.labels import LabelMap


class ModelBase(LayerAccess):
    """An audio encoder, with or without a classifier.

    A subclass needs only `__init__` and `forward`. Families override `forward_features` and `forward_head`;
    everything else (embedding, pooling, layers) is built on those.

    Args:
        device: Where the model is meant to live; the subclass moves itself with `.to(device)`.
        audio_config: Audio settings; `sample_rate` and the window length are taken from it.
        return_features_only: `forward` returns unpooled features instead of logits.

    Attributes:
        label_mapping: Labels of the classifier; there is no such attribute where there are none, so that
            `hasattr` asks for them.
        layout: Meaning of the axes of the features.
        padding_rule: What a padding mask does. `masked`: a padded clip gives the embedding that it gives alone.
            `leaks`: the mask is used, but padding still changes the embedding. `none`: the mask is ignored and
            padding is heard as silence.
        precision: `fp32`, `bf16` or `fp16`; `avex.models.precision.set_precision` changes it.
        low_precision_ok: Whether embeddings in bfloat16 are those in float32 (cosine above 0.999), so that `auto`
            may choose it.

    Example:
        >>> class Tiny(ModelBase):
        ...     def __init__(self, device="cpu", num_classes=2, **kwargs):
        ...         super().__init__(device=device, **kwargs)
        ...         self.classifier = nn.Linear(8, num_classes)
        ...     def forward(self, x, padding_mask=None):
        ...         return self.classifier(x.unfold(1, 8, 8).mean(1))
        >>> Tiny()(torch.zeros(1, 32)).shape
        torch.Size([1, 2])
    """

    name: ClassVar[str] = ""
    layout: TokenLayout = TokenLayout("vector")
    # Layout of tapped token layers, where the model's own output is something else.
    token_layout: TokenLayout | None = None
    padding_rule: PaddingRule = "none"
    label_mapping: LabelMap  # only where there are labels
    precision: str = "fp32"
    low_precision_ok: bool = True
    # What autocast computes in; None for float32.
    low_dtype: torch.dtype | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_methods(cls)

    def __init__(
        self,
        device: str | torch.device = "cpu",
        audio_config: AudioConfig | Mapping[str, Any] | None = None,
        return_features_only: bool = False,
    ) -> None:
        super().__init__()
        self._requested_device = torch.device(device)
        self.audio_config = AudioConfig(**audio_config) if isinstance(audio_config, Mapping) else audio_config
        self.return_features_only = return_features_only
        self._spectrogram: Any = None

    # -- facts -------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of the first parameter or buffer."""
        first = next(itertools.chain(self.parameters(), self.buffers()), None)
        return self._requested_device if first is None else first.device

    @device.setter
    def device(self, value: str | torch.device) -> None:
        # Older model classes assign `self.device = device` in their constructor.
        self._requested_device = torch.device(value)

    @property
    def sample_rate(self) -> int:
        """Rate at which audio must be delivered, in Hz."""
        return (self.audio_config or AudioConfig()).sample_rate

    @property
    def window_seconds(self) -> float | None:
        """Length of a window in seconds, or None if the network takes any length."""
        return self.audio_config.target_length_seconds if self.audio_config else None

    @property
    def frame_rate(self) -> float | None:
        """Time steps of the features per second, or None if they have no time axis."""
        return self.layout.frame_rate

    @property
    def embedding_dim(self) -> int:
        """Length of a pooled embedding."""
        return self.get_embedding_dim()

    def get_embedding_dim(self) -> int:
        """Length of a pooled embedding, found by running one window of silence."""
        seconds = self.window_seconds or 1.0
        silence = torch.zeros(1, round(seconds * self.sample_rate), device=self.device)
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return int(self.embed(silence).shape[-1])
        finally:
            self.train(was_training)

    # -- running -----------------------------------------------------------------------------------------

    @in_precision
    def forward(self, x: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (B, C), or unpooled features if the model has no classifier.

        Args:
            x: (B, S) waveform at `sample_rate`, float.
            padding_mask: (B, S) bool, True where the waveform is padding.
        """
        features = self.forward_features(x, padding_mask)
        return features.values if self.return_features_only else self.forward_head(features)

    @in_precision
    def forward_features(self, x: Tensor, padding_mask: Tensor | None = None) -> Features:
        """Unpooled features of a waveform (B, S).

        For a class that defines only `forward`: what enters its head (`classifier`, else its last `nn.Linear`
        if that runs), else the output itself.
        """
        return self._features_and_output(x, padding_mask)[0]

    @in_precision
    def forward_head(self, features: Features) -> Tensor:
        """Logits (B, C) of unpooled features."""
        head = getattr(self, "classifier", None)
        if head is None:
            raise ValueError(f"{type(self).__name__} has no classifier. Load it with num_classes=...")
        return head(features.pooled("mean"))

    @in_precision
    def embed(
        self,
        x: Tensor,
        layers: Sequence[str | int] = ("last_layer",),
        aggregation: Aggregation = "mean",
        padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Embeddings of a batch of waveforms.

        Args:
            x: (B, S) waveform at `sample_rate`.
            layers: Which layers; several are concatenated. `last_layer` is the model's own output.
            aggregation: `mean`, `max`, `cls_token`, or `none` for the unpooled values of one layer.
            padding_mask: (B, S) bool, True where padded.

        Returns:
            (B, D) for pooled aggregations.

        Raises:
            ValueError: Several layers without pooling, which have no common shape.
        """
        features = list(self.layer_features(x, layers, padding_mask).values())
        if aggregation == "none" and len(features) > 1:
            raise ValueError(
                f"aggregation='none' gives one tensor per layer, and embed returns one tensor for {len(features)} "
                "layers. Use extract_embeddings(x, layers=...), or pool."
            )
        pooled = [layer.pooled(aggregation) for layer in features]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)

    @in_precision
    def embed_and_classify(
        self, x: Tensor, padding_mask: Tensor | None = None, aggregation: Aggregation = "mean"
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, D) and logits (B, C) of a batch in one forward pass.

        Args:
            x: (B, S) waveform at `sample_rate`.
            padding_mask: (B, S) bool, True where padded.
            aggregation: Pooling of the embedding.
        """
        if type(self).forward_features is not ModelBase.forward_features:
            features = self.forward_features(x, padding_mask)
            return features.pooled(aggregation), self.forward_head(features)
        features, output = self._features_and_output(x, padding_mask)
        return features.pooled(aggregation), output

    def process_audio(self, x: Tensor) -> Tensor:
        """The network input that `audio_config` describes.

        Args:
            x: (S,) or (B, S) waveform at `sample_rate`.

        Returns:
            (B, F, T) for a spectrogram representation, else the waveform (B, S); on the model's device.

        Raises:
            ValueError: `x` is None.
        """
        if x is None:
            raise ValueError("Input tensor cannot be None.")
        waveform = (x.unsqueeze(0) if x.ndim == 1 else x).to(self.device)
        config = self.audio_config
        if config is None or config.representation == "raw":
            return waveform
        if self._spectrogram is None:
            from avex.frontends.spectrogram import SpectrogramFrontEnd

            # Not a sub-module: it holds no parameters and must not appear in the state dict.
            self.__dict__["_spectrogram"] = SpectrogramFrontEnd(config)
        return self._spectrogram.to(self.device)(waveform)[0]

    def batch_inference(self, batches: Iterable[Tensor]) -> Tensor:
        """Run `forward` on each batch and concatenate the results."""
        return torch.cat([self(batch) for batch in batches])

    def enable_gradient_checkpointing(self) -> None:
        """Trade computation for memory in training; families that can, override this."""
        raise NotImplementedError(f"{type(self).__name__} does not support gradient checkpointing.")

    # -- for classes that define only `forward` --------------------------------------------------------------

    def _features_and_output(self, x: Tensor, padding_mask: Tensor | None) -> tuple[Features, Tensor]:
        if type(self).forward is ModelBase.forward:
            raise NotImplementedError(f"{type(self).__name__} must define forward or forward_features.")
        head = None if self.return_features_only else self._head_name()
        with tap_layers(self, [head] if head else [], inputs=True) as taps:
            output = self._call_forward(x, padding_mask)
        return self._as_features(taps.get(head, output) if head else output), output

    def _call_forward(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        if padding_mask is None or "padding_mask" not in inspect.signature(self.forward).parameters:
            return self(x)
        return self(x, padding_mask=padding_mask)

    def _head_name(self) -> str | None:
        if isinstance(getattr(self, "classifier", None), nn.Module):
            return "classifier"
        linear = [name for name, module in self.named_modules() if isinstance(module, nn.Linear)]
        return linear[-1] if linear else None

    def _as_features(self, values: Tensor) -> Features:
        kinds = {2: "vector", 3: "tokens", 4: "map"}
        if values.ndim not in kinds:
            raise ValueError(f"Features must have 2, 3 or 4 dimensions, not {values.ndim}.")
        if kinds[values.ndim] == self.layout.kind:
            return Features(values, self.layout)
        return Features(values, TokenLayout(kinds[values.ndim]))  # type: ignore[arg-type]
