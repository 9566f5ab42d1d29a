"""torch.save files read without torch.load: tensors and plain data come out, everything else is inert."""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from avex._core.errors import UnsafeCheckpointError, WeightsError
from avex.weights.inert import InertUnpickler, StorageType
from avex.weights.sniff import DAMAGE, Container


class RestrictedReader:
    """Reads one torch.save file. Nothing that the file names is imported or called.

    Args:
        path: The file.
        container: What `sniff_container` says it is.

    Attributes:
        foreign: The names of the functions and classes that became inert, in order of appearance; also filled
            when `read` fails.
    """

    def __init__(self, path: Path, container: Container) -> None:
        self.path, self.container = path, container
        self.foreign: list[str] = []

    def read(self) -> Any:
        """Return the object that was saved.

        Tensors of zip files are memory-mapped (private copy on write), those of legacy files are in memory.

        Raises:
            WeightsError: The file is damaged, or is a bare pickle.
        """
        try:
            if self.container == "zip":
                return self._read_zip()
            with self.path.open("rb") as file:
                return self._read_legacy(file) if self.container == "legacy" else self._read_bare(file)
        except UnsafeCheckpointError:
            raise
        except DAMAGE as error:
            raise WeightsError(
                f"Checkpoint '{self.path}' is damaged, or was not written by torch.save: {error}. Download it "
                "again, or convert it to safetensors."
            ) from error

    def _unpickle(self, file: IO[bytes], storage: Callable[[tuple[Any, ...]], Any]) -> Any:
        unpickler = InertUnpickler(file, storage)
        try:
            return unpickler.load()
        finally:
            self.foreign += [name for name in unpickler.foreign if name not in self.foreign]

    def _read_zip(self) -> Any:
        with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as file:
            records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "byteorder" in records and archive.read(records["byteorder"]) != b"little":
                raise ValueError("its numbers are big-endian, which is not supported")
            # Copy on write: torch wants writable memory, the file must not change.
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            cache: dict[str, torch.Tensor] = {}

            def storage(reference: tuple[Any, ...]) -> torch.Tensor:
                kind, key, count = _storage_reference(reference)
                if key not in cache:
                    cache[key] = _mapped(memory, records[f"data/{key}"], kind.dtype, count)
                return cache[key]

            with archive.open(records["data.pkl"]) as stream:
                return self._unpickle(stream, storage)

    def _read_legacy(self, file: IO[bytes]) -> Any:
        for _ in range(2):  # magic number, protocol version
            self._unpickle(file, _no_storage)
        system = self._unpickle(file, _no_storage)
        if not (isinstance(system, dict) and system.get("little_endian", True)):
            raise ValueError("its numbers are big-endian, which is not supported")
        size, flats = self.path.stat().st_size, {}

        def storage(reference: tuple[Any, ...]) -> Any:
            if reference[0] == "module":  # a class beside its source code, which is not wanted
                return reference[1]
            kind, key, count = _storage_reference(reference)
            if key not in flats:
                if not 0 <= count * kind.dtype.itemsize <= size:
                    raise ValueError(f"it is truncated ({size} bytes)")
                flats[key] = torch.empty(count, dtype=kind.dtype)
            view = reference[5] if len(reference) > 5 else None
            return flats[key] if view is None else flats[key][view[1] : view[1] + view[2]]

        saved = self._unpickle(file, storage)
        for key in self._unpickle(file, _no_storage):
            _fill(flats[key], file)
        return saved

    def _read_bare(self, file: IO[bytes]) -> Any:
        self._unpickle(file, _no_storage)
        raise ValueError("it is a bare pickle")


def _storage_reference(reference: Any) -> tuple[StorageType, str, int]:
    """Take `("storage", type, key, device, number of elements, ...)` to pieces."""
    if not isinstance(reference, tuple) or len(reference) < 5 or reference[0] != "storage":
        raise ValueError("it refers to something other than tensor data")
    kind, key, count = reference[1], reference[2], reference[4]
    if not isinstance(kind, StorageType) or not isinstance(count, int) or count < 0:
        raise ValueError("it holds tensor data of an unknown type")
    return kind, str(key), count


def _mapped(memory: mmap.mmap, record: zipfile.ZipInfo, dtype: torch.dtype, count: int) -> torch.Tensor:
    if record.compress_type != zipfile.ZIP_STORED or count * dtype.itemsize > record.file_size:
        raise ValueError(f"its record '{record.filename}' is compressed or too short")
    if count == 0:
        return torch.empty(0, dtype=dtype)
    # The data follow the local header: 30 bytes, then a name and an extra field of stated lengths.
    name, extra = (
        int.from_bytes(memory[record.header_offset + at : record.header_offset + at + 2], "little")
        for at in (26, 28)
    )
    start = record.header_offset + 30 + name + extra
    end = start + count * dtype.itemsize
    if end > len(memory):
        raise ValueError(f"its record '{record.filename}' is not where it should be")
    if start % dtype.itemsize:
        return torch.frombuffer(bytearray(memory[start:end]), dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start)


def _fill(flat: torch.Tensor, file: IO[bytes]) -> None:
    count = int.from_bytes(file.read(8), "little")
    buffer = flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(bytearray())
    data = file.read(len(buffer))
    if count != flat.numel() or len(data) != math.prod(flat.shape) * flat.dtype.itemsize:
        raise ValueError("it is truncated")
    buffer[:] = data


def _no_storage(reference: Any) -> Any:
    raise ValueError("it refers to tensor data in an unexpected place")
