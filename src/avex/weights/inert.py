"""A pickle reader that builds tensors and plain data, and nothing else.

Pickles name functions and classes, and loading one normally imports and calls them. Here every name that is
not on a short list becomes an `Inert` object, which remembers its name and what it was given, and does
nothing. That is how the settings of old training programs (argparse, omegaconf, fairseq) can stand in the
file without those programs, and how a pickle with code in it stays harmless.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Iterable
from typing import IO, Any, ClassVar, Literal

import numpy as np
import torch

from avex._core.errors import UnsafeCheckpointError


class Inert:
    """Stands where the pickle names a function or a class that is not on the list.

    Attributes:
        qualified_name: The name, such as `"argparse.Namespace"` (on the class).
        args: What it would have been called with.
        state: What would have become its attributes; a dict for most objects, None if there was nothing.
        items: What would have been appended to it, or `(key, value)` pairs put into it.
    """

    qualified_name: ClassVar[str] = ""

    args: tuple[Any, ...]
    state: Any
    items: list[Any]

    def __new__(cls, *args: Any, **options: Any) -> Inert:
        """Make an instance, whatever the arguments are."""
        self = super().__new__(cls)
        self.args, self.state, self.items = (*args, *options.items()), None, []
        return self

    def __init__(self, *args: Any, **options: Any) -> None:
        pass  # __new__ has taken the arguments; pickles may or may not come this way

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Remember an item."""
        self.items.append(item)

    add = append

    def extend(self, items: Iterable[Any]) -> None:
        """Remember several items."""
        self.items.extend(items)

    def __call__(self, *args: Any) -> Inert:
        """Return another stand-in: what it makes is as unknown as it is itself."""
        return type(self)(*args)

    def __repr__(self) -> str:
        return f"<inert {self.qualified_name}>"


class InertUnpickler(pickle._Unpickler):
    """Reads one pickle without executing anything that it names.

    Built on the standard library's unpickler in Python, not the one in C: that one can be made to fill all
    memory by one damaged index, and pickles of checkpoints are short.

    Args:
        file: Open binary file, at the start of the pickle.
        storage: Called with a torch storage reference; returns its elements as a flat tensor.

    Attributes:
        foreign: The names that became `Inert`, in order of appearance.
    """

    # Without the opcode that allocates as many zeroed bytes as a number in the file says.
    dispatch: ClassVar[dict[int, Any]] = {
        code: method for code, method in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: IO[bytes], storage: Callable[[tuple[Any, ...]], Any]) -> None:
        super().__init__(file)
        self.foreign: dict[str, type[Inert]] = {}
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Return the object on the list, or an inert class; never import anything."""
        module = _PYTHON_2_NAMES.get(module, module)
        known = _KNOWN.get((module, name))
        if known is not None:
            return known
        if module == "torch" and name.endswith("Storage") and name in _STORAGES:
            return StorageType(_STORAGES[name])
        # vars, since getattr would let torch import a submodule of that name.
        if module == "torch" and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        full = f"{module}.{name}"
        if full not in self.foreign:
            self.foreign[full] = type(name.rpartition(".")[2], (Inert,), {"qualified_name": full})
        return self.foreign[full]

    def persistent_load(self, reference: Any) -> Any:
        """Resolve a reference to data outside of the pickle."""
        return self._storage(reference)


class StorageType:
    """Stands for a torch storage class: all that matters is its element type."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Known:
    """A function on the list, wrapped so that the pickle can call it but not alter it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise UnsafeCheckpointError(
            "A checkpoint tries to alter a function of its reader. Nothing was executed."
        )


class _NumpyDtype:
    """A numpy element type as pickles spell it: a code, then a state that holds the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code
        self.order: Literal["<", ">", "="] = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="


def _tensor(flat: torch.Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
    # The rest of the arguments (requires_grad, hooks) is about training.
    needed = (
        offset + 1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
    )
    if offset < 0 or min(stride, default=0) < 0 or needed > flat.numel():
        raise ValueError(
            f"a tensor of shape {tuple(size)} needs {needed} elements, its storage has {flat.numel()}"
        )
    # as_strided counts from the start of the memory, of which a part of a storage is not the first.
    return torch.as_strided(flat, size, stride, flat.storage_offset() + offset)


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _NumpyDtype) or not isinstance(data, bytes):
        raise ValueError("a numpy scalar of an unsupported kind")
    kind = np.dtype(dtype.code).newbyteorder(dtype.order)
    if kind.kind not in "biufcSU":
        raise ValueError(f"a numpy scalar of the unsupported type '{dtype.code}'")
    return np.frombuffer(data, kind, count=1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    # How old pickle protocols spell bytes.
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in the unexpected encoding '{encoding}'")
    return text.encode("latin1")


def _first(value: Any, *_: Any) -> Any:
    return value


_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
# torch.save writes pickles of protocol 2, which spell these as Python 2 did.
_PYTHON_2_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_KNOWN: dict[tuple[str, str], _Known] = {
    ("collections", "OrderedDict"): _Known(collections.OrderedDict),
    ("torch._utils", "_rebuild_tensor"): _Known(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Known(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Known(_first),
    ("torch._utils", "_rebuild_parameter_with_state"): _Known(_first),
    ("torch", "Size"): _Known(torch.Size),
    ("numpy", "dtype"): _Known(_NumpyDtype),
    ("numpy.core.multiarray", "scalar"): _Known(_numpy_scalar),
    ("numpy._core.multiarray", "scalar"): _Known(_numpy_scalar),
    ("_codecs", "encode"): _Known(_encode),
    ("builtins", "set"): _Known(set),
    ("builtins", "frozenset"): _Known(frozenset),
    ("builtins", "complex"): _Known(complex),
}
