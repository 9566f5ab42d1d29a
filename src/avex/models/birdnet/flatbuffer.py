"""Just enough of the TFLite file format to find the constants of a graph; needs no LiteRT.

A TFLite file is a FlatBuffer: tables that point to each other by offsets. A table starts with the distance back to
its vtable, which lists where in the table each field is, by the field's number in the schema; 0 means absent.

Sources: https://flatbuffers.dev/internals/ and TensorFlow Lite's `schema.fbs` (numbers of fields and operators).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

IDENTIFIER = b"TFL3"

# Numbers of fields in the schema.
_MODEL_CODES, _MODEL_GRAPHS, _MODEL_BUFFERS = 1, 2, 4
_CODE_OLD, _CODE = 0, 3
_GRAPH_TENSORS, _GRAPH_OPERATORS = 0, 3
_TENSOR_SHAPE, _TENSOR_TYPE, _TENSOR_BUFFER = 0, 1, 2
_OPERATOR_CODE, _OPERATOR_INPUTS = 0, 1
_BUFFER_DATA = 0

_FLOAT32 = 0
_OPERATORS = {
    0: "ADD",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    9: "FULLY_CONNECTED",
    18: "MUL",
    41: "SUB",
    78: "POW",
}


@dataclass(frozen=True)
class Operator:
    """An operator that reads float constants; the arrays are views of the file's bytes.

    Attributes:
        kind: Its name in the schema, such as `CONV_2D`.
        constants: Its float32 constants, in the order of its inputs.
    """

    kind: str
    constants: tuple[np.ndarray, ...]


def constant_operators(content: bytes | bytearray | mmap.mmap) -> Iterator[Operator]:
    """Operators of the first graph of a file that read float32 constants, in the order in which they run.

    Operators of other kinds than a convolutional network needs, and integer constants, which shape indices, are
    left out.

    Args:
        content: The file. Arrays can be written to if this can.

    Raises:
        struct.error, IndexError, ValueError: The file is damaged.
    """
    data = memoryview(content)
    model = _Table.root(data)
    codes, buffers = model.tables(_MODEL_CODES), model.tables(_MODEL_BUFFERS)
    graph = model.tables(_MODEL_GRAPHS)[0]
    tensors = graph.tables(_GRAPH_TENSORS)
    for operator in graph.tables(_GRAPH_OPERATORS):
        code = codes[operator.scalar(_OPERATOR_CODE, "<I")]
        # Small numbers stand in a field of their own, which is older than the other.
        kind = _OPERATORS.get(max(code.scalar(_CODE_OLD, "<b"), code.scalar(_CODE, "<i")))
        if kind is None:
            continue
        inputs = [tensors[index] for index in operator.numbers(_OPERATOR_INPUTS, np.int32) if index >= 0]
        found = (_constant(tensor, buffers) for tensor in inputs)
        if constants := tuple(values for values in found if values is not None):
            yield Operator(kind, constants)


def _constant(tensor: _Table, buffers: list[_Table]) -> np.ndarray | None:
    if tensor.scalar(_TENSOR_TYPE, "<b") != _FLOAT32:
        return None
    values = buffers[tensor.scalar(_TENSOR_BUFFER, "<I")].numbers(_BUFFER_DATA, np.uint8)
    shape = tensor.numbers(_TENSOR_SHAPE, np.int32)
    return values.view(np.float32).reshape(shape.tolist()) if len(values) else None


@dataclass(frozen=True)
class _Table:
    """A table of a FlatBuffer, at a position in its bytes."""

    data: memoryview
    position: int

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _field(self, number: int) -> int | None:
        """Where a field is, or None if it has its default value."""
        vtable = self.position - struct.unpack_from("<i", self.data, self.position)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", self.data, vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, vtable + 4 + 2 * number)[0]
        return self.position + offset if offset else None

    def scalar(self, number: int, kind: str) -> int:
        """A number; 0 if it is not stated."""
        field = self._field(number)
        return 0 if field is None else int(struct.unpack_from(kind, self.data, field)[0])

    def _vector(self, number: int) -> tuple[int, int]:
        """Where a vector's first item is, and how many it has."""
        field = self._field(number)
        if field is None:
            return 0, 0
        start = field + struct.unpack_from("<I", self.data, field)[0]
        return start + 4, struct.unpack_from("<I", self.data, start)[0]

    def numbers(self, number: int, dtype: type[np.generic]) -> np.ndarray:
        """A vector of numbers, as a view."""
        start, count = self._vector(number)
        return np.frombuffer(self.data, dtype, count, start)

    def tables(self, number: int) -> list[_Table]:
        """A vector of tables."""
        start, count = self._vector(number)
        offsets = struct.unpack_from(f"<{count}I", self.data, start)
        return [_Table(self.data, start + 4 * i + offset) for i, offset in enumerate(offsets)]
