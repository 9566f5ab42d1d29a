"""BirdNET v2.4 as a PyTorch network: any device, several layers, faster than the published graph in batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from avex._core.errors import ConfigError
from avex._core.processors import available_cpus
from avex.configs import ModelCard
from avex.embedding.engines.base import EngineInfo, EngineOptions, EngineOutput
from avex.embedding.engines.birdnet import BAND_HZ
from avex.embedding.engines.compiling import check_options, compile_network
from avex.embedding.engines.layers import layer_dims
from avex.models.birdnet.model import BirdNet
from avex.models.features import Features, TokenLayout
from avex.models.layers import tap_layers
from avex.models.precision import LONG_NAMES, set_precision
from avex.models.utils.load import LoadRequest, load_card
from avex.weights.fingerprint import weights_identity

# On a CPU the maps of a batch still fit its cache; a GPU wants more to do at once.
_CPU_BATCH, _GPU_BATCH = 8, 128


class BirdNetNativeEngine:
    """BirdNET on the CPU or a GPU.

    On a CPU each session computes its own batches on one thread: small layers do not split well, and threads that
    wait for each other suffer when another program takes a processor. Threads that run a session keep torch at
    one thread.

    Args:
        card: The card with the file's path and checksum.
        options: How to run it. The spectrograms are exact in any precision.

    Raises:
        ConfigError: The card states no weights, or the model does not have such a precision or layer.

    Example:
        >>> engine = BirdNetNativeEngine(resolve("birdnet"))                  # doctest: +SKIP
        >>> engine.info.embedding_dim                                         # doctest: +SKIP
        1024
    """

    def __init__(self, card: ModelCard, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions()
        check_options(options)
        model = load_card(card, LoadRequest(device=options.device, options={"backend": "native"}))
        if not isinstance(model, BirdNet):
            raise ConfigError(f"Card '{card.name}' describes a {type(model).__name__}, not BirdNET.")
        identity = weights_identity(model)
        precision = set_precision(model, options.precision)
        on_cpu = model.device.type == "cpu"
        self._model = model
        self._taps = [] if options.own_output else model.resolve_layers(options.layers)
        self._aggregation: Any = options.aggregation
        self.labels = getattr(model, "label_mapping", None)
        self._classify = options.classify and self.labels is not None
        self.sessions = (options.workers or available_cpus()) if on_cpu else 1
        self.batch_size = options.batch_size or (_CPU_BATCH if on_cpu else _GPU_BATCH)
        self.info = EngineInfo(
            card=card.name,
            sample_rate=model.config.sample_rate,
            window_seconds=model.window_seconds,
            fixed_window=True,
            embedding_dim=self._embedding_dim(),
            weights_sha256=identity,
            resampler=card.resampler,
            runtime=f"torch {torch.__version__} on {self._place()}, native network"
            + (", compiled" if options.compile else ""),
            precision=LONG_NAMES[precision],
            layers=options.layer_names,
            aggregation=options.aggregation,
            layer_dims=layer_dims(model, options),
            band_hz=BAND_HZ,
            activation=card.activation,
            license=card.license,
            license_note=card.license_note,
        )
        if options.compile:
            compile_network(model)
            self._warm_up()

    def _warm_up(self) -> None:
        """Run the compiler before sessions run side by side; in a thread, whose settings are those of a session."""
        silence = np.zeros((self.batch_size, self._model.config.window_samples), np.float32)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.session().run, silence, np.full(len(silence), silence.shape[1])).result()

    def session(self) -> _Session:
        """Make a session; all of them share the network."""
        return _Session(self, self.sessions > 1, self.batch_size if self._model.device.type == "cpu" else 0)

    def compute(self, windows: np.ndarray) -> EngineOutput:
        """Compute a batch; BirdNET hears padding as silence. See `EngineSession.run`."""
        model = self._model
        with torch.inference_mode(), tap_layers(model, self._taps) as taps:
            features = model.forward_features(torch.from_numpy(windows).to(model.device))
            logits = model.forward_head(features) if self._classify else None
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
    def __init__(self, engine: BirdNetNativeEngine, one_thread: bool, full_batch: int) -> None:
        self._engine = engine
        self._one_thread = one_thread
        self._full_batch = full_batch

    def run(self, windows: np.ndarray, valid: np.ndarray) -> EngineOutput:
        """See `EngineSession.run`; what a window gives, to the last bit, does not depend on its batch."""
        rows = len(windows)
        if self._full_batch and rows < self._full_batch:
            # Products of other sizes are added up in another order. So short batches, which come at the end of
            # a run, are filled up: a run that was interrupted and goes on gives what one run would have given.
            windows = np.concatenate(
                [windows, np.zeros((self._full_batch - rows, windows.shape[1]), np.float32)]
            )
        output = self._compute(windows)
        logits = None if output.logits is None else output.logits[:rows]
        return EngineOutput(output.embedding[:rows], logits)

    def _compute(self, windows: np.ndarray) -> EngineOutput:
        # A setting of the calling thread, which is why it is not made in the constructor.
        if self._one_thread and torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        return self._engine.compute(windows)


def _pooled(values: torch.Tensor, aggregation: Any) -> torch.Tensor:
    return Features(values.float(), TokenLayout("map" if values.ndim == 4 else "vector")).pooled(aggregation)
