"""Clips through a model: every layer that is wanted, from one forward pass.

A clip is cut into windows of the model's own length, if it has one. Networks that hear a fixed window only
(BirdNET, Perch) get a window every third of its length, others one after the other; a last window is moved
back so that it ends with the clip. An embedding is the mean over the windows. A clip that is shorter than a
window is padded with zeros for networks with a fixed window and runs at its own length in others; below half
a second it is padded there too. Only windows of one length share a batch, so that what a clip gives does not
depend on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from avex._core.errors import ConfigError
from avex.audio import Method, Windower, read
from avex.data.clips import Clip
from avex.evaluation.contents import heard
from avex.models.base_model import ModelBase
from avex.models.features import Features
from avex.weights.fingerprint import weights_identity

Floats = npt.NDArray[np.float32]
Pooling = Literal["mean", "max", "cls_token", "none"]
_HOPS_PER_FIXED_WINDOW = 3
_SHORTEST_SECONDS = 0.5
_CPU_BATCH, _OTHER_BATCH = 8, 32


@dataclass(frozen=True)
class EncodingPlan:
    """All that determines embeddings of clips besides layers and audio; part of the key of the cache.

    Attributes:
        card: Name of the model.
        weights: Identity of its weights.
        sample_rate: Rate of the waveforms, Hz.
        resampler: How they get there.
        window_s: Length of a window; None takes whole clips.
        hop_s: Seconds from one window to the next.
        fixed: Whether the network hears only such windows.
        pooling: How features become vectors; `none` keeps the sequence.
        precision: Arithmetic of the network.
        device: Kind of device: its arithmetic is part of the numbers.
        settings: Of the model, which the weights say nothing of: normalisation, filter bank, ...
    """

    card: str
    weights: str
    sample_rate: int
    resampler: Method
    window_s: float | None
    hop_s: float | None
    fixed: bool
    pooling: Pooling
    precision: str
    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Window:
    """A window on its way into a batch: of which clip, which of its windows."""

    clip: int
    position: int
    samples: Floats


class ClipEncoder:
    """A model that turns clips into embeddings of its layers.

    Args:
        model: The model; it is put into eval mode.
        card: Its name.
        resampler: How audio gets to its rate.
        pooling: How features become vectors; `none` keeps sequences (T, D).
        batch_size: Windows per pass; None takes what suits the device.
        settings: Settings that the model was made with; part of the key of the cache.

    Raises:
        ConfigError: An unknown pooling.

    Example:
        >>> encoder = ClipEncoder(load_model("birdnet"), "birdnet")                    # doctest: +SKIP
        >>> encoder.encode(clips, ["last_layer"])["last_layer"][0].shape               # doctest: +SKIP
        (1024,)
    """

    def __init__(
        self,
        model: ModelBase,
        card: str,
        resampler: Method = "soxr_hq",
        pooling: Pooling = "mean",
        batch_size: int | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if pooling not in ("mean", "max", "cls_token", "none"):
            raise ConfigError(f"Unknown pooling '{pooling}'. Choose mean, max, cls_token or none.")
        self._model = model.eval()
        self._batch = batch_size or (_CPU_BATCH if model.device.type == "cpu" else _OTHER_BATCH)
        window, fixed = model_window(model)
        hop = window / _HOPS_PER_FIXED_WINDOW if window and fixed and pooling != "none" else window
        self.plan = EncodingPlan(
            card=card,
            weights=weights_identity(model),
            sample_rate=model.sample_rate,
            resampler=resampler,
            window_s=window,
            hop_s=hop,
            fixed=fixed,
            pooling=pooling,
            precision=model.precision,
            device=model.device.type,
            settings=dict(settings or {}),
        )

    def layer_names(self, layers: Sequence[str | int]) -> list[str]:
        """Names under which `encode` returns layers."""
        return self._model.layer_keys(layers)

    def encode(
        self, clips: Sequence[Clip], layers: Sequence[str], max_seconds: float | None = None
    ) -> dict[str, list[Floats]]:
        """Embeddings of clips.

        Args:
            clips: The clips.
            layers: Names of layers, from `layer_names`.
            max_seconds: What goes beyond this is not heard.

        Returns:
            By layer one array per clip: (D,), or (T, D) with the pooling `none`.

        Raises:
            AudioError: A recording cannot be read; the message names it.
        """
        found: dict[str, list[list[Any]]] = {layer: [[] for _ in clips] for layer in layers}
        waiting: dict[int, list[_Window]] = defaultdict(list)
        for number, clip in enumerate(clips):
            windows = self._windows(clip, max_seconds)
            for rows in found.values():
                rows[number] = [None] * len(windows)
            for position, samples in enumerate(windows):
                same = waiting[len(samples)]
                same.append(_Window(number, position, samples))
                if len(same) == self._batch:
                    self._run(waiting.pop(len(samples)), found)
        for batch in waiting.values():
            self._run(batch, found)
        return {layer: [self._join(parts) for parts in rows] for layer, rows in found.items()}

    def _run(self, batch: list[_Window], found: dict[str, list[list[Any]]]) -> None:
        waves = torch.from_numpy(np.stack([window.samples for window in batch]))
        for layer, rows in self._forward(waves, list(found)).items():
            for window, row in zip(batch, rows, strict=True):
                found[layer][window.clip][window.position] = row

    def _join(self, parts: list[Floats]) -> Floats:
        if self.plan.pooling == "none":
            return np.concatenate(parts)
        stacked = np.stack(parts)
        return stacked.max(0) if self.plan.pooling == "max" else stacked.mean(0, dtype=np.float32)

    def _windows(self, clip: Clip, max_seconds: float | None) -> list[Floats]:
        plan = self.plan
        start, end = heard(clip, max_seconds)
        samples, rate = read(
            clip.path,
            start_s=start,
            end_s=end,
            sample_rate=plan.sample_rate,
            resampler=plan.resampler,
        )
        samples = np.ascontiguousarray(samples, np.float32)
        if plan.window_s is None or plan.hop_s is None:
            return [_at_least(samples, round(_SHORTEST_SECONDS * rate))]
        windower = Windower(plan.window_s, plan.hop_s, "shift")
        size = windower.window_samples(rate)
        if len(samples) <= size:
            return [
                _at_least(
                    samples, size if plan.fixed else round(min(_SHORTEST_SECONDS, plan.window_s) * rate)
                )
            ]
        return [samples[window.start : window.stop] for window in windower.plan(len(samples), rate)]

    def _forward(self, waves: torch.Tensor, layers: Sequence[str]) -> dict[str, list[Floats]]:
        with torch.inference_mode():
            features = self._model.layer_features(waves.to(self._model.device), list(layers))
        return {layer: self._vectors(features[layer]) for layer in layers}

    def _vectors(self, features: Features) -> list[Floats]:
        if self.plan.pooling != "none":
            values = features.pooled(self.plan.pooling)
        else:
            values = features.tokens() if features.layout.kind != "vector" else features.values.unsqueeze(1)
        return list(values.float().cpu().numpy())


def model_window(model: ModelBase) -> tuple[float | None, bool]:
    """Length of a model's window in seconds, if it has one, and whether it hears nothing else."""
    own = getattr(model, "window_samples", None) or getattr(
        getattr(model, "config", None), "window_samples", None
    )
    if own:
        return float(own) / model.sample_rate, True
    seconds = model.window_seconds
    return (None if seconds is None else float(seconds)), False


def _at_least(samples: Floats, size: int) -> Floats:
    return np.pad(samples, (0, size - len(samples))) if len(samples) < size else samples
