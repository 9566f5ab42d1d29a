"""The ONNX port of AVES: a tiny HuBERT written by torch's own exporter, run from the file, against PyTorch."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import avex
from avex._core import processors
from avex._core.errors import ConfigError, WeightsError
from avex._core.optional import available
from avex._core.processors import available_cpus
from avex.models.hubert.graph import HubertGraph
from avex.models.hubert.model import Hubert
from avex.models.layers import LayerError
from avex.models.runtime.compare import largest_error
from avex.models.runtime.threads import runtime_threads
from avex.weights.source import WeightSource

if not all(available(package) for package in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("needs onnx, onnxscript and onnxruntime", allow_module_level=True)

SIZES = {
    "extractor_conv_layer_config": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
    "encoder_embed_dim": 16,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 24,
    "encoder_pos_conv_kernel": 6,
    "encoder_pos_conv_groups": 2,
}


class Sequences(nn.Module):
    """What the published files give: the last layer, or all of them."""

    def __init__(self, model, layers=1):
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, audio):
        with avex.models.layers.tap_layers(self.model, self.model.get_model_layers()[1:]) as taps:
            self.model.forward_features(audio)
        return tuple(taps.values())[-self.layers :]


def write(module, path, names, samples=8000, open_axes=(0, 1)):
    dynamic = dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC)
    clip = 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(3))
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.filterwarnings("ignore", category=UserWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        exported = torch.export.export(module, (clip,), dynamic_shapes=(dynamic,), strict=False)
        program = torch.onnx.export(
            exported, dynamo=True, input_names=["input"], output_names=names, verbose=False
        )
    program.save(str(path), external_data=False)
    return path


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Hubert(init_config=SIZES, return_features_only=True).eval()


@pytest.fixture(scope="module")
def port(network, tmp_path_factory):
    """Like the published files: any batch, any length, one output."""
    return write(Sequences(network).eval(), tmp_path_factory.mktemp("onnx") / "aves-tiny.onnx", ["output"])


@pytest.fixture(scope="module")
def fixed(network, tmp_path_factory):
    """Two clips of half a second, both layers."""
    path = tmp_path_factory.mktemp("onnx") / "layers.onnx"
    return write(Sequences(network, 2).eval(), path, ["first", "second"], open_axes=())


def noise(*shape, seed=1):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- what it computes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["aves_bio", "hubert", "aves_base_bio", "birdaves_biox_base"])
def test_the_file_decides_the_class(port, name):
    model = avex.load_model(name, checkpoint_path=port, device="cpu")
    assert isinstance(model, HubertGraph)
    assert not model.training
    assert model.load_report.notes == ("the graph is used as it is",)


def test_other_files_keep_the_network():
    assert Hubert.for_checkpoint(WeightSource("hf://org/aves.pt")) is Hubert
    assert Hubert.for_checkpoint(WeightSource("https://host/AVES.ONNX")) is HubertGraph
    assert Hubert.for_checkpoint(WeightSource("/tmp/graph", format="onnx")) is HubertGraph


@pytest.mark.parametrize(("batch", "samples"), [(1, 16000), (3, 9000), (2, 723)])
def test_features_are_those_of_pytorch(network, port, batch, samples):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    x = noise(batch, samples)
    with torch.no_grad():
        expected = network.forward_features(x)
    features = model.forward_features(x)
    assert features.layout == expected.layout
    error = largest_error(expected.values, features.values)
    assert error.scaled < 1e-4
    assert error.relative < 1e-2
    torch.testing.assert_close(model.embed(x), expected.pooled(), rtol=1e-4, atol=1e-5)


def test_facts(port):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    assert (model.sample_rate, model.frame_rate, model.embedding_dim) == (16000, 50.0, 16)
    assert model.window_seconds is None
    assert model(noise(1, 16000)).shape == (1, 49, 16)
    assert not any(True for _ in model.parameters())
    assert model(torch.zeros(1, 16000)).isfinite().all()


def test_a_mask_is_checked_and_ignored(port):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    x = noise(2, 8000)
    mask = torch.zeros(2, 8000, dtype=torch.bool)
    mask[:, 6000:] = True
    assert torch.equal(model(x, mask), model(x))
    with pytest.raises(TypeError, match="bool"):
        model(x, mask.float())


def test_a_new_classifier_is_trained_on_frozen_features(port):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu", num_classes=3)
    assert model.load_report.reset == ("classifier.weight", "classifier.bias")
    logits = model(noise(2, 8000))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        "classifier.weight",
        "classifier.bias",
    }


def test_the_engine_embeds_with_it(port):
    from avex.embedding.engines import load_engine
    from avex.models.utils.registry import find_card

    card = find_card("aves_base_bio_onnx")
    assert (card.checkpoint_format, card.model_spec.device) == ("onnx", "cpu")
    engine = load_engine(card.model_copy(update={"checkpoint_path": str(port)}))
    windows = noise(2, 8000)
    got = engine.session().run(windows.numpy(), np.full(2, 8000)).embedding
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    np.testing.assert_allclose(got, model.embed(windows), rtol=1e-5, atol=1e-6)


# -- layers ------------------------------------------------------------------------------------------------


def test_outputs_are_the_layers(network, fixed):
    model = avex.load_model("aves", checkpoint_path=fixed, device="cpu", output="second")
    assert model.get_model_layers() == ["outputs.0", "outputs.1"]
    x = noise(2, 8000)
    with torch.no_grad():
        expected = network.embed(x, layers=["layer_1", "layer_2"])
    torch.testing.assert_close(model.embed(x, layers=["all"]), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.embed(x, layers=[-1]), model.embed(x))
    other = avex.load_model("aves", checkpoint_path=fixed, device="cpu", output="first")
    torch.testing.assert_close(other.embed(x), expected[:, :16], rtol=1e-4, atol=1e-5)


def test_several_outputs_have_to_be_chosen(fixed):
    with pytest.raises(ConfigError, match="first, second.* Pass output="):
        avex.load_model("aves", checkpoint_path=fixed, device="cpu")
    with pytest.raises(ConfigError, match="Did you mean 'second'"):
        avex.load_model("aves", checkpoint_path=fixed, device="cpu", output="secnd")


def test_inner_layers_need_pytorch_weights(port):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    assert model.get_model_layers() == ["outputs.0"]
    with pytest.raises(LayerError, match=r"gives its outputs only \(output\).* PyTorch weights"):
        model.embed(noise(1, 8000), layers=["layer_6"])


# -- a fixed batch and length ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_of_a_fixed_size_are_filled_up(network, fixed, count):
    model = avex.load_model("aves", checkpoint_path=fixed, device="cpu", output="second")
    x = noise(count, 8000)
    with torch.no_grad():
        expected = network.forward_features(x).values
    assert largest_error(expected, model(x)).scaled < 1e-4


def test_another_length_than_the_graph_takes(fixed):
    model = avex.load_model("aves", checkpoint_path=fixed, device="cpu", output="second")
    assert model.window_seconds == 0.5
    with pytest.raises(ValueError, match=r"8000 samples \(0.5 s\), not 9000"):
        model(noise(2, 9000))
    with pytest.raises(ValueError, match="at least 400"):
        model(noise(2, 399))


# -- what a graph cannot do --------------------------------------------------------------------------------


def test_no_gradients_of_the_waveform(port):
    model = avex.load_model("aves", checkpoint_path=port, device="cpu")
    x = noise(1, 8000).requires_grad_()
    with pytest.raises(ConfigError, match="no gradients"):
        model(x)
    with torch.no_grad():
        assert model(x).shape == (1, 24, 16)


def test_no_fine_tuning(port):
    with pytest.raises(ConfigError, match="frozen"):
        avex.load_model("aves", checkpoint_path=port, device="cpu").enable_gradient_checkpointing()


def test_options_of_the_network_are_refused(port):
    with pytest.raises(ConfigError, match="handle_padding"):
        avex.load_model("aves", checkpoint_path=port, device="cpu", handle_padding=True)
    with pytest.raises(ConfigError, match="16000 Hz, not 32000"):
        HubertGraph(checkpoint=port, audio_config={"sample_rate": 32000, "representation": "raw"})
    with pytest.raises(ConfigError, match="checkpoint_path"):
        HubertGraph()


def test_files_that_are_not_hubert(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightsError, match="not a usable ONNX graph"):
        avex.load_model("aves", checkpoint_path=tmp_path / "junk.onnx", device="cpu")
    flat = write(nn.Unflatten(1, (4, -1)), tmp_path / "other.onnx", ["output"], open_axes=(0,))
    with pytest.raises(WeightsError, match=r"not a HuBERT.* expected 24 frames"):
        avex.load_model("aves", checkpoint_path=flat, device="cpu")
    same = write(nn.Tanh(), tmp_path / "same.onnx", ["output"], open_axes=(0,))
    with pytest.raises(WeightsError, match=r"none of its outputs.* is \(batch, frames, length\)"):
        avex.load_model("aves", checkpoint_path=same, device="cpu")


# -- how far outputs are apart -----------------------------------------------------------------------------


def test_errors_near_zero_count_by_their_size():
    expected = np.array([3.0, -4.0, 1e-9, 0.0])
    error = largest_error(expected, expected + np.array([0.0, 0.0, 1e-6, -2e-6]))
    assert error.absolute == pytest.approx(2e-6)
    assert error.scaled == pytest.approx(2e-6 / 2.5)
    assert error.relative == 0.0
    assert largest_error(expected, expected * 1.01).relative == pytest.approx(0.01)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_scaled_errors_do_not_depend_on_the_unit(values, unit):
    expected = np.array(values) + 0.5
    actual = expected[::-1]
    one, two = largest_error(expected, actual), largest_error(unit * expected, unit * actual)
    assert two.scaled == pytest.approx(one.scaled, rel=1e-6, abs=1e-12)
    assert largest_error(expected, expected) == type(one)(0.0, 0.0, 0.0)


def test_errors_that_are_no_numbers():
    assert largest_error([0.0], [1e-30]).scaled == float("inf")
    assert largest_error([0.0], [0.0]).scaled == 0.0
    assert largest_error([1.0, 2.0], [1.0, float("nan")]).scaled == float("inf")
    assert largest_error([1.0, float("inf")], [1.0, float("inf")]).scaled == 0.0
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        largest_error([1.0, 2.0], [1.0, 2.0, 3.0])


# -- threads -----------------------------------------------------------------------------------------------


def test_threads_keep_to_limits(monkeypatch, tmp_path):
    monkeypatch.setattr(processors.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert available_cpus() == 64
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert available_cpus() == 3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert available_cpus() == runtime_threads() == 64
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert (available_cpus(), runtime_threads()) == (64, 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert runtime_threads() == 64
