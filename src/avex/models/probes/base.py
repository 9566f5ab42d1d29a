"""`Probe`: what all probes share: reading layers, a backbone or none, standardisation, learned weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.models.probes.inputs import HeadInput, LayerMix
from avex.models.probes.modes import in_eval_mode
from avex.models.probes.reading import read_embeddings
from avex.models.probes.report import debug_info, learned_weights, learned_weights_table


@dataclass(frozen=True)
class ProbeInfo:
    """What a probe was trained on, as saved with it.

    Attributes:
        labels: Names of the classes, in the order of the logits.
        card: Name of the model whose embeddings it reads.
        weights: Identity of that model's weights (`avex.weights.weights_identity`).
        metadata: Whatever else was saved: `sample_rate`, `window_s`, `hop_s`, `resampler`, scores.
    """

    labels: tuple[str, ...] | None = None
    card: str | None = None
    weights: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Probe(nn.Module):
    """A head on the embeddings of an encoder. Subclasses add the head: its modules, and `head`.

    With a `base_model` the probe takes waveforms, without one stored embeddings; everything else is the same.

    A frozen base is a guest: it runs in eval mode and without gradients whatever mode the probe is in, it is not
    among the probe's parameters, nor in its state dict, and several probes may share it. It moves along when the
    probe moves to another device. A base that is not frozen is a sub-module like any other.

    Args:
        inputs: Layers, and how the head's input is made of them.
        num_classes: Number of logits.
        base_model: The encoder, or None for embeddings.
        freeze_backbone: Train the head only.

    Attributes:
        config: What the probe was built from, if it was built by `build_probe_from_config`.
        options: Options of the head that were given besides the config.
        info: What it was trained on, if it was loaded.
        layer_weights: (L,) logits of the layers' weights, or None.
        input_mean: (D,) subtracted from the head's input, or None.
        input_std: (D,) that the rest is divided by, or None.

    Raises:
        ConfigError: A head for sequences on vectors or the reverse, or a base that cannot be what it is to be.
    """

    probe_type: ClassVar[str] = ""
    kind: ClassVar[HeadInput] = "vector"
    # Buffers that have no shape, or do not exist, before they are loaded.
    late_buffers: ClassVar[tuple[str, ...]] = ("input_mean", "input_std")

    base_model: ModelBase | None
    input_mean: Tensor | None
    input_std: Tensor | None

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        base_model: ModelBase | None = None,
        freeze_backbone: bool = True,
    ) -> None:
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"A probe needs at least one class, not num_classes={num_classes}.")
        if inputs.kind != self.kind:
            raise ConfigError(f"{type(self).__name__} reads a {self.kind}, but its input is a {inputs.kind}.")
        self.inputs = inputs
        self.num_classes = num_classes
        self.freeze_backbone = freeze_backbone
        self.config: ProbeConfig | None = None
        self.options: dict[str, Any] = {}
        self.info = ProbeInfo()
        self.layer_weights = nn.Parameter(torch.zeros(len(inputs.names))) if inputs.is_weighted else None
        self.embedding_projectors = inputs.make_projectors()
        # Heads that have learnt nothing have no tensor of their own, but are somewhere all the same.
        self.register_buffer("_place", torch.empty(0), persistent=False)
        self.register_buffer("input_mean", None)
        self.register_buffer("input_std", None)
        self._attach(base_model)

    def _attach(self, base: ModelBase | None) -> None:
        if base is None or self.freeze_backbone:
            if base is not None:
                base.eval()
            # Past nn.Module: a frozen base is no part of the probe.
            self.__dict__["base_model"] = base
            return
        if not any(
            p.requires_grad for name, p in base.named_parameters() if not name.startswith(base.head_prefixes)
        ):
            raise ConfigError(
                f"'{base.name or type(base).__name__}' has no parameters that could be trained, so it cannot be "
                "fine-tuned. Set freeze_backbone=True."
            )
        self.base_model = base

    # -- running -----------------------------------------------------------------------------------------

    def forward(self, x: Any, padding_mask: Tensor | None = None) -> Tensor:
        """Logits.

        Args:
            x: With a base model a waveform (B, S) or `{"raw_wav": ..., "padding_mask": ...}`; without one
                embeddings, see `forward_embeddings`.
            padding_mask: bool, True where padded: (B, S) for waveforms, (B, T) for embeddings.

        Returns:
            (B, num_classes).

        Raises:
            ValueError: An input of another form than the probe was built for.
        """
        if self.base_model is None:
            return self.forward_embeddings(x, padding_mask)
        return self._classify(list(self._encode(x, padding_mask).values()))

    def forward_embeddings(self, x: Any, padding_mask: Tensor | None = None) -> Tensor:
        """Logits (B, num_classes) of stored embeddings, with or without a base model.

        Args:
            x: (B, D), (B, T, D), (B, C, F, T) or `Features`; or a list or dict of these, one per layer. Layers
                that were stored side by side may be one tensor (B, sum of D).
            padding_mask: (B, T) bool at the rate of the embeddings.
        """
        return self._classify(self._stored(x, padding_mask))

    def head_input(self, x: Any, padding_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the head reads of stored embeddings, before standardisation: (B, D) or (B, N, D), and its mask."""
        return self._mix(self._stored(x, padding_mask))

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of the head's input; each subclass has its own.

        Args:
            x: (B, D), or for sequence probes (B, N, D).
            padding_mask: (B, N) bool, or None. No row is padding throughout.
        """
        raise NotImplementedError(f"{type(self).__name__} must define head(x, padding_mask).")

    def _classify(self, layers: list[Features]) -> Tensor:
        values, mask = self._mix(layers)
        if self.input_mean is not None and self.input_std is not None:
            values = (values - self.input_mean) / self.input_std
        if mask is not None:
            # A clip that is padding throughout has nothing to leave out.
            mask = mask & ~mask.all(1, keepdim=True)
        return self.head(values, mask)

    def _mix(self, layers: list[Features]) -> tuple[Tensor, Tensor | None]:
        dtype = self._dtype()
        layers = [Features(f.values.to(dtype), f.layout, f.padding_mask) for f in layers]
        return self.inputs.mix(layers, self.layer_weights, self.embedding_projectors)

    def _stored(self, x: Any, padding_mask: Tensor | None) -> list[Features]:
        names, mix = self.inputs.names, self.inputs
        side_by_side = isinstance(x, Tensor) and len(names) > 1 and x.shape[-1] == sum(mix.dims)
        if side_by_side and x.ndim == (2 if mix.kind == "vector" else 3):
            parts = list(x.split(mix.dims, dim=-1))
            return read_embeddings(parts, padding_mask, names)
        return read_embeddings(
            x,
            padding_mask,
            names,
            has_cls_token=mix.aggregation == "cls_token",
            needs_time=mix.kind == "sequence",
        )

    def _encode(self, x: Any, padding_mask: Tensor | None) -> dict[str, Features]:
        base = self.base_model
        assert base is not None
        if not self.freeze_backbone:
            return base.layer_features(x, self.inputs.names, padding_mask)
        with torch.no_grad(), in_eval_mode(base):
            return base.layer_features(x, self.inputs.names, padding_mask)

    def _dtype(self) -> torch.dtype:
        own = [(name, p) for name, p in self.named_parameters() if not name.startswith("base_model.")]
        tensors = [*(p for _, p in own), *(b for b in self._buffers.values() if b is not None)]
        return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)

    # -- state -------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the head computes."""
        place: Tensor = self._buffers["_place"]  # type: ignore[assignment]
        return place.device

    @property
    def layers(self) -> list[str]:
        """Names of the layers that are read."""
        return list(self.inputs.names)

    @property
    def feature_mode(self) -> bool:
        """Whether the probe takes embeddings rather than waveforms."""
        return self.base_model is None

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, if the probe was loaded with some."""
        return self.info.labels

    def set_standardisation(self, mean: Tensor, std: Tensor) -> None:
        """Subtract a mean from the head's input and divide by a standard deviation from now on.

        Args:
            mean: (D,) for inputs of width D.
            std: (D,), not negative. What does not vary (0) is divided by 1.

        Raises:
            ValueError: Another shape, or values that are negative or not finite.
        """
        shape = (self.inputs.dim,)
        if tuple(mean.shape) != shape or tuple(std.shape) != shape:
            raise ValueError(
                f"Mean and std must have shape {shape}, not {tuple(mean.shape)}, {tuple(std.shape)}."
            )
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std >= 0).all()):
            raise ValueError("Mean and std must be finite, and std not negative.")
        self.input_mean = mean.detach().to(self.device, self._dtype(), copy=True)
        std = torch.where(std == 0, torch.ones_like(std), std)
        self.input_std = std.detach().to(self.device, self._dtype(), copy=True)

    def learned_weights(self) -> dict[str, float]:
        """Share of each layer in the weighted sum, or an empty dict if layers are not weighted."""
        return learned_weights(self)

    def get_learned_weights_table(self) -> str:
        """The learned weights as a table to read."""
        return learned_weights_table(self)

    def debug_info(self) -> dict[str, Any]:
        """Settings and sizes, for reports of problems."""
        return debug_info(self)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Probe:
        super()._apply(fn, recurse)
        base = self.base_model
        if base is not None and self.freeze_backbone:
            # `fn` may also change the type of numbers, which is the base's own affair.
            device = fn(torch.empty(0, device=base.device)).device
            if device != base.device:
                base.to(device)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self.late_buffers:
            stored = state_dict.get(prefix + name)
            if stored is not None:
                present = self._buffers[name]
                device = present.device if present is not None else self.device
                self._buffers[name] = torch.empty_like(stored, device=device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
