"""BirdNET v2.4 as a PyTorch network: any device, several layers, faster than the published graph in batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOutput
from avex.embedding.engines.birdnet import BAND_HZ, available_cpus
from avex.io import sha256_of
from avex.models.birdnet.model import BirdNet
from avex.models.features import Features, TokenLayout
from avex.models.layers import tap_layers
from avex.models.utils.load import LoadRequest, load_card
from avex.weights.source import WeightSource

# On a CPU the maps of a batch still fit its cache; a GPU wants more to do at once.
_CPU_BATCH, _GPU_BATCH = 16, 128


class BirdNetNativeEngine:
    """BirdNET on the CPU or a GPU.

    On a CPU each session computes its own batches on one thread: small layers do not split well, and threads that
    wait for each other suffer when another program takes a processor. Threads that run a session keep torch at
    one thread. With layers other than the embedding there is one session, as taps belong to one pass at a time.

    Args:
        card: The card with the file's path and checksum.
        workers: Parallel sessions on a CPU; None takes one per processor.
        batch_size: Windows per forward pass.
        precision: `float32`, `bfloat16` or `float16`; the spectrograms are exact in any case.
        device: `cpu`, `cuda`, ...; None takes the card's.
        layers: Layers of the embedding.
        aggregation: How maps are pooled.

    Raises:
        ConfigError: The card states no weights, or the model does not have such a precision.

    Example:
        >>> engine = BirdNetNativeEngine(resolve("birdnet"))                  # doctest: +SKIP
        >>> engine.info.embedding_dim                                         # doctest: +SKIP
        1024
    """

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
        if card.checkpoint_path is None:
            raise ConfigError("The card of BirdNET must state checkpoint_path.")
        options = {"backend": "native", "precision": precision}
        model = load_card(card, LoadRequest(device=device, options=options))
        if not isinstance(model, BirdNet):
            raise ConfigError(f"Card '{card.name}' describes a {type(model).__name__}, not BirdNET.")
        source = WeightSource(card.checkpoint_path, card.checkpoint_format, card.sha256)
        on_cpu = model.device.type == "cpu"
        self._model = model
        default = list(layers) in (["last_layer"], ["backbone"])
        self._taps = [] if default else model.resolve_layers(layers)
        self._aggregation: Any = aggregation
        self.labels = model.label_mapping
        self.sessions = (workers or available_cpus()) if on_cpu and not self._taps else 1
        self.batch_size = batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.info = EngineInfo(
            card=card.name,
            sample_rate=model.config.sample_rate,
            window_seconds=model.window_seconds,
            fixed_window=True,
            embedding_dim=self._embedding_dim(),
            weights_sha256=card.sha256 or sha256_of(source.fetch()),
            resampler=card.resampler,
            runtime=f"torch {torch.__version__} on {self._place()}, native network",
            precision=precision,
            layers=layers,
            aggregation=aggregation,
            band_hz=BAND_HZ,
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )

    def session(self) -> _Session:
        """Make a session; all of them share the network."""
        return _Session(self, one_thread=self.sessions > 1)

    def compute(self, windows: np.ndarray) -> EngineOutput:
        """Compute a batch; BirdNET hears padding as silence. See `EngineSession.run`."""
        model = self._model
        with torch.inference_mode(), tap_layers(model, self._taps) as taps:
            features = model.forward_features(torch.from_numpy(windows).to(model.device))
            logits = model.forward_head(features) if self.labels else None
            tapped = [_pooled(taps[name], self._aggregation) for name in self._taps]
            embedding = torch.cat(tapped, -1) if tapped else features.pooled(self._aggregation)
        return EngineOutput(embedding.float().cpu().numpy(), None if logits is None else logits.cpu().numpy())

    def _embedding_dim(self) -> int:
        if not self._taps:
            return self._model.embedding_dim
        size = self._model.config.window_samples
        return self.compute(np.zeros((1, size), np.float32)).embedding.shape[-1]

    def _place(self) -> str:
        device = self._model.device
        if device.type == "cpu":
            plural = "session" if self.sessions == 1 else "sessions"
            return f"CPU, {self.sessions} {plural}"
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


class _Session:
    def __init__(self, engine: BirdNetNativeEngine, one_thread: bool) -> None:
        self._engine = engine
        self._one_thread = one_thread

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`."""
        # A setting of the calling thread, which is why it is not made in the constructor.
        if self._one_thread and torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        return self._engine.compute(windows)


def _pooled(values: torch.Tensor, aggregation: Any) -> torch.Tensor:
    return Features(values, TokenLayout("map" if values.ndim == 4 else "vector")).pooled(aggregation)
