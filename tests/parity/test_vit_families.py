"""EAT, Bird-MAE and ATST-Frame against the numbers of their authors' code, loaded as users load them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import avex
from avex.models.features import Features
from avex.models.layers import tap_layers
from avex.models.utils.registry import get_model_class
from avex.nn.positions_2d import sincos_2d

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
_SPEC = importlib.util.spec_from_file_location("synthetic_weights", GOLDEN / "synthetic_weights.py")
RECIPE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(RECIPE)

FAMILY = {
    **dict.fromkeys(["eat_tiny", "eat_base"], "eat"),
    **dict.fromkeys(["birdmae_tiny", "birdmae_base", "birdmae_large", "birdmae_huge"], "birdmae"),
    **dict.fromkeys(["atst_frame_small", "atst_frame_base"], "atst_frame"),
}
# What the files cannot say: four heads of length eight, short clips.
OPTIONS = {
    "eat_tiny": {"eat_cfg": {"num_heads": 4, "target_length": 128}},
    "eat_base": {"eat_norm_mean": -5.553, "eat_norm_std": 4.606},
    "birdmae_tiny": {"config": {"num_heads": 4}},
}
TOLERANCE = {"eat": 5e-5, "birdmae": 5e-5, "atst_frame": 1e-4}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def golden(arch):
    folder = GOLDEN / FAMILY[arch]
    return np.load(folder / f"{arch}.npz"), json.loads((folder / f"{arch}.keys.json").read_text())


@lru_cache(maxsize=1)
def filled(arch):
    """Every tensor of all layouts by its name in the recipe; drawing them takes longer than the test."""
    _, keys = golden(arch)
    entries = {entry[3]: entry for layout in keys["layouts"].values() for entry in layout["keys"]}
    return {name: torch.from_numpy(RECIPE.fill(name, e[1], *e[4:5])) for name, e in entries.items()}


@pytest.fixture(scope="module", autouse=True)
def _free_memory():
    yield
    filled.cache_clear()


def write(arch, layout, folder):
    """A checkpoint file as it is published: layout, container, and what else lies in it."""
    _, keys = golden(arch)
    description = keys["layouts"][layout]
    state = {entry[0]: filled(arch)[entry[3]] for entry in description["keys"]}
    if "safetensors" in description["container"]:
        save_file(state, folder / "weights.safetensors")
        return folder / "weights.safetensors"
    if layout == "fairseq_pt_pretrain":
        saved = {
            "cfg": {"model": {"num_heads": 12}},
            "model": {**state, "_ema": {"blocks.0.x": torch.ones(2)}},
        }
    elif layout == "fairseq_pt_finetune":
        saved = {"cfg": {"model": {}}, "model": state}
    elif layout == "mae_pretrain_ckpt":
        saved = {"state_dict": {**state, "decoder.norm.weight": torch.ones(3)}, "epoch": 4}
    elif layout == "lightning_ssl_ckpt":
        student = {
            "model.student.encoder.pos_embed": torch.ones(3),
            "model.teacher.projector.0.bias": torch.ones(1),
        }
        saved = {"state_dict": {**state, **student}, "hyper_parameters": {"arch": "small"}}
    elif layout == "encoder_flat":
        saved = {**state, "hyper_parameters": {"n_mels": 64}}
    else:
        saved = state
    torch.save(saved, folder / "weights.pt")
    return folder / "weights.pt"


def load(arch, layout, folder, **options):
    path = write(arch, layout, folder)
    if arch in ("birdmae_large", "birdmae_huge"):
        filled.cache_clear()  # they have one layout, and up to 2.5 GB
    try:
        return avex.load_model(FAMILY[arch], checkpoint_path=path, **OPTIONS.get(arch, {}), **options)
    finally:
        path.unlink()


def give_head(model, arch, classes=7):
    """The classifier that the fixture used where its checkpoint has none."""
    for kind, shape in (("weight", (classes, model.embedding_dim)), ("bias", (classes,))):
        values = torch.from_numpy(RECIPE.fill(f"{arch}.classifier.{kind}", shape))
        getattr(model.classifier, kind).copy_(values)
    return model


def clip(name, seconds, sample_rate):
    return torch.from_numpy(RECIPE.waveform(name, seconds, sample_rate))[None]


def layer_outputs(model, run):
    names = model.get_model_layers()[1:]
    with tap_layers(model, names) as taps:
        run()
    return torch.stack([taps[name] for name in names], 1)


class Close:
    """Compare with one fixture's arrays: max|a - b| / rms(b) below its tolerance."""

    def __init__(self, arch):
        self.arrays, _ = golden(arch)
        self.tolerance = TOLERANCE[FAMILY[arch]]

    def __call__(self, got, name, tolerance=None, part=np.s_[:]):
        want = self.arrays[name][part]
        assert tuple(got.shape) == want.shape, name
        error = np.abs(got.numpy() - want).max() / np.sqrt(np.mean(want**2))
        assert error < (tolerance or self.tolerance), f"{name}: {error:.2e}"


# -- EAT ---------------------------------------------------------------------------------------------------


def test_eat_tiny(tmp_path):
    close = Close("eat_tiny")
    model = load("eat_tiny", "hf_core", tmp_path)
    assert model.classifier.out_features == 11
    mel = torch.from_numpy(RECIPE.fill("eat_tiny.input", (2, 1, 128, 128))).squeeze(1) * 128
    tokens = []
    layers = layer_outputs(model, lambda: tokens.append(model.backbone(mel)))
    close(tokens[0], "features")
    close(layers[:, :, ::3], "layers")
    close(model.forward_head(Features(tokens[0], model.layout)), "finetune_logits")


EAT_LAYOUTS = [
    "avex_sl_eat_safetensors",
    "avex_ssl_eat_safetensors",
    "hf_pretrain_safetensors",
    "hf_finetune_safetensors",
    "fairseq_pt_pretrain",
    "fairseq_pt_finetune",
]


@pytest.mark.slow
@pytest.mark.parametrize("layout", EAT_LAYOUTS)
def test_eat_base_in_every_layout(tmp_path, layout):
    close = Close("eat_base")
    model = load("eat_base", layout, tmp_path)
    loaded = sum(name.startswith("backbone.") for name in model.load_report.loaded)
    assert loaded == (152 if "finetune" in layout else 150)
    if "ssl" in layout or layout == "fairseq_pt_pretrain":
        assert sum(".decoder." in name for name in model.load_report.ignored) == 14
    features = model.forward_features(clip("golden_a", 5, 16000))
    close(features.values[:, ::9, ::2], "features", part=np.s_[1:])
    if "finetune" in layout:
        close(model.forward_head(features), "finetune_logits", part=np.s_[1:])
    else:
        assert hasattr(model, "classifier") == (layout == "avex_sl_eat_safetensors")


@pytest.mark.slow
def test_eat_base_inside(tmp_path):
    close = Close("eat_base")
    model = load("eat_base", "avex_sl_eat_safetensors", tmp_path)
    waves = [clip("golden_b", 10, 16000), clip("golden_a", 5, 16000)]
    frames = torch.cat([model.frontend(wave)[0] for wave in waves])
    close(frames[:, ::8], "fbank", 1e-4)
    projections = [f"backbone.blocks.{i}.attn.proj" for i in range(12)]
    with tap_layers(model, ["backbone.local_encoder", "backbone.pre_norm", *projections]) as taps:
        layers = layer_outputs(model, lambda: model.backbone(frames))
    close(taps["backbone.local_encoder"][:, ::17, ::4], "patch_embed")
    close(taps["backbone.pre_norm"][:, ::19, ::4], "pre_norm")
    close(layers.mean(2), "layer_mean")
    close(layers[:, :, 0], "layer_cls")
    close(torch.stack([taps[name].mean(1) for name in projections], 1), "attn_proj_mean")
    close(layers[:, -1, ::9, ::2], "features")
    features = Features(layers[:, -1], model.layout)
    close(model.forward_head(features), "logits_cls")
    model.config = replace(model.config, pooling="mean")
    close(model.forward_head(features), "logits_mean")
    table = sincos_2d(768, rows=768, columns=8)
    np.testing.assert_allclose(table[[0, 1, 7, 8, 9, 511, 6143]], close.arrays["sincos_rows"], atol=1e-4)
    model.backbone.fixed_positional_encoder.positions.copy_(table[None])
    close(model.backbone(frames)[:, ::19, ::4], "features_sincos")


# -- Bird-MAE ------------------------------------------------------------------------------------------------

BIRDMAE_LAYOUTS = ["hf_safetensors", "mae_pretrain_ckpt", "avex_wrapper"]


@pytest.mark.parametrize(
    ("arch", "layout"),
    [("birdmae_tiny", layout) for layout in BIRDMAE_LAYOUTS]
    + [pytest.param("birdmae_base", layout, marks=pytest.mark.slow) for layout in BIRDMAE_LAYOUTS]
    + [
        pytest.param(f"birdmae_{size}", "hf_safetensors", marks=pytest.mark.slow)
        for size in ("large", "huge")
    ],
)
def test_birdmae(tmp_path, arch, layout):
    close = Close(arch)
    model = load(arch, layout, tmp_path, num_classes=7)
    recordings = [("golden_a", 5), ("golden_short", 3.2), ("golden_b", 7)]
    if arch in ("birdmae_large", "birdmae_huge"):
        del recordings[1:]  # the other two take minutes and show nothing that base does not
    waves = [clip(*recording, 32000) for recording in recordings]
    first = np.s_[: len(waves)]
    tiny = arch == "birdmae_tiny"
    frames = torch.cat([model.frontend(wave)[0] for wave in waves])
    embeddings = []
    with tap_layers(model, ["backbone.patch_embed"]) as taps:
        layers = layer_outputs(model, lambda: embeddings.append(model.backbone(frames)))
    token_step, feature_step = (3, 1) if tiny else (17, 8)
    close(taps["backbone.patch_embed"][:1, ::token_step, ::feature_step], "patch_embed")
    close(layers[:2].mean(2), "layer_mean", part=first)
    close(layers[:1, :, 0], "layer_cls")
    token_step, feature_step = (2, 1) if tiny else (7, 4)
    close(model.backbone.norm(layers[:2, -1])[:, 1::token_step, ::feature_step], "tokens_norm", part=first)
    if tiny:
        assert torch.equal(model.forward_tokens(waves[0]).values, model.backbone.tokens(frames[:1]))
    if layout == "mae_pretrain_ckpt":  # has no norm for the pooled embedding, and the report says so
        assert set(model.load_report.missing) == {"backbone.fc_norm.weight", "backbone.fc_norm.bias"}
        return
    close(embeddings[0], "pooled", part=first)
    give_head(model, arch)
    close(model.forward_head(Features(embeddings[0], model.layout)), "logits", part=first)
    table = sincos_2d(model.embedding_dim, rows=8, columns=32)
    rows = torch.nn.functional.pad(table, (0, 0, 1, 0))[[0, 1, 2, 8, 9, 33, 256]]
    np.testing.assert_allclose(rows, close.arrays["sincos_rows"], atol=1e-5)
    model.backbone.pos_embed[:, 1:].copy_(table)
    model.backbone.pos_embed[:, 0].zero_()
    close(model.forward_features(waves[0]).values, "pooled_sincos")


def test_birdmae_pads_as_published(tmp_path):
    close = Close("birdmae_tiny")
    model = load("birdmae_tiny", "hf_safetensors", tmp_path)
    frames = torch.cat(
        [
            model.frontend(clip(*c, 32000))[0]
            for c in (("golden_a", 5), ("golden_short", 3.2), ("golden_b", 7))
        ]
    )
    close(frames[:, ::32, ::4], "fbank", 1e-4)
    close(frames[:, 494:502, ::8], "fbank_tail", 1e-4)
    close(frames[1, 314:324, ::4], "fbank_short_boundary", 1e-4)


# -- ATST-Frame ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "layout"),
    [
        ("atst_frame_small", "encoder_flat"),
        pytest.param("atst_frame_small", "lightning_ssl_ckpt", marks=pytest.mark.slow),
        pytest.param("atst_frame_small", "avex_wrapper", marks=pytest.mark.slow),
        pytest.param("atst_frame_base", "encoder_flat", marks=pytest.mark.slow),
        pytest.param("atst_frame_base", "lightning_ssl_ckpt", marks=pytest.mark.slow),
        pytest.param("atst_frame_base", "avex_wrapper", marks=pytest.mark.slow),
    ],
)
def test_atst_frame(tmp_path, arch, layout):
    close = Close(arch)
    model = give_head(load(arch, layout, tmp_path, num_classes=7), arch)
    wave, long = clip("golden_a", 5, 16000), clip("golden_long", 15, 16000)
    close(model.frontend(wave)[0][0, :, ::4], "mel")
    names = ["backbone.patch_embed"]
    with tap_layers(model, names) as taps:
        layers = layer_outputs(model, lambda: model.forward_features(wave))
    close(taps["backbone.patch_embed"][0, ::5, ::4], "patch_embed")
    close(layers[0].mean(1), "block_mean")
    values = model.forward_features(wave).values
    close(values[0].T[::3, ::5], "timestamp")
    close(model.embed(wave), "timestamp_mean")
    close(model.scene_embedding(wave), "scene")
    close(model(wave), "logits")
    values = model.forward_features(long).values
    assert values.shape == (1, 375, model.embedding_dim)
    close(values.mean(1), "timestamp_15s_mean")
    close(values[0, 250], "timestamp_15s_tok250")
    close(model.scene_embedding(long), "scene_15s")


# -- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", list(FAMILY))
def test_every_published_name_is_known(arch):
    """All layouts of all sizes give each tensor the same name, and what is left out is left out by a rule."""
    _, keys = golden(arch)
    adapters = get_model_class(FAMILY[arch]).checkpoint_adapters
    names = {}
    for layout in keys["layouts"].values():
        entries = {entry[0]: entry[3] for entry in layout["keys"]}
        adapter = next(adapter for adapter in adapters if adapter.matches(set(entries)))
        for key, name in adapter.key_map.apply(entries).items():
            assert names.setdefault(entries[key], name) == name
            assert (name is None) == (".decoder." in key)
    assert any(name.startswith("backbone.blocks.") for name in names.values() if name)
