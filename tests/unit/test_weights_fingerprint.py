from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from avex._core.errors import ChecksumError, WeightsError
from avex.weights import (
    WeightSource,
    compare,
    output_fingerprint,
    read_checkpoint,
    state_fingerprint,
)


def test_state_fingerprint_is_the_documented_hash() -> None:
    state = {"b": torch.tensor([1.5, -2.0]), "a": torch.tensor(3)}
    digest = hashlib.sha256()
    digest.update(b'["a", "int64", []]\n' + np.int64(3).tobytes())
    digest.update(b'["b", "float32", [2]]\n' + np.array([1.5, -2.0], np.float32).tobytes())
    assert state_fingerprint(state) == digest.hexdigest()


def test_state_fingerprint_sees_names_shapes_types_and_bits() -> None:
    base = {"w": torch.arange(6.0).reshape(2, 3)}
    others = [
        {"v": base["w"]},
        {"w": base["w"].reshape(3, 2)},
        {"w": base["w"].double()},
        {"w": base["w"].T.contiguous().T + 1e-7},
        {"w": base["w"], "x": torch.empty(0)},
    ]
    assert len({state_fingerprint(state) for state in [base, *others]}) == 6
    assert state_fingerprint({"w": base["w"].T.contiguous().T}) == state_fingerprint(base)
    assert state_fingerprint({"w": torch.ones(2, dtype=torch.bfloat16)}) != state_fingerprint(
        {"w": torch.ones(2).half()}
    )


def test_state_fingerprint_of_a_module_and_of_its_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    torch.save(module.state_dict(), tmp_path / "w.pt")
    expected = state_fingerprint(module)
    assert state_fingerprint(read_checkpoint(tmp_path / "w.safetensors").tensors) == expected
    assert state_fingerprint(read_checkpoint(tmp_path / "w.pt").tensors) == expected


def test_output_fingerprint_values() -> None:
    values = np.arange(1, 16, dtype=np.float32).reshape(3, 5)
    fingerprint = output_fingerprint(values)
    assert fingerprint == {
        "shape": [3, 5],
        "mean": 8.0,
        "std": 4.320494,  # sqrt((15**2 - 1) / 12)
        "l2": 35.21363,  # sqrt(1240)
        "samples": [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0],
    }
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert output_fingerprint(torch.from_numpy(values).requires_grad_()) == fingerprint
    assert output_fingerprint(values.tolist()) == fingerprint
    assert output_fingerprint(values * 1e-6)["mean"] == 8e-6


def test_compare_allows_rounding_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    output = rng.standard_normal((2, 50, 8)).astype(np.float32)
    expected = output_fingerprint(output)
    assert compare(expected, expected) == ()
    noise = rng.standard_normal(output.shape).astype(np.float32)
    assert compare(expected, output_fingerprint(output + 1e-5 * noise)) == ()
    assert compare(expected, output_fingerprint(output.astype(np.float16)), rtol=1e-2) == ()
    for wrong in (output * 1.01, output + 0.01, output[::-1], np.roll(output, 1, axis=1), -output):
        assert compare(expected, output_fingerprint(wrong))
    assert compare(expected, output_fingerprint(output[:1])) == ("shape is [1, 50, 8], expected [2, 50, 8]",)
    assert (
        "sample 3 is"
        in compare(
            expected, {**expected, "samples": [*expected["samples"][:3], 9.0, *expected["samples"][4:]]}
        )[0]
    )
    assert compare(expected, {**expected, "mean": float("nan")})


def test_outputs_that_cannot_be_fingerprinted() -> None:
    for bad in (np.array([1.0, np.nan]), np.array([np.inf]), np.empty((0, 3))):
        with pytest.raises(WeightsError, match="cannot be fingerprinted"):
            output_fingerprint(bad)
    with pytest.raises(WeightsError, match="lacks 'l2'"):
        compare({"shape": [1]}, output_fingerprint([1.0]))


def test_source(tmp_path: Path) -> None:
    file = tmp_path / "w.bin"
    file.write_bytes(b"abc")
    checksum = hashlib.sha256(b"abc").hexdigest()
    assert WeightSource(str(file)).fetch() == file
    assert WeightSource(file.as_uri(), "torch", checksum).fetch(offline=True) == file
    with pytest.raises(ChecksumError, match=checksum):
        WeightSource(str(file), sha256="0" * 64).fetch()
