"""Perch's labels: a table with a header in the Hub's cache, attached to an ONNX graph, written by predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import wavfile

import avex
from avex._core.optional import available
from avex.io import sha256_of
from avex.models.utils.registry import find_card, load_label_mapping
from avex.weights.fingerprint import weights_identity

pytestmark = pytest.mark.skipif(
    not (available("onnxruntime") and available("onnx")), reason="needs the packages onnxruntime and onnx"
)
NAMES = ("Abeillia abeillei", "Zosterops virens", "Speech")
REVISION = "0123456789abcdef0123456789abcdef01234567"


def write_graph(path: Path) -> None:
    """Logits 9, 1, 0 whatever the audio, and an embedding of two values."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "first": np.zeros((160_000, 2), np.float32),
        "second": np.zeros((2, 3), np.float32),
        "bias": np.array([9, 1, 0], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["inputs", "first"], ["embedding"]),
        helper.make_node("MatMul", ["embedding", "second"], ["plain"]),
        helper.make_node("Add", ["plain", "bias"], ["label"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perch",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, ["batch", 160_000])],
        [
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("label", TensorProto.FLOAT, ["batch", 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)


def put_in_hub(hub: Path, repo: str, filename: str) -> Path:
    root = hub / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(REVISION)
    file = root / "snapshots" / REVISION / filename
    file.parent.mkdir(parents=True)
    return file


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_graph(put_in_hub(tmp_path / "hub", "justinchuby/Perch-onnx", "perch_v2.onnx"))
    labels = put_in_hub(tmp_path / "hub", "cgeorgiaw/Perch", "assets/labels.csv")
    labels.write_text("\n".join(["inat2024_fsd50k", *NAMES]) + "\n")
    return tmp_path / "hub"


def test_labels_and_scores(hub: Path, tmp_path: Path) -> None:
    card = find_card("perch_v2")
    assert card is not None
    assert load_label_mapping("perch_v2").labels == NAMES  # type: ignore[union-attr]
    card = card.model_copy(update={"sha256": None})
    model = avex.load_model(card, device="cpu")
    assert model.label_mapping.labels == NAMES
    assert model(torch.zeros(1, 160_000)).tolist() == [[9, 1, 0]]
    assert weights_identity(model) == sha256_of(next(hub.glob("*/snapshots/*/perch_v2.onnx")))
    wavfile.write(tmp_path / "a.wav", 32_000, np.zeros(160_000, np.int16))
    avex.predict(tmp_path / "a.wav", card, tmp_path / "out", formats=["csv"], min_conf=0.5)
    table = "".join(file.read_text() for file in (tmp_path / "out").rglob("*.csv"))
    # softmax: exp(9) / (exp(9) + exp(1) + exp(0)) = 0.99954
    assert "Abeillia abeillei" in table
    assert "0.9995" in table
    assert "Zosterops" not in table


def test_another_graph_gets_labels_only_if_its_classes_are_as_many(hub: Path, caplog) -> None:
    graph = next(hub.glob("*/snapshots/*/perch_v2.onnx"))
    # A family lends nothing to a file that is not the published one; a card that was named does, if it fits.
    assert not hasattr(avex.load_model("perch2", checkpoint_path=graph, device="cpu"), "label_mapping")
    card = find_card("perch_v2")
    assert avex.load_model(card, checkpoint_path=graph, device="cpu").label_mapping.labels == NAMES
    labels = next(hub.glob("*/snapshots/*/assets/labels.csv"))
    labels.write_text("inat2024_fsd50k\nonly one\n")
    assert not hasattr(avex.load_model(card, checkpoint_path=graph, device="cpu"), "label_mapping")
    assert "3 classes" in caplog.text
