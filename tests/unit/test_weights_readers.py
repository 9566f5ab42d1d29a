from __future__ import annotations

import argparse
import collections
import contextlib
import json
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from avex._core.errors import WeightsError
from avex.weights import read_checkpoint, read_header
from avex.weights.pickles import RestrictedReader
from avex.weights.safetensors_file import read_tensors
from avex.weights.sniff import read_safetensors_header, sniff_container


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 3, 5, generator=generator),
        "conv.bias": torch.randn(4, generator=generator).half(),
        "norm.weight": torch.randn(4, generator=generator).bfloat16(),
        "norm.num_batches_tracked": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "double": torch.randn(2, 2, generator=generator).double(),
        "none": torch.empty(0, 3),
    }


def assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert list(actual) == list(expected)
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype
        assert torch.equal(actual[name], tensor), name


HEADER = {
    "conv.weight": ((4, 3, 5), "float32"),
    "conv.bias": ((4,), "float16"),
    "norm.weight": ((4,), "bfloat16"),
    "norm.num_batches_tracked": ((), "int64"),
    "mask": ((3,), "bool"),
    "double": ((2, 2), "float64"),
    "none": ((0, 3), "float32"),
}


class TestSafetensors:
    def test_tensors_metadata_and_header(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.bin"  # the name says nothing
        save_file(state(), file, metadata={"num_classes": "10"})
        checkpoint = read_checkpoint(file)
        assert checkpoint.format == "safetensors"
        assert checkpoint.metadata == {"num_classes": "10"}
        assert_same(dict(sorted(checkpoint.tensors.items())), dict(sorted(state().items())))
        assert read_header(file) == HEADER
        assert read_checkpoint(file, "safetensors").tensors.keys() == state().keys()
        # A layout is called fairseq too, whatever the container.
        assert read_checkpoint(file, "fairseq").format == "safetensors"
        assert read_header(file, "esp") == HEADER

    def test_the_header_is_read_without_the_tensors(self, tmp_path: Path) -> None:
        """A sparse file of 4 TB: the header is there, the data are not."""
        header = {"w": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}
        raw = json.dumps(header).encode()
        file = tmp_path / "huge.safetensors"
        with file.open("wb") as target:
            target.write(struct.pack("<Q", len(raw)) + raw)
            target.truncate(8 + len(raw) + 4 * 10**12)
        assert read_header(file) == {"w": ((10**12,), "float32")}

    def test_published_without_tensors(self, tmp_path: Path) -> None:
        """One official file was 240 bytes long: a header of metadata, and nothing else."""
        raw = json.dumps({"__metadata__": {"format": "safetensors", "license": "CC-BY-NC-SA"}}).encode()
        raw = raw.ljust(232)
        file = tmp_path / "esp-aves2-eat-bio.safetensors"
        file.write_bytes(struct.pack("<Q", len(raw)) + raw)
        assert file.stat().st_size == 240
        for read in (read_checkpoint, read_header):
            with pytest.raises(WeightsError, match=r"holds no tensors \(240 bytes\)"):
                read(file)

    @pytest.mark.parametrize("keep", [6, 9, 100, -1])
    def test_truncated(self, tmp_path: Path, keep: int) -> None:
        file = tmp_path / "w.safetensors"
        save_file(state(), file)
        file.write_bytes(file.read_bytes()[:keep])
        for read in (read_checkpoint, read_header):
            with pytest.raises(WeightsError, match=r"truncated|not a checkpoint"):
                read(file)

    @pytest.mark.parametrize(
        "raw",
        [
            b"{]",
            b'{"w": 3}',
            b'{"w": {"dtype": "F32"}}',
            b'{"w": {"dtype": 3, "shape": [1], "data_offsets": [0, 4]}}',
        ],
    )
    def test_damaged_header(self, tmp_path: Path, raw: bytes) -> None:
        file = tmp_path / "w.safetensors"
        file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
        with pytest.raises(WeightsError, match="damaged"):
            read_safetensors_header(file)

    def test_overlapping_tensors_are_refused_by_the_library(self, tmp_path: Path) -> None:
        header = {
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        }
        raw = json.dumps(header).encode()
        file = tmp_path / "w.safetensors"
        file.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(8))
        with pytest.raises(WeightsError, match="damaged"):
            read_checkpoint(file)


class TestTorch:
    @pytest.mark.parametrize("new_format", [True, False])
    def test_flat(self, tmp_path: Path, new_format: bool) -> None:
        file = tmp_path / "w.safetensors"  # the name lies
        torch.save(state(), file, _use_new_zipfile_serialization=new_format)
        checkpoint = read_checkpoint(file)
        assert checkpoint.format == "torch"
        assert checkpoint.metadata == {}
        assert_same(checkpoint.tensors, state())
        assert read_header(file) == HEADER

    @pytest.mark.parametrize("name", ["model_state_dict", "state_dict", "model"])
    def test_wrapped(self, tmp_path: Path, name: str) -> None:
        file = tmp_path / "w.pt"
        optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
        extra = {"cfg": {"encoder_layers": 12}, "num_classes": 10, "epoch": 3, "label_dict": {0: "/m/1"}}
        torch.save({"optimizer": optimizer, name: collections.OrderedDict(state()), **extra}, file)
        checkpoint = read_checkpoint(file)
        assert_same(checkpoint.tensors, state())
        assert checkpoint.metadata == extra

    def test_a_tensor_called_model_is_not_a_wrapper(self, tmp_path: Path) -> None:
        torch.save({"model": torch.ones(2), "state_dict": {}}, tmp_path / "w.pt")
        checkpoint = read_checkpoint(tmp_path / "w.pt")
        assert list(checkpoint.tensors) == ["model"]
        assert checkpoint.metadata == {"state_dict": {}}

    def test_nested_groups_get_dotted_names(self, tmp_path: Path) -> None:
        torch.save(
            {"model": {"a": torch.ones(1), "_ema": {"a": torch.zeros(1)}, "step": 4}}, tmp_path / "w.pt"
        )
        checkpoint = read_checkpoint(tmp_path / "w.pt")
        assert list(checkpoint.tensors) == ["a", "_ema.a"]
        assert checkpoint.metadata == {"step": 4}

    def test_what_is_left_out_beside_the_state_dict_is_named(self, tmp_path: Path) -> None:
        layer = torch.nn.Linear(2, 2)
        optimiser = torch.optim.Adam(layer.parameters())
        layer(torch.ones(1, 2)).sum().backward()
        optimiser.step()
        average = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
        saved = {
            "ema": average,
            "model": {**layer.state_dict(), "_ema": {"bias": torch.zeros(2)}},
            "teacher": {"state_dict": average},
            "optimizer": optimiser.state_dict(),
            "epoch": 7,
        }
        torch.save(saved, tmp_path / "w.pt")
        checkpoint = read_checkpoint(tmp_path / "w.pt")
        assert_same(checkpoint.tensors, {**layer.state_dict(), "_ema.bias": torch.zeros(2)})
        assert checkpoint.others == ("ema", "teacher")
        assert checkpoint.metadata == {"epoch": 7}

    def test_parameters_come_out_as_plain_tensors(self, tmp_path: Path) -> None:
        torch.save(dict(torch.nn.Linear(2, 2).named_parameters()), tmp_path / "w.pt")
        assert not any(tensor.requires_grad for tensor in read_checkpoint(tmp_path / "w.pt").tensors.values())

    def test_changing_the_tensors_leaves_the_file(self, tmp_path: Path) -> None:
        torch.save(state(), tmp_path / "w.pt")
        read_checkpoint(tmp_path / "w.pt").tensors["conv.weight"].zero_()
        assert_same(read_checkpoint(tmp_path / "w.pt").tensors, state())

    @pytest.mark.parametrize("new_format", [True, False])
    @pytest.mark.parametrize("format", [None, "fairseq"])
    def test_truncated(self, tmp_path: Path, new_format: bool, format: str | None) -> None:
        file = tmp_path / "w.pt"
        torch.save(state(), file, _use_new_zipfile_serialization=new_format)
        whole = file.read_bytes()
        for keep in (len(whole) // 3, len(whole) - 10):
            file.write_bytes(whole[:keep])
            with pytest.raises(WeightsError, match=r"truncated|damaged"):
                read_checkpoint(file, format)

    def test_no_state_dict(self, tmp_path: Path) -> None:
        torch.save(torch.ones(3), tmp_path / "tensor.pt")
        with pytest.raises(WeightsError, match="holds a 'Tensor', not a state dict"):
            read_checkpoint(tmp_path / "tensor.pt")
        torch.save({"epoch": 3}, tmp_path / "empty.pt")
        with pytest.raises(WeightsError, match="holds no tensors"):
            read_checkpoint(tmp_path / "empty.pt")

    def test_another_format_than_said(self, tmp_path: Path) -> None:
        torch.save(state(), tmp_path / "w.pt")
        with pytest.raises(
            WeightsError, match="said to be of format 'safetensors', but its content is 'torch'"
        ):
            read_checkpoint(tmp_path / "w.pt", "safetensors")
        save_file(state(), tmp_path / "w.safetensors")
        with pytest.raises(WeightsError, match="said to be of format 'torch'"):
            read_checkpoint(tmp_path / "w.safetensors", "torch")
        with pytest.raises(WeightsError, match="said to be of format 'torch'"):
            read_header(tmp_path / "w.safetensors", "torch")

    def test_torchscript(self, tmp_path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated in recent versions of torch
            torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "w.pt"))
        for format in (None, "torch", "fairseq"):
            with pytest.raises(WeightsError, match="TorchScript program"):
                read_checkpoint(tmp_path / "w.pt", format)


class TestRestrictedReader:
    """The reader that never imports anything must agree with torch.load on ordinary files."""

    @pytest.mark.parametrize("new_format", [True, False])
    def test_agrees_with_torch(self, tmp_path: Path, new_format: bool) -> None:
        file = tmp_path / "w.pt"
        base = torch.arange(24.0).reshape(4, 6)
        saved = {
            **state(),
            "view": base[1:3, ::2],
            "transposed": base.T,
            "expanded": torch.ones(3, 1).expand(3, 4),
            "complex": torch.ones(2, dtype=torch.complex64) * 1j,
            "parameter": torch.nn.Parameter(torch.ones(2)),
            "shape": torch.Size([1, 2]),
            "dtype": torch.float16,
            "set": {1, 2},
            "bytes": b"\x00\xff",
            "text": "a",
        }
        torch.save(saved, file, _use_new_zipfile_serialization=new_format)
        reader = RestrictedReader(file, sniff_container(file))
        ours, theirs = reader.read(), torch.load(file, weights_only=True)
        assert reader.foreign == []
        assert list(ours) == list(theirs)
        for name, value in theirs.items():
            if isinstance(value, torch.Tensor):
                assert ours[name].stride() == value.stride()
                assert torch.equal(ours[name], value), name
            else:
                assert ours[name] == value
        assert ours["transposed"].data_ptr() == ours["view"].data_ptr() - 6 * 4  # one storage, as saved

    def test_tensors_may_not_reach_beyond_their_storage(self, tmp_path: Path) -> None:
        class Liar:
            def __reduce__(self) -> tuple[object, tuple[object, ...]]:
                storage = torch.ones(4).untyped_storage()
                typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
                return torch._utils._rebuild_tensor_v2, (
                    typed,
                    0,
                    (1000,),
                    (1,),
                    False,
                    collections.OrderedDict(),
                )

        file = tmp_path / "w.pt"
        torch.save({"w": Liar()}, file)
        with pytest.raises(WeightsError, match="needs 1000 elements, its storage has 4"):
            read_checkpoint(file, "fairseq")

    def test_unaligned_and_compressed_records(self, tmp_path: Path) -> None:
        torch.save({"w": torch.arange(5.0)}, tmp_path / "w.pt")
        for compression, name in ((zipfile.ZIP_STORED, "stored.pt"), (zipfile.ZIP_DEFLATED, "deflated.pt")):
            with (
                zipfile.ZipFile(tmp_path / "w.pt") as old,
                zipfile.ZipFile(tmp_path / name, "w", compression) as new,
            ):
                for entry in old.namelist():
                    new.writestr(entry, old.read(entry))
        reader = RestrictedReader(tmp_path / "stored.pt", "zip")
        assert torch.equal(reader.read()["w"], torch.arange(5.0))
        with pytest.raises(WeightsError, match="compressed"):
            RestrictedReader(tmp_path / "deflated.pt", "zip").read()

    def test_big_endian_files_are_refused(self, tmp_path: Path) -> None:
        torch.save({"w": torch.ones(1)}, tmp_path / "w.pt")
        with zipfile.ZipFile(tmp_path / "w.pt") as old, zipfile.ZipFile(tmp_path / "big.pt", "w") as new:
            for entry in old.namelist():
                new.writestr(entry, b"big" if entry.endswith("/byteorder") else old.read(entry))
        with pytest.raises(WeightsError, match="big-endian"):
            RestrictedReader(tmp_path / "big.pt", "zip").read()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
            "Git LFS pointer.*git lfs pull",
        ),
        (b"\n  <!DOCTYPE html><html><body>Sign in</body></html>", "HTML page"),
        (b"<html></html>", "HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML document"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "TFLite graph"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (b'{"error": "Repository not found"}', "is a JSON document"),
        (
            b'{\n  "metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
            "join several into one",
        ),
        (b"RIFF" + bytes(100), "not a checkpoint: it begins with b'RIFF"),
        (b"PK\x03\x04" + bytes(100), "truncated or damaged"),
        (pickle.dumps({"a": 1}), "bare pickle"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(content)
    for read in (read_checkpoint, read_header):
        with pytest.raises(WeightsError, match=what) as caught:
            read(file)
        assert str(file) in str(caught.value)


def test_folders_and_other_archives(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a folder"):
        read_checkpoint(tmp_path)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"")
    with pytest.raises(WeightsError, match=r"zip archive that torch\.save did not write"):
        read_checkpoint(tmp_path / "a.npz")
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "absent.pt")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    small = {"conv.weight": torch.ones(2, 3), "bias": torch.ones(2).half(), "step": torch.tensor(7)}
    saved = {"model": small, "args": argparse.Namespace(layers=12)}
    save_file(small, folder / "safetensors")
    torch.save(saved, folder / "zip")
    torch.save(saved, folder / "legacy", _use_new_zipfile_serialization=False)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("format", [None, "fairseq"])
def test_parts_of_storages_in_very_old_files(tmp_path: Path, format: str | None) -> None:
    """Early versions of torch stored a tensor's share of a storage as (name, first element, elements)."""

    class Part:
        def __init__(self, first, count):
            self.first, self.count = first, count

    class Row:
        def __init__(self, *part):
            self.part = Part(*part)

        def __reduce__(self):
            arguments = (self.part, 0, (self.part.count,), (1,), False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    class OldPickler(pickle.Pickler):
        def persistent_id(self, value):
            if not isinstance(value, Part):
                return None
            view = (f"part {value.first}", value.first, value.count)
            return ("storage", torch.FloatStorage, "1", "cpu", 10, view)

    path = tmp_path / "old.pt"
    with path.open("wb") as file:
        for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(header, file, protocol=2)
        OldPickler(file, protocol=2).dump({"a": Row(2, 3), "b": Row(5, 4)})
        pickle.dump(["1"], file, protocol=2)
        file.write((10).to_bytes(8, "little") + np.arange(10, dtype=np.float32).tobytes())
    tensors = read_checkpoint(path, format).tensors
    assert {name: value.tolist() for name, value in tensors.items()} == {"a": [2, 3, 4], "b": [5, 6, 7, 8]}


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    header = read_safetensors_header(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)
    with pytest.raises(WeightsError, match="ended while it was read"):
        read_tensors(path, header)


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_anywhere_is_one_kind_of_error(
    kind: str, data: st.DataObject, originals: dict[str, bytes], tmp_path: Path
) -> None:
    """Whatever happens to the bytes: a checkpoint or a WeightsError, never anything else, and never a hang."""
    damaged = bytearray(originals[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        change = data.draw(st.one_of(st.integers(0, 255), st.binary(max_size=8)))
        damaged[place : place + 1] = bytes([change]) if isinstance(change, int) else change
    file = tmp_path / "damaged"
    file.write_bytes(damaged)
    for format in (None, "fairseq"):
        with warnings.catch_warnings(), contextlib.suppress(WeightsError):
            warnings.simplefilter("ignore")  # torch remarks on odd protocol numbers
            assert read_checkpoint(file, format).tensors
