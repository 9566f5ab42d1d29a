"""Any torch model on any device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOptions, EngineOutput
from avex.embedding.engines.compiling import check_options, compile_network
from avex.embedding.engines.layers import layer_dims
from avex.models.base_model import ModelBase
from avex.models.precision import LONG_NAMES, set_precision
from avex.models.utils.load import LoadRequest, load_card
from avex.weights.fingerprint import weights_identity

_CPU_BATCH, _OTHER_BATCH = 8, 32


class TorchEngine:
    """A torch model in eval mode.

    What a window gives does not depend on the windows that it shares a batch with. Where padding is masked,
    windows with padding are computed apart from those without: a mask sends even the others through another
    kernel, which rounds differently.

    Args:
        card: What to load.
        options: How to run it; `workers` is not used, as one forward pass uses all processors.

    Raises:
        ConfigError: An unknown precision, a model that is not a `ModelBase`, or one that cannot be compiled.

    Example:
        >>> engine = TorchEngine(resolve("beats_iter3_plus_as2m"))           # doctest: +SKIP
        >>> engine.info.embedding_dim                                         # doctest: +SKIP
        768
    """

    sessions = 1

    def __init__(self, card: ModelCard, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        check_options(options)
        model = load_card(card, LoadRequest(device=options.device))
        if not isinstance(model, ModelBase):
            raise ConfigError(
                f"Model '{card.name}' is a {type(model).__name__}; to embed recordings, derive it from "
                "avex.models.base_model.ModelBase."
            )
        identity = weights_identity(model)
        precision = set_precision(model, options.precision)
        self._model = model
        self._options = options
        self._aggregation: Any = options.aggregation
        self.labels = getattr(model, "label_mapping", None)
        self._classify = options.classify and self.labels is not None
        self.batch_size = options.batch_size or (_CPU_BATCH if model.device.type == "cpu" else _OTHER_BATCH)
        if options.compile:
            compile_network(model)
        config = model.audio_config
        self.info = EngineInfo(
            card=card.name,
            sample_rate=model.sample_rate,
            window_seconds=config.target_length_seconds if config else None,
            fixed_window=False,
            embedding_dim=self._measured_dim(),
            weights_sha256=identity,
            resampler=card.resampler,
            runtime=_runtime(model.device, options.compile),
            precision=LONG_NAMES[precision],
            layers=options.layer_names,
            aggregation=options.aggregation,
            layer_dims=layer_dims(model, options),
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )

    def _measured_dim(self) -> int:
        """Length of the embedding of the layers that were asked for, from silence."""
        seconds = self._model.window_seconds or 1.0
        rows = self.batch_size if self._options.compile else 1
        silence = torch.zeros(rows, round(seconds * self._model.sample_rate), device=self._model.device)
        with torch.inference_mode():
            values = self._model.embed(silence, self._options.layers, self._aggregation)
        if values.ndim != 2:
            raise ConfigError(
                f"Layers {list(self._options.layers)} with aggregation '{self._aggregation}' give "
                f"{tuple(values.shape)} a window, not one vector. Choose another aggregation."
            )
        return int(values.shape[1])

    def session(self) -> TorchEngine:
        """The engine is its own session: there is one model."""
        return self

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`; padding is masked for models that can use a mask."""
        padded = np.asarray(valid) < windows.shape[1]
        if padded.all() or not padded.any() or not self._hears_masks():
            return self._compute(windows, valid)
        whole, cut = (
            self._compute(windows[~padded], valid[~padded]),
            self._compute(windows[padded], valid[padded]),
        )
        order = np.argsort(np.concatenate([np.flatnonzero(~padded), np.flatnonzero(padded)]))
        logits = None
        if whole.logits is not None and cut.logits is not None:
            logits = np.concatenate([whole.logits, cut.logits])[order]
        return EngineOutput(np.concatenate([whole.embedding, cut.embedding])[order], logits)

    def _hears_masks(self) -> bool:
        """Whether a padding mask may change results; of a class that does not say, one must suppose so."""
        own_class = type(self._model).forward_features is ModelBase.forward_features
        return own_class or self._model.padding_rule != "none"

    def _compute(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        rows = len(windows)
        if self._options.compile and rows < self.batch_size:
            # Another size would be compiled anew.
            windows = np.pad(windows, ((0, self.batch_size - rows), (0, 0)))
            valid = np.pad(valid, (0, self.batch_size - rows), constant_values=windows.shape[1])
        x = torch.from_numpy(windows).to(self._model.device)
        mask = None
        if (np.asarray(valid) < windows.shape[1]).any():
            lengths = torch.from_numpy(np.asarray(valid, np.int64))
            mask = (torch.arange(windows.shape[1]) >= lengths[:, None]).to(x.device)
        with torch.inference_mode():
            embedding, logits = self._embed(x, mask)
        return EngineOutput(_array(embedding[:rows]), None if logits is None else _array(logits[:rows]))

    def _embed(self, x: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        model, layers = self._model, self._options.layers
        if not self._classify:
            return model.embed(x, layers, self._aggregation, mask), None
        embedding, logits = model.embed_and_classify(x, mask, self._aggregation)
        if not self._options.own_output:
            embedding = model.embed(x, layers, self._aggregation, mask)
        return embedding, logits


def _array(values: torch.Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _runtime(device: torch.device, compiled: bool) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
    return f"torch {torch.__version__} on {name}{', compiled' if compiled else ''}"
