"""Perch: its scaling and outputs; and, where onnxruntime is, small graphs with the published inputs and outputs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import avex
from avex._core.errors import ConfigError, MissingExtraError, WeightsError
from avex._core.optional import available
from avex.models.perch.config import PerchOutputs
from avex.models.perch.model import Perch, scale_peak
from avex.models.runtime.windows import cut_windows, join_windows
from avex.models.utils.registry import find_card

needs_onnx = pytest.mark.skipif(
    not (available("onnxruntime") and available("onnx")), reason="needs the packages onnxruntime and onnx"
)
WINDOW = 160_000
DIM, CLASSES = 8, 5


# -- without onnxruntime -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(gain=st.floats(1e-3, 1e3), offset=st.floats(-1, 1), peak=st.floats(0.05, 1), seed=st.integers(0, 99))
def test_windows_are_centred_and_scaled_to_the_peak(gain, offset, peak, seed):
    noise = torch.randn(3, 500, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scaled = scale_peak(gain * noise + offset, peak)
    torch.testing.assert_close(scaled.abs().amax(1), torch.full((3,), peak, dtype=torch.float64))
    torch.testing.assert_close(scaled.mean(1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(scaled, scale_peak(noise, peak))


def test_silence_stays_silent():
    assert not scale_peak(torch.full((2, 8), 0.5), 0.25).any()


def test_outputs_of_the_published_graphs_are_recognised():
    two = PerchOutputs.find(
        {
            "embedding": (None, 1536),
            "spatial_embedding": (None, 16, 4, 1536),
            "spectrogram": (None, 500, 128),
            "label": (None, 14795),
        }
    )
    assert two == PerchOutputs("embedding", 1536, "label", 14795, "spatial_embedding")
    one = PerchOutputs.find({"output_0": (None, 10932), "output_1": (None, 1280)})
    assert one == PerchOutputs("output_1", 1280, "output_0", 10932)
    assert PerchOutputs.find({"embedding": (None, 1536)}).logits is None
    with pytest.raises(WeightsError, match=r"scores \(None, 3\)"):
        PerchOutputs.find({"scores": (None, 3)})


def test_cards():
    card = find_card("perch_v2")
    assert card.model_spec.name == "perch2"
    assert card.model_spec.audio_config.sample_rate == 32_000
    assert card.activation == "softmax"
    for name in ("perch_v1", "surfperch_v1"):
        with pytest.raises(WeightsError, match="checkpoint_path"):
            avex.load_model(name, device="cpu")


def test_without_onnxruntime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what an import finds where it is not installed
    (tmp_path / "perch.onnx").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"avex\[onnx\]"):
        avex.load_model("perch2", device="cpu", checkpoint_path=tmp_path / "perch.onnx")


def test_options_are_checked():
    with pytest.raises(ConfigError, match="checkpoint_path"):
        Perch()
    with pytest.raises(ConfigError, match="target_peak"):
        Perch(target_peak=0)
    with pytest.raises(ConfigError, match="32000 Hz"):
        Perch(audio_config=avex.configs.AudioConfig(sample_rate=16_000))


@given(samples=st.integers(1, 40), size=st.integers(1, 12), batch=st.integers(1, 3))
def test_windows_hold_the_audio_and_zeros_behind_it(samples, size, batch):
    x = torch.arange(1, batch * samples + 1, dtype=torch.float32).reshape(batch, samples)
    windows = cut_windows(x, size, "test")
    assert windows.shape[1:] == (-(-samples // size), size)
    flat = windows.flatten(1)
    assert torch.equal(flat[:, :samples], x)
    assert not flat[:, samples:].any()


def test_windows_are_joined_clip_by_clip():
    values = torch.arange(12.0).reshape(6, 2)
    assert torch.equal(join_windows(values, 2, "mean"), torch.tensor([[2.0, 3.0], [8.0, 9.0]]))
    assert torch.equal(join_windows(values, 2, "max"), torch.tensor([[4.0, 5.0], [10.0, 11.0]]))
    assert join_windows(values, 2, "none").shape == (2, 3, 2)
    maps = torch.randn(6, 4, 3, 5)
    joined = join_windows(maps, 2, "none")
    assert torch.equal(joined[1, :, :, 5:10], maps[4])


# -- with onnxruntime --------------------------------------------------------------------------------------


def write_graph(path, *, batch="batch", spatial=True, label=True, names=("embedding", "label")):
    """Perch's inputs and outputs over two matrix products; returns the matrices."""
    onnx = pytest.importorskip("onnx")
    helper, tensor_type = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(0)
    first = rng.standard_normal((2500, DIM)).astype(np.float32)
    second = rng.standard_normal((DIM, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["inputs", "shape"], ["blocks"]),
        helper.make_node("MatMul", ["blocks", "first"], ["spatial_embedding"]),
        helper.make_node("ReduceMean", ["spatial_embedding", "axes"], [names[0]], keepdims=0),
        helper.make_node("MatMul", [names[0], "second"], [names[1]]),
    ]
    outputs = [helper.make_tensor_value_info(names[0], tensor_type, [batch, DIM])]
    if spatial:
        outputs.append(helper.make_tensor_value_info("spatial_embedding", tensor_type, [batch, 16, 4, DIM]))
    if label:
        outputs.append(helper.make_tensor_value_info(names[1], tensor_type, [batch, CLASSES]))
    constants = {
        "shape": np.array([-1, 16, 4, 2500], np.int64),
        "axes": np.array([1, 2], np.int64),
        "first": first,
        "second": second,
    }
    graph = helper.make_graph(
        nodes if label else nodes[:3],
        "perch",
        [helper.make_tensor_value_info("inputs", tensor_type, [batch, WINDOW])],
        outputs,
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return first, second


def clips(count=2, samples=WINDOW):
    return 0.1 * torch.randn(count, samples, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def graph(tmp_path):
    path = tmp_path / "perch.onnx"
    return path, *write_graph(path)


@needs_onnx
def test_embedding_logits_and_map_are_those_of_the_graph(graph):
    path, first, second = graph
    model = avex.load_model("perch2", device="cpu", checkpoint_path=path)
    scaled = scale_peak(clips(), 0.25).numpy()
    spatial = scaled.reshape(2, 16, 4, 2500) @ first
    np.testing.assert_allclose(model.embed(clips()), spatial.mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model(clips()), spatial.mean((1, 2)) @ second, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        model.embed(clips(), ["spatial_embedding"], "none"),
        spatial.transpose(0, 3, 2, 1),
        rtol=1e-3,
        atol=1e-4,
    )
    assert model.get_model_layers() == ["spatial_embedding", "embedding"]
    assert (model.embedding_dim, model.num_classes, model.sample_rate) == (DIM, CLASSES, 32_000)


@needs_onnx
def test_peak_scaling_can_be_left_out(graph):
    path, first, _ = graph
    model = avex.load_model("perch2", device="cpu", checkpoint_path=path, target_peak=None)
    expected = (clips().numpy().reshape(2, 16, 4, 2500) @ first).mean((1, 2))
    np.testing.assert_allclose(model.embed(clips()), expected, rtol=1e-4, atol=1e-5)


@needs_onnx
def test_long_and_short_audio(graph):
    model = avex.load_model("perch2", device="cpu", checkpoint_path=graph[0])
    x = clips(samples=2 * WINDOW)
    parts = torch.stack([model(x[:, :WINDOW]), model(x[:, WINDOW:])])
    torch.testing.assert_close(model(x), parts.mean(0))
    features = model.forward_features(x)
    assert features.values.shape == (2, 2, DIM)
    torch.testing.assert_close(model.forward_head(features), model(x))
    assert model(clips(samples=1000)).shape == (2, CLASSES)
    with pytest.raises(ValueError, match="waveforms"):
        model(torch.zeros(1, 0))


@needs_onnx
def test_new_head_and_features_only(graph):
    head = avex.load_model("perch2", device="cpu", checkpoint_path=graph[0], num_classes=3)
    assert head(clips()).shape == (2, 3)
    head(clips()).sum().backward()
    assert head.classifier.weight.grad is not None
    features = avex.load_model("perch2", device="cpu", checkpoint_path=graph[0], return_features_only=True)
    assert features(clips()).shape == (2, DIM)


@needs_onnx
def test_the_first_perch_and_files_without_classifier(tmp_path):
    write_graph(tmp_path / "v1.onnx", spatial=False, names=("output_1", "output_0"))
    model = avex.load_model("perch_v1", device="cpu", checkpoint_path=tmp_path / "v1.onnx")
    assert model(clips()).shape == (2, CLASSES)
    assert model.get_model_layers() == ["embedding"]
    write_graph(tmp_path / "headless.onnx", label=False)
    bare = avex.load_model("perch2", device="cpu", checkpoint_path=tmp_path / "headless.onnx")
    assert bare(clips()).shape == (2, DIM)
    with pytest.raises(ValueError, match="no classifier"):
        bare.forward_head(bare.forward_features(clips()))


@needs_onnx
def test_a_fixed_batch_size_is_served_one_by_one(tmp_path):
    write_graph(tmp_path / "one.onnx", batch=1)
    write_graph(tmp_path / "any.onnx")
    one, many = (
        avex.load_model("perch2", device="cpu", checkpoint_path=tmp_path / f"{name}.onnx")
        for name in ("one", "any")
    )
    torch.testing.assert_close(one(clips(3)), many(clips(3)), rtol=1e-4, atol=1e-4)


@needs_onnx
def test_files_that_are_not_perch(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match="not a usable ONNX graph"):
        avex.load_model("perch2", device="cpu", checkpoint_path=tmp_path / "junk.onnx")
    write_graph(tmp_path / "other.onnx", names=("scores", "more"))
    with pytest.raises(WeightsError, match="not a Perch model"):
        avex.load_model("perch2", device="cpu", checkpoint_path=tmp_path / "other.onnx")


@needs_onnx
def test_the_engine_gives_the_same_embeddings(graph):
    from avex.embedding.engines import load_engine

    here = {"checkpoint_path": str(graph[0]), "sha256": None, "class_mapping_path": None}
    card = find_card("perch_v2").model_copy(update=here)
    engine = load_engine(card, device="cpu")
    windows = clips().numpy()
    output = engine.session().run(windows, np.full(2, WINDOW))
    model = avex.load_model("perch2", device="cpu", checkpoint_path=graph[0])
    np.testing.assert_allclose(output.embedding, model.embed(clips()), rtol=1e-5)
