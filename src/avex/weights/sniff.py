"""What a weights file is, by its first bytes rather than its name; and the header of safetensors files.

Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from avex._core.errors import WeightsError

Container = Literal["safetensors", "zip", "legacy", "pickle"]
FILE_FORMATS = ("safetensors", "torch", "fairseq")

# Whatever a damaged or hostile file can make the readers of zip, pickle and tensors raise.
DAMAGE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError),
    *(
        ArithmeticError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        MemoryError,
        AssertionError,
    ),
)

_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
# The number that torch.save wrote first before version 1.6, as a pickled integer.
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
REMEDY = "Download the file again, or pass another checkpoint_path=... ."
_IMPOSTORS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights themselves. Run 'git lfs pull' in its repository.",
    ),
    (b"<!doctype", "an HTML page (of a login or an error, most likely). Download it with the right link."),
    (b"<html", "an HTML page (of a login or an error, most likely). Download it with the right link."),
    (b"<?xml", "an XML document, such as the error message of a storage service. " + REMEDY),
    (b"\x89hdf", "an HDF5 file (Keras). Only PyTorch and safetensors weights can be read."),
)
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
_WIDTHS = {
    name: int("".join(filter(str.isdigit, code.partition("_")[0])) or 8) // 8
    for code, name in _DTYPES.items()
}
# A zip archive that grows to more than this many times its size is a trap, not a checkpoint.
_MAX_GROWTH = 20


class TensorInfo(NamedTuple):
    """Shape and element type of a tensor that has not been read.

    Attributes:
        shape: Size along each dimension.
        dtype: Name as in torch and numpy, such as `"float32"`.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a safetensors file says about itself before its first tensor.

    Attributes:
        tensors: Name to shape and element type, in file order.
        metadata: Free text that its author stored with it.
        starts: Where in the file the values of each begin, in bytes.
    """

    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    starts: dict[str, int] = field(default_factory=dict)


def sniff_container(path: Path) -> Container:
    """Tell which container a weights file is.

    Returns:
        `"safetensors"`; `"zip"` for what torch.save writes since version 1.6; `"legacy"` for what it wrote
        before; `"pickle"` for any other pickle.

    Raises:
        WeightsError: It is none of these; the message says what it seems to be, and what to do.
    """
    if path.is_dir():
        raise WeightsError(f"Checkpoint '{path}' is a folder. Pass the weights file inside it.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise WeightsError(f"Checkpoint '{path}' is empty (0 bytes). {REMEDY}")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for magic, what in _IMPOSTORS:
        if start.startswith(magic):
            raise WeightsError(f"Checkpoint '{path}' is {what}")
    if head[4:8] == b"TFL3":
        raise WeightsError(f"Checkpoint '{path}' is a TFLite graph. Load it as a model, not as weights.")
    if head[8:9] == b"{" and 2 <= (length := int.from_bytes(head[:8], "little")) <= _MAX_HEADER:
        if length > size - 8:
            raise _truncated(path, size)
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_torch_zip(path, size)
        return "zip"
    if start.startswith(b"{"):
        raise WeightsError(
            f"Checkpoint '{path}' is a JSON document: settings, an error message, or the index of weights in "
            "several files. Pass the weights file itself; join several into one first (load_file and save_file "
            "of safetensors.torch)."
        )
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "legacy" if _LEGACY_MAGIC in head[:32] else "pickle"
    raise WeightsError(
        f"File '{path}' is not a checkpoint: it begins with {head[:16]!r}. Expected a safetensors file or one "
        f"written by torch.save. {REMEDY}"
    )


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file, and nothing else of it.

    Raises:
        WeightsError: The header is damaged, or the file is shorter or longer than it says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise _truncated(path, size)
        raw = file.read(length)
    try:
        entries: dict[str, Any] = json.loads(raw)
        metadata = entries.pop("__metadata__", {})
        tensors = {
            name: TensorInfo(tuple(entry["shape"]), _DTYPES.get(entry["dtype"], entry["dtype"].lower()))
            for name, entry in entries.items()
        }
        spans = {name: _span(entry["data_offsets"]) for name, entry in entries.items()}
        end = _check_spans(spans, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsError(f"The header of checkpoint '{path}' is damaged ({error}). {REMEDY}") from error
    if end != size - 8 - length:
        raise _truncated(path, size, expected=end + 8 + length)
    starts = {name: 8 + length + begin for name, (begin, _) in spans.items()}
    return SafetensorsHeader(tensors, metadata, starts)


def _span(offsets: Any) -> tuple[int, int]:
    begin, end = offsets
    return int(begin), int(end)


def _check_spans(spans: dict[str, tuple[int, int]], tensors: dict[str, TensorInfo]) -> int:
    """Return where the last tensor ends; raise unless all stand end to end and are as long as their shapes."""
    position = 0
    for name, (begin, end) in sorted(spans.items(), key=lambda item: item[1]):
        shape, dtype = tensors[name]
        if any(not isinstance(length, int) or length < 0 for length in shape):
            raise ValueError(f"'{name}' has the shape {list(shape)}")
        width = _WIDTHS.get(dtype)
        if begin != position or end < begin or (width and end - begin != width * math.prod(shape)):
            raise ValueError(f"'{name}' of shape {list(shape)} is said to be in bytes {begin} to {end}")
        position = end
    return position


def _check_torch_zip(path: Path, size: int) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (*DAMAGE, OSError) as error:
        raise _truncated(path, size) from error
    kinds = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if any(not 0 <= entry.header_offset < size or entry.compress_type not in kinds for entry in entries):
        raise _truncated(path, size)
    if (unpacked := sum(entry.file_size for entry in entries)) > _MAX_GROWTH * size + (1 << 20):
        raise WeightsError(
            f"Checkpoint '{path}' has {size} bytes and claims to unpack to {unpacked}. Nothing was unpacked. "
            f"Weights do not compress that well: the file is damaged or made to fill the memory. {REMEDY}"
        )
    members = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in members:
        raise WeightsError(
            f"Checkpoint '{path}' is a TorchScript program, which holds code. Nothing was executed. Expected "
            "tensors only: save its state_dict() as safetensors and pass that file."
        )
    if "data.pkl" not in members:
        raise WeightsError(f"Checkpoint '{path}' is a zip archive that torch.save did not write. {REMEDY}")


def _truncated(path: Path, size: int, expected: int | None = None) -> WeightsError:
    wanted = f" of {expected}" if expected is not None else ""
    return WeightsError(
        f"Checkpoint '{path}' is truncated or damaged (it has {size}{wanted} bytes): an interrupted download, "
        f"most likely. {REMEDY}"
    )
