"""Any torch model on any device."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOutput
from avex.models.base_model import ModelBase
from avex.models.utils.load import LoadRequest, load_card
from avex.weights.fingerprint import state_fingerprint

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEngine:
    """A torch model in eval mode.

    Args:
        card: What to load.
        device: `cpu`, `cuda`, ...; None takes the card's, or the CPU where there is no such device.
        batch_size: Windows per forward pass.
        precision: `float32`, `bfloat16` or `float16` (autocast).
        layers: Layers of the embedding.
        aggregation: Pooling of the embedding.
        workers: Not used: one forward pass uses all processors.

    Raises:
        ConfigError: An unknown precision, or a model that is not a `ModelBase`.
    """

    sessions = 1

    def __init__(
        self,
        card: ModelCard,
        *,
        workers: int | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
        device: str | None = None,
        layers: tuple[str, ...] = ("last_layer",),
        aggregation: str = "mean",
    ) -> None:
        if precision not in _DTYPES:
            raise ConfigError(f"Unknown precision '{precision}'. Choose {', '.join(_DTYPES)}.")
        model = load_card(card, LoadRequest(device=device))
        if not isinstance(model, ModelBase):
            raise ConfigError(
                f"Model '{card.name}' is a {type(model).__name__}; to embed recordings, derive it from "
                "avex.models.base_model.ModelBase."
            )
        self._model = model
        self._precision = precision
        self._layers: Sequence[str | int] = layers
        self._aggregation: Any = aggregation
        self.labels = model.label_mapping
        self.batch_size = batch_size or (32 if model.device.type != "cpu" else 8)
        config = model.audio_config
        self.info = EngineInfo(
            card=card.name,
            sample_rate=model.sample_rate,
            window_seconds=config.target_length_seconds if config else None,
            fixed_window=False,
            embedding_dim=self._measured_dim(),
            weights_sha256=card.sha256 or state_fingerprint(model),
            resampler=card.resampler,
            runtime=f"torch {torch.__version__} on {_device_name(model.device)}",
            precision=precision,
            layers=tuple(str(layer) for layer in layers),
            aggregation=aggregation,
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )

    def _measured_dim(self) -> int:
        """Length of the embedding of the layers that were asked for, from one window of silence."""
        seconds = self._model.window_seconds or 1.0
        silence = torch.zeros(1, round(seconds * self._model.sample_rate), device=self._model.device)
        with torch.inference_mode():
            values = self._model.embed(silence, self._layers, self._aggregation)
        if values.ndim != 2:
            raise ConfigError(
                f"Layers {list(self._layers)} with aggregation '{self._aggregation}' give {tuple(values.shape)} a "
                "window, not one vector. Choose another aggregation."
            )
        return int(values.shape[1])

    def session(self) -> TorchEngine:
        """The engine is its own session: there is one model."""
        return self

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`; padding is masked for models that can use a mask."""
        model = self._model
        device = model.device
        x = torch.from_numpy(windows).to(device)
        mask = None
        if (valid < windows.shape[1]).any():
            lengths = torch.from_numpy(np.asarray(valid, np.int64))
            mask = (torch.arange(windows.shape[1]) >= lengths[:, None]).to(device)
        with torch.inference_mode(), self._autocast(device):
            embedding, logits = self._embed(x, mask)
        return EngineOutput(
            embedding.float().cpu().numpy(), None if logits is None else logits.float().cpu().numpy()
        )

    def _embed(self, x: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        model = self._model
        if self.labels is None:
            return model.embed(x, self._layers, self._aggregation, mask), None
        embedding, logits = model.embed_and_classify(x, mask, self._aggregation)
        if list(self._layers) not in (["last_layer"], ["backbone"]):
            embedding = model.embed(x, self._layers, self._aggregation, mask)
        return embedding, logits

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        dtype = _DTYPES[self._precision]
        return torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
