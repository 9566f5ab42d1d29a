"""Every Python block of the AVES README, as printed.

fairseq and torchaudio are not installed: two small modules offer the calls that the blocks use, over our HuBERT. What
the blocks compute is compared with values of torchaudio's own HuBERT, and with `load_model` on the same files.
"""
# ruff: noqa: E501

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import avex
from avex._core.optional import available
from avex.models.hubert.checkpoint import ADAPTERS
from avex.models.hubert.config import HubertConfig
from avex.models.hubert.network import HubertBackbone
from avex.models.layers import tap_layers
from avex.weights import read_checkpoint


def helper(name, *folders):
    spec = importlib.util.spec_from_file_location(
        name, Path(__file__).parent.joinpath(*folders, f"{name}.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


seed = helper("seed_cards")
published = helper("published", "..", "parity")
AVES = published.Published("hubert", "aves_tiny")

CLASSIFIER = """
class AvesClassifier(nn.Module):
    def __init__(self, model_path, num_classes, embeddings_dim=768, multi_label=False):

        super().__init__()

        models, cfg, task = fairseq.checkpoint_utils.load_model_ensemble_and_task([model_path])
        self.model = models[0]
        self.model.feature_extractor.requires_grad_(False)
        self.head = nn.Linear(in_features=embeddings_dim, out_features=num_classes)

        if multi_label:
            self.loss_func = nn.BCEWithLogitsLoss()
        else:
            self.loss_func = nn.CrossEntropyLoss()

    def forward(self, x, y=None):
        out = self.model.extract_features(x)[0]
        out = out.mean(dim=1)             # mean pooling
        logits = self.head(out)

        loss = None
        if y is not None:
            loss = self.loss_func(logits, y)

        return loss, logits
"""

TORCHAUDIO = """
from torchaudio.models import wav2vec2_model

class AvesTorchaudioWrapper(nn.Module):

    def __init__(self, config_path, model_path):

        super().__init__()

        # reference: https://pytorch.org/audio/stable/_modules/torchaudio/models/wav2vec2/utils/import_fairseq.html

        self.config = self.load_config(config_path)
        self.model = wav2vec2_model(**self.config, aux_num_out=None)
        self.model.load_state_dict(torch.load(model_path))
        self.model.feature_extractor.requires_grad_(False)

    def load_config(self, config_path):
        with open(config_path, 'r') as ff:
            obj = json.load(ff)

        return obj

    def forward(self, sig):
        # extract_feature in the sorchaudio version will output all 12 layers' output, -1 to select the final one
        out = self.model.extract_features(sig)[0][-1]

        return out

torchaudio_model = AvesTorchaudioWrapper(config_path, model_path)
torchaudio_model.eval()

"""

ONNX = """
    import onnxruntime

    ort_session = onnxruntime.InferenceSession(model_path)
    ort_inputs = {ort_session.get_inputs()[0].name: sig}
    ort_outs = ort_session.run(None, ort_inputs)
    onnx_out = ort_outs[0]
"""


class Wav2Vec2(HubertBackbone):
    """Our network with the calls of torchaudio's and fairseq's."""

    def load_state_dict(self, state, strict=True):
        adapter = next(adapter for adapter in ADAPTERS if adapter.matches(set(state)))
        own = {key.removeprefix("backbone."): tensor for key, tensor in adapter.convert(state).items()}
        return super().load_state_dict(own, strict)

    def layer_outputs(self, waveform):
        names = [f"encoder.transformer.layers.{i}" for i in range(len(self.encoder.transformer.layers))]
        with tap_layers(self, names) as taps:
            self(waveform)
        return [taps[name] for name in names]


class OfTorchaudio(Wav2Vec2):
    def extract_features(self, waveform):
        return self.layer_outputs(waveform), None


class OfFairseq(Wav2Vec2):
    def extract_features(self, source):
        return self.layer_outputs(source)[-1], None


@pytest.fixture
def torchaudio(monkeypatch):
    def wav2vec2_model(*, aux_num_out, **config):
        assert aux_num_out is None
        return OfTorchaudio(HubertConfig.from_options(config))

    module = types.ModuleType("torchaudio.models")
    module.wav2vec2_model = wav2vec2_model
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.models", module)


@pytest.fixture
def fairseq():
    def load_model_ensemble_and_task(paths):
        model = OfFairseq(HubertConfig.from_options(AVES.config))
        model.load_state_dict(read_checkpoint(paths[0]).tensors)
        return [model.eval()], None, None

    return types.SimpleNamespace(
        checkpoint_utils=types.SimpleNamespace(load_model_ensemble_and_task=load_model_ensemble_and_task)
    )


@pytest.fixture
def config_path(tmp_path):
    path = tmp_path / "aves.torchaudio.model_config.json"
    path.write_text(json.dumps(AVES.config), encoding="utf-8")
    return path


@pytest.fixture
def load_aves(config_path, tmp_path):
    """The same file through avex."""

    def load(layout="torchaudio_pt", **options):
        path = AVES.write(layout, tmp_path)
        return avex.load_model("aves", checkpoint_path=path, config_path=config_path, device="cpu", **options)

    return load


def sound():
    return published.clip("golden_c", 1)[None]


@pytest.mark.parametrize(
    ("multi_label", "labels", "loss"),
    [
        (False, torch.tensor([3]), nn.functional.cross_entropy),
        (True, torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]), nn.functional.binary_cross_entropy_with_logits),
    ],
)
def test_the_classifier(multi_label, labels, loss, fairseq, load_aves, tmp_path):
    names = seed.run(CLASSIFIER, nn=nn, fairseq=fairseq)
    path = AVES.write("fairseq_pt", tmp_path)
    theirs = names["AvesClassifier"](path, num_classes=5, embeddings_dim=24, multi_label=multi_label)
    assert theirs(sound())[0] is None
    value, logits = theirs(sound(), labels)

    ours = load_aves("fairseq_pt", num_classes=5)
    ours.backbone.feature_extractor.requires_grad_(False)
    ours.classifier.load_state_dict(theirs.head.state_dict())
    torch.testing.assert_close(ours(sound()), logits)
    torch.testing.assert_close(loss(ours(sound()), labels), value)

    value.backward()
    frozen = {name for name, parameter in theirs.named_parameters() if parameter.grad is None}
    assert frozen == {f"model.{name}" for name, _ in theirs.model.named_parameters() if "extractor" in name}


def test_the_torchaudio_version(torchaudio, load_aves, config_path, tmp_path):
    path = AVES.write("torchaudio_pt", tmp_path)
    scope = {"nn": nn, "json": json, "torch": torch, "config_path": config_path, "model_path": path}
    model = seed.run(TORCHAUDIO, **scope)["torchaudio_model"]
    with torch.no_grad():
        out = model(sound())
        assert published.error(out[0], AVES["features_1s"]) < 1e-4
        torch.testing.assert_close(load_aves(return_features_only=True)(sound()), out)


def test_all_layers_are_those_of_torchaudio(load_aves):
    """Item i of `extract_features()[0]` is our layer_(i + 1): layer_0 is what enters the first one."""
    model = load_aves(return_features_only=True)
    clip = published.clip("golden_a", 5)[None]
    count = AVES.config["encoder_num_layers"]
    model.register_hooks_for_layers([f"layer_{i + 1}" for i in range(count)])
    with torch.no_grad():
        layers = model.extract_embeddings(clip, aggregation="mean").reshape(1, count, 24)
        # Means over time of torchaudio's `extract_features(clip)[0]`.
        assert published.error(layers, AVES["layer_mean"]) < 1e-4
        torch.testing.assert_close(layers[:, -1], model.embed(clip))
    assert len(model.get_model_layers()) == count + 1


@pytest.mark.skipif(not available("onnxruntime"), reason="needs the extra 'onnx'")
def test_the_onnx_version():
    """The file holds the graph that our exporter made of the same small network, without its notes on the sources."""
    path = Path(__file__).parents[1] / "golden" / "hubert" / "aves_tiny.onnx"
    out = seed.run(textwrap.dedent(ONNX), model_path=path, sig=sound().numpy())["onnx_out"]
    assert published.error(torch.from_numpy(out[0]), AVES["features_1s"]) < 1e-4
    model = avex.load_model("aves", checkpoint_path=path, return_features_only=True, device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(model(sound()).numpy(), out)


@pytest.mark.parametrize("name", ["aves_base_core", "aves_base_bio", "aves_base_nonbio", "aves_base_all"])
def test_the_table_of_pretrained_models(name):
    stem = name.replace("_", "-")
    assert avex.get_checkpoint_path(name) == (
        f"https://storage.googleapis.com/esp-public-files/ported_aves/{stem}.torchaudio.pt"
    )
    assert avex.get_model_spec(name).audio_config.sample_rate == 16000
