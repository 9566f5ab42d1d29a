"""TFLite graphs through LiteRT: intermediate tensors as outputs, several single-thread sessions in parallel.

On CPU several interpreters of one thread each beat one interpreter of many threads, because the small layers
of an audio network do not split well. LiteRT releases the GIL while it computes, so Python threads do.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import WeightsError
from avex._core.optional import require

# Position of the vector of output tensors in the table SubGraph of the TFLite schema (field 2).
_SUBGRAPH_OUTPUTS_VTABLE = 8


_BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_banner_lock = threading.Lock()
_banner_seen = False


@contextlib.contextmanager
def _without_banner() -> Iterator[None]:
    """Keep LiteRT's greeting off the terminal.

    It comes once per process, from native code, straight to file descriptor 2. Whatever else is written there
    meanwhile is passed on.
    """
    global _banner_seen
    with _banner_lock:
        if _banner_seen:
            yield
            return
        try:
            saved = os.dup(2)
        except OSError:  # no stderr, nothing to keep clean
            yield
            return
        with tempfile.TemporaryFile() as captured:
            os.dup2(captured.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved, 2)
                os.close(saved)
                _banner_seen = True
                captured.seek(0)
                lines = [line for line in captured if not line.startswith(_BANNER)]
                if lines:
                    os.write(2, b"".join(lines))


class LiteRTGraph:
    """A TFLite file held in memory, from which sessions are made.

    Args:
        path: The `.tflite` file.
        extra: The extra of avex to name when LiteRT is missing.

    Raises:
        WeightsError: The file is not a TFLite graph.
        MissingExtraError: LiteRT is not installed.

    Example:
        >>> graph = LiteRTGraph("model.tflite")            # doctest: +SKIP
        >>> graph.session().run(np.zeros((2, 144000), np.float32))[0].shape
        (2, 6522)
    """

    def __init__(self, path: str | Path, extra: str = "litert") -> None:
        self._interpreter_module = require("ai_edge_litert.interpreter", extra, "Running a TFLite graph")
        self._schema = require("ai_edge_litert.schema_py_generated", extra, "Reading a TFLite graph")
        self.path = Path(path)
        self._content = self.path.read_bytes()
        if self._content[4:8] != b"TFL3":
            raise WeightsError(
                f"'{path}' is not a TFLite graph: its file identifier is {self._content[4:8]!r}."
            )
        subgraph = self._subgraph()
        self.outputs: tuple[int, ...] = tuple(int(i) for i in subgraph.OutputsAsNumpy())

    def _subgraph(self) -> Any:
        return self._schema.Model.GetRootAsModel(self._content, 0).Subgraphs(0)

    def producer_inputs(self, tensor: int) -> list[int]:
        """Tensors that the operator which writes `tensor` reads, in its order.

        Raises:
            WeightsError: No operator writes it.
        """
        subgraph = self._subgraph()
        for index in range(subgraph.OperatorsLength() - 1, -1, -1):
            operator = subgraph.Operators(index)
            if tensor in operator.OutputsAsNumpy():
                return [int(i) for i in operator.InputsAsNumpy()]
        raise WeightsError(f"No operator of '{self.path}' writes tensor {tensor}.")

    def set_outputs(self, tensors: Sequence[int]) -> None:
        """Make these tensors the outputs of all sessions made from now on.

        LiteRT reuses the memory of intermediate tensors, so reading one needs it declared as an output. The
        declaration is changed in memory: a new vector is appended and the sub-graph's offset points to it.
        """
        content = bytearray(self._content)
        content.extend(b"\0" * (-len(content) % 4))
        table = self._subgraph()._tab
        field = table.Pos + table.Offset(_SUBGRAPH_OUTPUTS_VTABLE)
        struct.pack_into("<I", content, field, len(content) - field)
        content.extend(struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors))
        self._content = bytes(content)
        self.outputs = tuple(tensors)

    def session(self, batch_size: int = 1, num_threads: int = 1) -> LiteRTSession:
        """Make an interpreter with its own working memory; the graph itself is shared."""
        with _without_banner():
            interpreter = self._interpreter_module.Interpreter(
                model_content=self._content, num_threads=num_threads
            )
            return LiteRTSession(interpreter, self.outputs, batch_size)


class LiteRTSession:
    """One interpreter with a fixed batch size; to be used by one thread at a time."""

    def __init__(self, interpreter: Any, outputs: Sequence[int], batch_size: int) -> None:
        self._interpreter = interpreter
        self._outputs = tuple(outputs)
        self.batch_size = batch_size
        details = interpreter.get_input_details()[0]
        self._input = details["index"]
        self._item_shape = tuple(int(n) for n in details["shape"][1:])
        if batch_size != 1:
            interpreter.resize_tensor_input(self._input, [batch_size, *self._item_shape])
        interpreter.allocate_tensors()

    def run(self, inputs: np.ndarray) -> list[np.ndarray]:
        """Run any number of items.

        Args:
            inputs: (N, ...) float32.

        Returns:
            One array (N, ...) per output tensor, float32.
        """
        if inputs.shape[1:] != self._item_shape:
            raise ValueError(f"The graph takes items of shape {self._item_shape}, not {inputs.shape[1:]}.")
        count, size = len(inputs), self.batch_size
        results: list[np.ndarray] = []
        for start in range(0, count, size):
            part = inputs[start : start + size]
            target = self._interpreter.tensor(self._input)()
            target[: len(part)] = part
            target[len(part) :] = 0  # a short last batch: the rest is computed and thrown away
            del target  # LiteRT refuses to run while a view of its memory is alive
            self._interpreter.invoke()
            for position, tensor in enumerate(self._outputs):
                values = self._interpreter.tensor(tensor)()
                if len(results) <= position:
                    results.append(np.empty((count, *values.shape[1:]), np.float32))
                results[position][start : start + len(part)] = values[: len(part)]
                del values
        return results
