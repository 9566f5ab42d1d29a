"""Nothing in a checkpoint is ever executed: every test looks for the file that the payload would write."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avex._core.errors import UnsafeCheckpointError, WeightsError
from avex.weights import read_checkpoint, read_header
from avex.weights.inert import Inert


class Payload:
    """Calls a function when a careless reader loads it."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class StatePayload:
    """Hides its call in the state of a harmless object."""

    def __init__(self, payload: Payload) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), {"x": self.payload}


def payloads(marker: Path) -> dict[str, Any]:
    touch = f"open({str(marker)!r}, 'w').close()"
    return {
        "posix.system": Payload(os.system, f"touch '{marker}'"),
        "builtins.eval": Payload(eval, touch),
        "builtins.exec": Payload(exec, touch),
        "io.open": Payload(open, str(marker), "w"),
        "builtins.getattr": Payload(getattr, str, "upper"),
        "functools.partial": Payload(functools.partial, os.system, f"touch '{marker}'"),
        "torch.serialization.load": Payload(torch.load, str(marker)),
        "torch.storage._load_from_bytes": Payload(torch.storage._load_from_bytes, b"x"),
        "state": StatePayload(Payload(os.system, f"touch '{marker}'")),
    }


def write(saved: Any, file: Path, kind: str) -> None:
    if kind == "bare":
        file.write_bytes(pickle.dumps(saved))
    else:
        torch.save(saved, file, _use_new_zipfile_serialization=kind == "zip")


NAMES = list(payloads(Path("x")))


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("name", NAMES)
def test_code_is_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pt"
    write({"model": {"w": torch.ones(2) if kind != "bare" else 0}, "cfg": payloads(marker)[name]}, file, kind)
    expected = "posix.system" if name == "state" else name
    for read in (read_checkpoint, read_header):
        with pytest.raises(UnsafeCheckpointError) as caught:
            read(file)
        message = str(caught.value)
        for part in (expected, "Nothing of it was executed", "safetensors", "fairseq", str(file)):
            assert part in message
        with pytest.raises(UnsafeCheckpointError):
            read(file, "torch")
    assert not marker.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", NAMES)
def test_code_is_inert_in_fairseq_files(tmp_path: Path, name: str, kind: str) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pt"
    write({"model": {"w": torch.ones(2)}, "cfg": payloads(marker)[name]}, file, kind)
    checkpoint = read_checkpoint(file, "fairseq")
    assert torch.equal(checkpoint.tensors["w"], torch.ones(2))
    inert = checkpoint.metadata["cfg"]
    assert isinstance(inert, Inert)
    assert inert.qualified_name.removeprefix("_") == ("argparse.Namespace" if name == "state" else name)
    assert not marker.exists()


def test_the_payloads_work_when_carelessly_loaded(tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    pickle.loads(pickle.dumps(payloads(tmp_path / "marker")["posix.system"]))
    assert (tmp_path / "marker").exists()


def test_code_in_the_place_of_the_state_dict(tmp_path: Path) -> None:
    file = tmp_path / "evil.pt"
    torch.save(Payload(os.system, f"touch '{tmp_path / 'marker'}'"), file)
    with pytest.raises(UnsafeCheckpointError, match=r"posix\.system"):
        read_checkpoint(file)
    with pytest.raises(WeightsError, match="holds a 'system', not a state dict"):
        read_checkpoint(file, "fairseq")
    assert not (tmp_path / "marker").exists()


def test_calling_what_an_inert_call_returns_stays_inert(tmp_path: Path) -> None:
    """getattr(os, "system")("touch marker"), spelled in opcodes."""
    marker = tmp_path / "marker"
    code = (
        b"\x80\x02}(X\x01\x00\x00\x00wK\x01X\x01\x00\x00\x00x"
        b"cbuiltins\ngetattr\ncos\n__dict__\nX\x06\x00\x00\x00system\x86R"
        + b"X"
        + len(f"touch {marker}".encode()).to_bytes(4, "little")
        + f"touch {marker}".encode()
        + b"\x85Ru."
    )
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", code)
        archive.writestr("evil/version", "3")
    with pytest.raises(UnsafeCheckpointError, match=r"'builtins\.getattr', 'os\.__dict__'"):
        read_checkpoint(tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_checkpoint(tmp_path / "evil.pt", "fairseq")
    assert not marker.exists()


def test_the_reader_itself_cannot_be_altered(tmp_path: Path) -> None:
    """BUILD on a function of the allow-list: setting its __defaults__ would outlive this file."""
    code = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", code)
    with pytest.raises(UnsafeCheckpointError, match="alter"):
        read_checkpoint(tmp_path / "evil.pt", "fairseq")


def test_whole_pickled_models_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"'torch\.nn\.modules\.linear\.Linear'"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.fixture
def foreign_modules() -> Iterator[types.SimpleNamespace]:
    """Stand-ins for the packages that old training programs pickled their settings with."""
    names = ("fairseq", "fairseq.data", "fairseq.data.dictionary", "omegaconf", "omegaconf.dictconfig")
    modules = {name: types.ModuleType(name) for name in names}

    class Dictionary:
        def __init__(self) -> None:
            self.symbols, self.bos_word = ["<s>", "a"], "<s>"

    class Modality(enum.Enum):
        AUDIO = 1
        IMAGE = 2

    class DictConfig(dict):  # type: ignore[type-arg]
        def __init__(self) -> None:
            super().__init__(model="eat", depth=12)
            self._parent = None

    for cls, home in (
        (Dictionary, "fairseq.data.dictionary"),
        (Modality, "fairseq.data"),
        (DictConfig, "omegaconf.dictconfig"),
    ):
        cls.__module__, cls.__qualname__ = home, cls.__name__
        setattr(modules[home], cls.__name__, cls)
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(Dictionary=Dictionary, Modality=Modality, DictConfig=DictConfig)
    finally:
        for name in names:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("new_format", [True, False])
def test_old_fairseq_files(tmp_path: Path, foreign_modules: types.SimpleNamespace, new_format: bool) -> None:
    file = tmp_path / "aves.pt"
    saved = {
        "args": argparse.Namespace(encoder_layers=12, arch="hubert"),
        "cfg": foreign_modules.DictConfig(),
        "task_state": {"dictionaries": [foreign_modules.Dictionary()]},
        "modality": foreign_modules.Modality.IMAGE,
        "best_loss": np.float64(0.25),
        "updates": np.int64(-7),
        "model": {
            "encoder.weight": torch.arange(6.0).reshape(2, 3),
            "_ema": {"encoder.weight": torch.zeros(2, 3)},
        },
        "last_optimizer_state": {"state": {0: {"exp_avg": torch.ones(2, 3)}}},
    }
    torch.save(saved, file, _use_new_zipfile_serialization=new_format)
    for name in [name for name in sys.modules if name.split(".")[0] in ("fairseq", "omegaconf")]:
        del sys.modules[name]
    for format in (None, "fairseq"):
        checkpoint = read_checkpoint(file, format)
        assert checkpoint.format == "fairseq"
        assert torch.equal(checkpoint.tensors["encoder.weight"], torch.arange(6.0).reshape(2, 3))
        assert list(checkpoint.tensors) == ["encoder.weight", "_ema.encoder.weight"]
    metadata = checkpoint.metadata
    assert "last_optimizer_state" not in metadata
    assert metadata["best_loss"] == 0.25
    assert metadata["updates"] == -7
    assert metadata["args"].state == {"encoder_layers": 12, "arch": "hubert"}
    assert repr(metadata["args"]) == "<inert argparse.Namespace>"
    assert dict(metadata["cfg"].items) == {"model": "eat", "depth": 12}
    assert metadata["task_state"]["dictionaries"][0].state["symbols"] == ["<s>", "a"]
    assert metadata["modality"].qualified_name in ("fairseq.data.Modality", "builtins.getattr")
    assert not any(name.split(".")[0] in ("fairseq", "omegaconf") for name in sys.modules)


def test_settings_do_not_open_the_door_for_code(tmp_path: Path) -> None:
    saved = {"args": argparse.Namespace(a=1), "model": {"w": torch.ones(1)}, "x": Payload(eval, "1")}
    torch.save(saved, tmp_path / "w.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"names 'builtins\.eval'\."):
        read_checkpoint(tmp_path / "w.pt")


def test_inert_containers_take_what_pickles_give_them(tmp_path: Path) -> None:
    saved = {
        "w": torch.ones(1),
        "queue": collections.deque([1, 2]),
        "default": collections.defaultdict(int, a=1),
        "scalar": np.complex64(1 + 2j),
        "flag": np.bool_(True),
        "array": np.arange(3),
    }
    torch.save(saved, tmp_path / "w.pt")
    metadata = read_checkpoint(tmp_path / "w.pt").metadata
    assert metadata["queue"].items == [1, 2]
    assert metadata["default"].items == [("a", 1)]
    assert metadata["scalar"] == np.complex64(1 + 2j)
    assert metadata["flag"] == np.True_
    assert metadata["array"].qualified_name.endswith("multiarray._reconstruct")
