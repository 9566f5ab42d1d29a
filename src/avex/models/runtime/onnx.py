"""ONNX graphs through onnxruntime: chosen outputs, any number of items, on CPU or CUDA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import ConfigError, WeightsError
from avex._core.optional import require
from avex.models.runtime.threads import runtime_threads

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxGraph:
    """An ONNX file with one input, ready to run; sessions of onnxruntime may be shared by threads.

    Args:
        path: The `.onnx` file.
        device: `cpu`, `cuda` or `cuda:N`.
        num_threads: Threads for one operator; None takes the processors that this process may use. Left alone,
            onnxruntime counts the cores of the machine, whatever a container or batch system allows.
        extra: The extra of avex to name when onnxruntime is missing.

    Attributes:
        input_shape: Shape of the input; None where the graph leaves a size open.
        outputs: Name to shape of each output, in the graph's order.

    Raises:
        WeightsError: The file is not an ONNX graph, or takes another number of inputs than one.
        ConfigError: onnxruntime cannot compute on that device here.
        MissingExtraError: onnxruntime is not installed.

    Example:
        >>> graph = OnnxGraph("perch_v2.onnx")                                # doctest: +SKIP
        >>> graph.run(np.zeros((1, 160000), np.float32), ["embedding"])[0].shape  # doctest: +SKIP
        (1, 1536)
    """

    def __init__(
        self, path: str | Path, device: str = "cpu", num_threads: int | None = None, extra: str = "onnx"
    ) -> None:
        runtime = require("onnxruntime", extra, "Running an ONNX graph")
        self.path = Path(path)
        self._arguments = (str(path), device, num_threads, extra)
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, they need not be printed as well
        options.intra_op_num_threads = num_threads or runtime_threads()
        self._failures = _failures(runtime)
        kind, _, index = device.partition(":")
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=_providers(runtime, kind, index)
            )
        except self._failures as error:
            raise WeightsError(
                f"'{path}' is not a usable ONNX graph: {error}. Download the file again."
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise WeightsError(f"'{path}' takes {len(inputs)} inputs ({_names(inputs)}), expected one.")
        self._input = inputs[0].name
        self.input_shape = _shape(inputs[0])
        self.outputs = {output.name: _shape(output) for output in self._session.get_outputs()}

    def __reduce__(self) -> tuple[Any, ...]:
        # A session can be neither copied nor pickled; the copy opens the file again.
        return type(self), self._arguments

    def run(self, inputs: np.ndarray, outputs: Sequence[str] | None = None) -> list[np.ndarray]:
        """Run any number of items, in batches of the graph's size if that is fixed.

        A last batch that is not full is filled up with copies of its last item, which are then dropped.

        Args:
            inputs: (N, ...) float32.
            outputs: Names of the outputs; None takes all.

        Returns:
            One array (N, ...) per output.

        Raises:
            ValueError: The items do not have the shape that the graph takes, or there are none.
            WeightsError: The graph has no such output, or fails while it runs.
        """
        names = list(self.outputs) if outputs is None else list(outputs)
        if unknown := [name for name in names if name not in self.outputs]:
            raise WeightsError(
                f"'{self.path}' has no output '{unknown[0]}'. It has: {', '.join(self.outputs)}."
            )
        expected = self.input_shape[1:]
        fits = len(inputs.shape) == len(self.input_shape) and all(
            size in (None, actual) for size, actual in zip(expected, inputs.shape[1:], strict=True)
        )
        if not fits or len(inputs) == 0:
            raise ValueError(f"The graph takes items of shape {expected}, not an array of {inputs.shape}.")
        count = len(inputs)
        size = self.input_shape[0] or count
        if missing := -count % size:
            inputs = np.concatenate([inputs, np.repeat(inputs[-1:], missing, axis=0)])
        parts = [self._run(names, inputs[start : start + size]) for start in range(0, len(inputs), size)]
        joined = (np.concatenate(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True))
        return [array[:count] for array in joined]

    def _run(self, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
        try:
            return self._session.run(names, {self._input: inputs})
        except self._failures as error:
            raise WeightsError(
                f"The graph '{self.path}' fails for an input of shape {inputs.shape}: {error}. Pass clips of a "
                "length that it was made for."
            ) from error


def _providers(runtime: Any, kind: str, index: str) -> list[Any]:
    available = runtime.get_available_providers()
    provider = _PROVIDERS.get(kind)
    if provider not in available:
        raise ConfigError(
            f"onnxruntime cannot compute on '{kind}' here; it has {', '.join(available)}. Use device='cpu', or "
            "install its build for that device (for CUDA: onnxruntime-gpu)."
        )
    return [(provider, {"device_id": int(index)}) if index else provider]


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    state = runtime.capi.onnxruntime_pybind11_state
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names)


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape)


def _names(values: Sequence[Any]) -> str:
    return ", ".join(value.name for value in values)
