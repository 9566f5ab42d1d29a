"""EfficientNet, ResNet and CLIP against the numbers of the published code, loaded as users load them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import avex
from avex.models.layers import tap_layers
from avex.models.utils.registry import get_model_class

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_SPEC = importlib.util.spec_from_file_location("synthetic_weights", GOLDEN / "synthetic_weights.py")
RECIPE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(RECIPE)

TOLERANCE = 5e-3  # deep stacks of convolutions enlarge rounding; a wrong front end is off by 5 to 13
# Means over the map, and logits, are much steadier than single values.
POOLED = 2e-4
SLOW = pytest.mark.slow


class Golden:
    """Reference values of one architecture and its checkpoints in every published layout."""

    def __init__(self, family: str, arch: str) -> None:
        self.family, self.arch = family, arch
        with np.load(GOLDEN / family / f"{arch}.npz") as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        keys = json.loads((GOLDEN / family / f"{arch}.keys.json").read_text())
        self.layouts = {name: layout["keys"] for name, layout in keys["layouts"].items()}
        self.meta = json.loads(str(self.arrays["meta"]))

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def state(self, layout: str, statistics: Golden | None = None) -> dict[str, torch.Tensor]:
        filled = RECIPE.with_overrides(self.layouts[layout], (statistics or self).arrays)
        return {name: torch.from_numpy(np.array(value)) for name, value in filled.items()}

    def load(self, layout: str, folder: Path, *, name: str | None = None, pickled: bool = False, **options):
        state = self.state(layout)
        path = folder / f"{layout}.{'pth' if pickled else 'safetensors'}"
        torch.save(state, path) if pickled else save_file(state, path)
        options = {"device": "cpu", "audio_config": self.meta["audio_config"], **options}
        return avex.load_model(name or self.family, checkpoint_path=path, **options)


def clip(name: str, seconds: float) -> torch.Tensor:
    return torch.from_numpy(RECIPE.waveform(name, seconds, 16000))


def pad(x: torch.Tensor, samples: int) -> torch.Tensor:
    return torch.nn.functional.pad(x, (0, samples - len(x)))


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    got, wanted = got.detach().double(), wanted.double()
    return float((got - wanted).abs().max() / wanted.square().mean().sqrt())


def export_of(family):
    cls = get_model_class(family)
    return importlib.import_module(cls.__module__.rpartition(".")[0] + ".checkpoint").export_state


@pytest.fixture(params=["folded", "plain"])
def path(request):
    """Inference on folded convolutions, and the plain modules that gradients go through."""
    with torch.set_grad_enabled(request.param == "plain"):
        yield request.param


# -- EfficientNet ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["b0", pytest.param("b1", marks=SLOW)])
def effnet(request, tmp_path_factory):
    golden = Golden("efficientnet", f"efficientnet_{request.param}")
    return golden, golden.load("avex_safetensors", tmp_path_factory.mktemp("effnet"))


def effnet_batch():
    return torch.stack([clip("golden_b", 10), pad(clip("golden_a", 5), 160_000)])


def test_efficientnet(effnet, path):
    golden, model = effnet
    assert golden.arch.endswith(model.efficientnet_variant), "the file says which variant it is"
    features = model.forward_features(effnet_batch())
    assert features.values.shape == (2, 1280, 4, 32)
    assert error(features.values[:, ::4, :, ::2], golden["features"]) < TOLERANCE
    assert error(features.pooled(), golden["features_chan_mean"]) < POOLED
    assert error(model.forward_head(features), golden["logits"]) < POOLED
    short = clip("golden_a", 5)[None]
    assert error(model.forward_features(short).values[0, ::4], golden["features_5s"]) < TOLERANCE
    assert error(model(short), golden["logits_5s"]) < POOLED
    image = model.frontend(effnet_batch())[0][:, 0]
    assert error(image[:, ::2, ::8], golden["mel"]) < 2e-4


@torch.no_grad()
def test_efficientnet_layers(effnet):
    golden, model = effnet
    stages = [f"backbone.features.{i}" for i in range(9)]
    # The layers of avex 1 are bare convolutions inside blocks, before batch norm.
    inner = golden.meta["avex_all_layers"]
    with tap_layers(model, stages) as taps:
        model(effnet_batch())
    for index, stage in enumerate(stages):
        assert error(taps[stage].mean((2, 3)), golden[f"stage{index}_mean"]) < POOLED, stage
    names = model.resolve_layers(inner)
    with tap_layers(model, names) as taps:
        model(clip("golden_a", 5)[None])
    together = torch.cat([taps[name].mean(-1).flatten(1) for name in names], dim=1)
    assert error(together[:, ::7], golden["avex_extract_all_mean_5s"]) < POOLED


@torch.no_grad()
def test_efficientnet_layouts(effnet, tmp_path):
    golden, model = effnet
    x = clip("golden_a", 5)[None]
    for pickled in (False, True):
        other = golden.load("torchvision", tmp_path, pickled=pickled)
        assert torch.equal(other(x), model(x))
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    options = {"audio_config": golden.meta["audio_config"], "device": "cpu"}
    own = avex.load_model("efficientnet", checkpoint_path=tmp_path / "own.safetensors", **options)
    assert torch.equal(own(x), model(x))


@pytest.mark.parametrize(("layout", "name"), [("avex_safetensors", "esp"), ("torchvision", "torchvision")])
def test_efficientnet_export(effnet, layout, name):
    golden, model = effnet
    published = golden.state(layout)
    exported = export_of("efficientnet")(model.state_dict(), name)
    assert set(exported) == set(published)
    assert all(torch.equal(exported[key], published[key]) for key in published)


def test_imagenet_classes_are_not_a_classifier(tmp_path):
    golden = Golden("efficientnet", "efficientnet_b0")
    golden.layouts["torchvision"][-2][1] = [1000, 1280]
    golden.layouts["torchvision"][-1][1] = [1000]
    model = golden.load("torchvision", tmp_path)
    assert model.return_features_only
    assert set(model.load_report.ignored) == {"classifier.1.weight", "classifier.1.bias"}
    model = golden.load("torchvision", tmp_path, num_classes=1000)
    assert set(model.load_report.reset) == {"classifier.weight", "classifier.bias"}


@torch.no_grad()
def test_efficientnet_bfloat16(effnet):
    golden, model = effnet
    x = effnet_batch()
    full = model.embed(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.embed(x).float()
    # These weights enlarge rounding far more than trained ones: noise of 1e-4 in the waveform gives 0.93 here.
    wanted = 0.999 if golden.arch == "efficientnet_b0" else 0.995
    assert torch.nn.functional.cosine_similarity(full, half).min() >= wanted


# -- ResNet ----------------------------------------------------------------------------------------------------


@pytest.fixture(
    scope="module", params=["resnet18", *(pytest.param(f"resnet{n}", marks=SLOW) for n in (50, 152))]
)
def resnet(request, tmp_path_factory):
    golden = Golden("resnet", request.param)
    return golden, golden.load("avex_wrapper", tmp_path_factory.mktemp("resnet"), name=request.param)


def resnet_batch():
    return torch.stack([clip("golden_a", 5)[:48_000], pad(clip("golden_c", 1), 48_000)])


def test_resnet(resnet, path):
    golden, model = resnet
    features = model.forward_features(resnet_batch())
    step = 4 if model.get_embedding_dim() == 2048 else 1
    assert error(features.values[:, ::step], golden["features"]) < TOLERANCE
    assert error(features.pooled(), golden["pooled"]) < POOLED
    assert error(model(resnet_batch()), golden["logits"]) < POOLED
    image = model.frontend(resnet_batch())[0][:, 0]
    assert error(image[:, ::4, ::8], golden["image"]) < 2e-4


@torch.no_grad()
def test_resnet_layers(resnet):
    golden, model = resnet
    parts = ["bn1", "layer1", "layer2", "layer3", "layer4"]
    with tap_layers(model, [f"backbone.{part}" for part in parts]) as taps:
        model(resnet_batch())
    for part in parts:
        assert error(taps[f"backbone.{part}"].mean((2, 3)), golden[f"{part}_mean"]) < POOLED, part


@torch.no_grad()
def test_resnet_layouts(resnet, tmp_path):
    golden, model = resnet
    state = {**golden.state("torchvision"), "fc.weight": torch.ones(1000, 2), "fc.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "imagenet.pth")
    options = {"audio_config": golden.meta["audio_config"], "device": "cpu"}
    other = avex.load_model(golden.arch, checkpoint_path=tmp_path / "imagenet.pth", **options)
    assert other.return_features_only
    assert set(other.load_report.ignored) == {"fc.weight", "fc.bias"}
    assert torch.equal(other(resnet_batch()), model.forward_features(resnet_batch()).values)
    for layout, name in (("avex_wrapper", "avex"), ("torchvision", "torchvision")):
        published, exported = golden.state(layout), export_of("resnet")(model.state_dict(), name)
        assert set(exported) - set(published) == (
            {"fc.weight", "fc.bias"} if name == "torchvision" else set()
        )
        assert all(torch.equal(exported[key], published[key]) for key in published)


@torch.no_grad()
def test_resnet_bfloat16(resnet):
    golden, model = resnet
    full = model.embed(resnet_batch())
    with torch.autocast("cpu", torch.bfloat16):
        half = model.embed(resnet_batch()).float()
    wanted = 0.998 if golden.arch == "resnet152" else 0.999
    assert torch.nn.functional.cosine_similarity(full, half).min() >= wanted


# -- CLIP ------------------------------------------------------------------------------------------------------


@SLOW
@torch.no_grad()
def test_clip(tmp_path):
    golden, audio = Golden("clip", "clip_b0_roberta"), Golden("efficientnet", "efficientnet_b0")
    state = golden.state("avex_wrapper", statistics=audio)
    save_file(state, tmp_path / "clip.safetensors")
    options = {
        "checkpoint_path": tmp_path / "clip.safetensors",
        "audio_config": golden.meta["audio_config"],
        "device": "cpu",
    }
    model = avex.load_model("clip", **options)
    assert len(model.load_report.ignored) == 4, "the audio tower's classifier and the text tower's pooler"
    tokens = {"input_ids": golden["input_ids"].long(), "attention_mask": golden["attention_mask"]}
    x = clip("golden_a", 5)[None]
    names = [f"text_encoder.encoder.layer.{i}" for i in range(12)]
    with tap_layers(model, [*names, "text_encoder"]) as taps:
        heard, read, scale = model(x, tokens)
    assert error(taps["text_encoder"][:, :, ::2], golden["text_last_hidden"]) < 1e-4
    firsts = torch.stack([taps[name][:, 0] for name in names], dim=1)
    assert error(firsts, golden["text_layer_cls"]) < 1e-4
    assert error(read, golden["text_embedding"]) < 1e-4
    assert error(heard, golden["audio_embedding"]) < 1e-3
    assert error(model.embed(x, ["backbone.features.8"]), golden["audio_pooled"]) < 1e-3
    assert error(scale * heard @ read.T, golden["similarity"]) < 1e-3
    assert error(model.logit_scale[None], golden["logit_scale"]) < 1e-6

    deaf_to_text = avex.load_model("clip", return_features_only=True, **options)
    assert torch.equal(deaf_to_text(x), heard)
    assert not hasattr(deaf_to_text, "text_encoder")

    exported = export_of("clip")(model.state_dict(), "esp")
    assert set(exported) == set(state) - set(model.load_report.ignored)
    assert all(torch.equal(exported[key], state[key]) for key in exported)
