"""AVES and BirdAVES against values of torchaudio's HuBERT, through real files of every published layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import avex
from avex.models.hubert.checkpoint import ADAPTERS
from avex.models.layers import tap_layers

_SPEC = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
published = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(published)
clip, batch, error = published.clip, published.batch, published.error

TOLERANCE = 1e-4
SIZES = {"aves_tiny": "aves", "aves_base": "aves_base_bio", "birdaves_large": "birdaves_biox_large"}
PUBLISHED = {arch: published.Published("hubert", arch) for arch in SIZES}
# How the reference values were thinned out: steps over frames and channels.
STEPS = {
    "aves_tiny": {"inside": (8, 1), "features": (1, 1), "features_1s": (1, 1), "valid": (1, 1)},
    "aves_base": {"inside": (8, 4), "features": (4, 2), "features_1s": (1, 1), "valid": (2, 4)},
    "birdaves_large": {"inside": (8, 4), "features": (4, 2), "features_1s": (1, 2), "valid": (2, 4)},
}
# What a published file holds beside the network.
FAIRSEQ_EXTRA = {
    "mask_emb": torch.zeros(24),
    "final_proj.weight": torch.zeros(8, 24),
    "final_proj.bias": torch.zeros(8),
    "label_embs_concat": torch.zeros(504, 8),
    "args": None,
}
ARCHITECTURES = pytest.mark.parametrize(
    "arch", ["aves_tiny", *(pytest.param(arch, marks=pytest.mark.slow) for arch in list(SIZES)[1:])]
)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Models by architecture, each from its torchaudio file."""
    loaded = {}

    def get(arch):
        if arch not in loaded:
            loaded.clear()  # the large one alone takes 1.3 GB
            loaded[arch] = load(arch, "torchaudio_pt", tmp_path_factory.mktemp(arch))
        return loaded[arch]

    return get


def load(arch, layout, folder, **extra):
    path = PUBLISHED[arch].write(layout, folder, **extra)
    options = {}
    if arch == "aves_tiny":  # heads of another length than all published models have
        options["config_path"] = folder / "model_config.json"
        options["config_path"].write_text(json.dumps(PUBLISHED[arch].config))
    model = avex.load_model(SIZES[arch], checkpoint_path=path, device="cpu", **options)
    path.unlink()
    return model


def thin(x, arch, what):
    frames, channels = STEPS[arch][what]
    return x[..., ::frames, ::channels]


@ARCHITECTURES
class TestValues:
    def test_one_clip(self, arch, models):
        model, wanted = models(arch), PUBLISHED[arch]
        layers = model.get_model_layers()[1:]
        denses = [f"{name}.feed_forward.output_dense" for name in layers]
        inside = {
            "conv_features": "backbone.feature_extractor",
            "projected": "backbone.encoder.feature_projection",
            "pos_conv": "backbone.encoder.transformer.pos_conv_embed",
        }
        with tap_layers(model, [*inside.values(), *layers, *denses]) as taps:
            features = model.forward_features(clip("golden_a", 5)[None]).values
        for name, module in inside.items():
            assert error(thin(taps[module], arch, "inside"), wanted[name]) < TOLERANCE, name
        assert error(torch.stack([taps[x].mean(1) for x in layers], 1), wanted["layer_mean"]) < TOLERANCE
        assert error(torch.stack([taps[x].mean(1) for x in denses], 1), wanted["ff_mean"]) < TOLERANCE
        assert torch.equal(features, taps[layers[-1]])
        assert error(thin(features, arch, "features"), wanted["features"]) < TOLERANCE
        assert error(published.row_statistics(features), wanted["features.rowstats"]) < TOLERANCE
        short = model(clip("golden_c", 1)[None])[0]
        assert error(thin(short, arch, "features_1s"), wanted["features_1s"]) < TOLERANCE

    def test_padding(self, arch, models):
        model, wanted = models(arch), PUBLISHED[arch]
        x, mask = batch(clip("golden_a", 5), clip("golden_c", 1))
        layers = model.get_model_layers()[1:]
        with tap_layers(model, layers) as taps:
            ignoring = model.forward_features(x, mask)
        means = torch.stack([taps[name].mean(1) for name in layers], 1)
        assert error(means, wanted["batch_nolen_mean"]) < TOLERANCE
        assert ignoring.padding_mask is None
        model.handle_padding = True
        features = model.forward_features(x, mask)
        model.handle_padding = False
        lengths = (~features.padding_mask).sum(1)
        assert torch.equal(lengths.int(), wanted["frame_lengths"])
        valid = features.values[1, : lengths[1]]
        assert error(thin(valid, arch, "valid"), wanted["batch_len_last_valid_1"]) < TOLERANCE


@pytest.mark.slow
def test_classifier(models):
    model = models("aves_base")
    weight, bias = (
        torch.from_numpy(published.recipe.fill(f"aves.test_head.{x}", s))
        for x, s in (("weight", (7, 768)), ("bias", (7,)))
    )
    logits = torch.nn.functional.linear(model.embed(clip("golden_a", 5)[None]), weight, bias)
    assert error(logits, PUBLISHED["aves_base"]["logits"]) < TOLERANCE


@pytest.mark.parametrize("layout", PUBLISHED["aves_tiny"].layouts)
def test_every_layout(layout, models, tmp_path):
    extra = FAIRSEQ_EXTRA if layout == "fairseq_pt" else {}
    model = load("aves_tiny", layout, tmp_path, **extra)
    x = clip("golden_c", 1)[None]
    assert torch.equal(model(x), models("aves_tiny")(x))
    assert set(model.load_report.ignored) == {name for name, value in extra.items() if value is not None}


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["aves_base", "birdaves_large"])
def test_every_layout_of_full_size(arch, models):
    expected = models(arch).state_dict()
    for layout in PUBLISHED[arch].layouts:
        state = PUBLISHED[arch].state(layout)
        adapter = next(adapter for adapter in ADAPTERS if adapter.matches(set(state)))
        converted = adapter.convert(state)
        assert converted.keys() == expected.keys()
        assert all(torch.equal(converted[name], expected[name]) for name in expected)
