"""Files that claim more than they hold are refused before memory is spent on the claim."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import avex
from avex._core.errors import WeightsError
from avex.models.beats.model import Beats
from avex.weights import read_checkpoint

HUGE = 1 << 40


def safetensors_file(path: Path, entries: dict[str, object], payload: bytes) -> Path:
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + payload)
    return path


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"a": entry([HUGE], 0, 8)}, id="shape"),
        pytest.param({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, id="overlap"),
        pytest.param({"a": entry([1], 4, 8)}, id="gap"),
        pytest.param({"a": entry([-1, -2], 0, 8)}, id="negative"),
        pytest.param({"a": entry([2], 8, 0)}, id="backwards"),
        pytest.param({"a": entry([2], -8, 0), "b": entry([2], 0, 8)}, id="before the file"),
        pytest.param({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, id="half an offset"),
        pytest.param({"a": {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}}, id="fraction"),
    ],
)
def test_safetensors_headers_that_do_not_add_up(tmp_path, entries):
    file = safetensors_file(tmp_path / "w.safetensors", entries, bytes(8))
    with pytest.raises(WeightsError, match=r"damaged"):
        read_checkpoint(file)


def test_an_element_type_that_torch_does_not_have(tmp_path):
    file = safetensors_file(tmp_path / "w.safetensors", {"a": entry([8], 0, 4, "F4")}, bytes(4))
    with pytest.raises(WeightsError, match="'a' in the element type 'f4'"):
        read_checkpoint(file)


@pytest.mark.parametrize("cut", [1, 100, 3000])
def test_a_truncated_file(tmp_path, cut):
    save_file({"a": torch.zeros(1000)}, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data[:-cut])
    with pytest.raises(WeightsError, match="truncated"):
        read_checkpoint(tmp_path / "w.safetensors")


def test_a_value_that_is_repeated_a_trillion_times(tmp_path):
    torch.save({"classifier.weight": torch.zeros(1).expand(HUGE, 1)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"'classifier\.weight' with the shape \(1099511627776, 1\)"):
        read_checkpoint(tmp_path / "w.pt")


def test_an_archive_that_unpacks_to_much_more(tmp_path):
    torch.save({"a": torch.zeros(50_000_000 // 4)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as source,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert (tmp_path / "bomb.pt").stat().st_size < 100_000
    with pytest.raises(WeightsError, match="claims to unpack to 500"):
        read_checkpoint(tmp_path / "bomb.pt")


SIZES = dict(
    encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=32, encoder_attention_heads=4, embed_dim=16
)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: {"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, "does not fit 'beats'"),
        (
            lambda s: {**s, "backbone.post_extract_proj.weight": s["backbone.post_extract_proj.weight"].T},
            "post_extract",
        ),
        (
            lambda s: {**s, "backbone.layer_norm.bias": s["backbone.layer_norm.bias"] * np.nan},
            r"layer_norm\.bias",
        ),
        (
            lambda s: {**s, "backbone.layer_norm.bias": s["backbone.layer_norm.bias"] + np.inf},
            r"layer_norm\.bias",
        ),
        (
            lambda s: {**s, "backbone.layer_norm.bias": s["backbone.layer_norm.bias"].long()},
            r"layer_norm\.bias",
        ),
    ],
)
@pytest.mark.parametrize("container", ["pt", "safetensors"])
def test_families_refuse_what_does_not_fit(tmp_path, damage, message, container):
    state = {
        name: value.contiguous() for name, value in damage(Beats(init_config=SIZES).state_dict()).items()
    }
    path = tmp_path / f"w.{container}"
    (torch.save if container == "pt" else save_file)(state, path)
    with pytest.raises(WeightsError, match=message):
        avex.load_model("beats", checkpoint_path=path, init_config=SIZES, device="cpu")


def test_large_values_are_not_taken_for_infinite(tmp_path):
    state = Beats(init_config=SIZES).state_dict()
    state["backbone.layer_norm.weight"] = torch.full((16,), 1e38)  # whose squares overflow
    save_file(state, tmp_path / "w.safetensors")
    model = avex.load_model(
        "beats", checkpoint_path=tmp_path / "w.safetensors", init_config=SIZES, device="cpu"
    )
    assert float(model.backbone.layer_norm.weight[0].detach()) == pytest.approx(1e38)
