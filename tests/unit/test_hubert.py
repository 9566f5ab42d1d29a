"""HuBERT with a tiny network: the folded norm, pieces, padding, training, checkpoints, errors."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import avex
from avex._core.errors import ConfigError, UnknownNameError, WeightsError
from avex.models.hubert import extractor
from avex.models.hubert.checkpoint import ADAPTERS, export_state
from avex.models.hubert.config import HubertConfig
from avex.models.hubert.extractor import FeatureExtractor
from avex.models.hubert.model import Hubert
from avex.testing import tiny_model

SIZES = {
    "extractor_conv_layer_config": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
    "encoder_embed_dim": 16,
    "encoder_num_layers": 2,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 24,
    "encoder_pos_conv_kernel": 6,
    "encoder_pos_conv_groups": 2,
}
FREE_OF_CHANCE = dict.fromkeys(
    (
        "encoder_projection_dropout",
        "encoder_attention_dropout",
        "encoder_ff_interm_dropout",
        "encoder_dropout",
        "encoder_layer_drop",
    ),
    0.0,
)


def tiny(seed=0, num_classes=5, options=(), **changes):
    torch.manual_seed(seed)
    return Hubert(num_classes=num_classes, init_config={**SIZES, **changes}, **dict(options)).eval()


def noise(*shape, seed=1):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- convolutions ------------------------------------------------------------------------------------------


def written_out(network, x):
    """The convolutions with the norm where it stands in the published program."""
    x = x.unsqueeze(1)
    for i, layer in enumerate(network.conv_layers):
        x = layer.conv(x)
        x = nn.functional.gelu(layer.layer_norm(x) if i == 0 else x)
    return x.transpose(1, 2)


def convolutions(bias=False, seed=0):
    torch.manual_seed(seed)
    network = FeatureExtractor(HubertConfig.from_options({**SIZES, "extractor_conv_bias": bias}))
    for parameter in network.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter)
    return network


@settings(max_examples=20, deadline=None)
@given(st.integers(400, 9000), st.integers(1, 30), st.floats(-1, 1), st.integers(0, 100))
def test_pieces_make_the_whole(samples, piece, offset, seed):
    network = convolutions(seed=seed % 3)
    x = noise(2, samples, seed=seed) + offset
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "_PIECE", piece)
        torch.testing.assert_close(network(x), written_out(network, x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_the_folded_norm_has_the_right_gradients(bias):
    network = convolutions(bias)
    x = noise(2, 1600).requires_grad_()
    parameters = [p for name, p in network.named_parameters() if name != "conv_layers.0.conv.bias"]
    got, wanted = (
        torch.autograd.grad((f(x) ** 2).sum(), [x, *parameters])
        for f in (network, lambda x: written_out(network, x))
    )
    for ours, theirs in zip(got, wanted, strict=True):
        assert (ours - theirs).abs().max() <= 1e-3 * theirs.abs().max()


def test_number_of_frames():
    config = HubertConfig()
    assert (config.min_samples, config.hop_length) == (400, 320)
    assert [config.num_frames(n) for n in (399, 400, 719, 720, 16000, 80000)] == [0, 1, 1, 2, 49, 249]


# -- what comes out ----------------------------------------------------------------------------------------


def test_shapes_and_rates():
    model = tiny()
    x = noise(2, 16000)
    assert model(x).shape == (2, 5)
    features = model.forward_features(x)
    assert features.values.shape == (2, 49, 16)
    assert model.frame_rate == 50
    assert model.embed(x, layers=["all"]).shape == (2, 3 * 16)
    assert torch.equal(model.embed(x, layers=[-1]), features.pooled())
    assert model.embedding_dim == 16


def test_neighbours_of_the_same_length_do_not_matter():
    model = tiny()
    x = noise(3, 9000)
    with torch.no_grad():
        together = model.forward_features(x).values
        for i in range(3):
            torch.testing.assert_close(together[i : i + 1], model.forward_features(x[i : i + 1]).values)


def test_a_mask_is_ignored_unless_asked_for():
    x = noise(2, 9000)
    x[1, 5000:] = 0
    mask = torch.zeros(2, 9000, dtype=torch.bool)
    mask[1, 5000:] = True
    ignoring, handling = tiny(), tiny(options={"handle_padding": True})
    with torch.no_grad():
        assert torch.equal(ignoring(x, mask), ignoring(x))
        assert not torch.allclose(handling(x, mask)[1], handling(x)[1])
        features = handling.forward_features(x, mask)
        assert (~features.padding_mask).sum(1).tolist() == [27, 15]
        torch.testing.assert_close(handling(x[1:], mask[1:]), handling(x, mask)[1:])
        mask[1] = True
        assert handling(x, mask).isfinite().all()


@torch.no_grad()
def test_frames_that_see_padding_are_padding_and_what_is_in_them_does_not_matter():
    model, x = tiny(options={"handle_padding": True}), noise(1, 8000)
    for valid in (399, 400, 719, 720, 4000, 8000):
        features = model.forward_features(x, torch.arange(8000).unsqueeze(0) >= valid)
        assert (~features.padding_mask).sum() == model.config.num_frames(valid)
    frames, padding = noise(2, 20 * 8).view(2, 20, 8), torch.arange(20) >= torch.tensor([[20], [6]])
    other = torch.where(padding.unsqueeze(-1), 7.0, frames)
    encoder = model.backbone.encoder
    torch.testing.assert_close(encoder(other, padding)[~padding], encoder(frames, padding)[~padding])


def test_silence_is_finite():
    assert tiny()(torch.zeros(2, 16000)).isfinite().all()


def test_one_frame_is_the_least():
    model = tiny()
    assert model.forward_features(torch.zeros(1, 400)).values.shape == (1, 1, 16)
    with pytest.raises(ValueError, match="399 samples is too short.* at least 400"):
        model(torch.zeros(1, 399))


def test_lower_precision():
    model = tiny()
    x = noise(2, 16000)
    with torch.no_grad():
        wanted = model.embed(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model.embed(x)
        assert torch.cosine_similarity(low.float(), wanted).min() > 0.999
        converted = model.to(torch.bfloat16).embed(x)
    assert torch.cosine_similarity(converted.float(), wanted).min() > 0.999


# -- training ----------------------------------------------------------------------------------------------


def test_gradients_reach_everything_and_checkpointing_keeps_them():
    model = tiny(encoder_layer_drop=0.0, encoder_attention_dropout=0.0).train()
    x = noise(2, 3200).requires_grad_()

    def gradients():
        model.zero_grad()
        torch.manual_seed(3)
        model(x).square().sum().backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    with torch.inference_mode():
        model(noise(1, 3200))  # leaves nothing behind that training could not use
    plain = gradients()
    assert x.grad.any()
    assert all(grad is not None and grad.any() and grad.isfinite().all() for grad in plain.values())
    model.enable_gradient_checkpointing()
    again = gradients()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_training_and_inference_agree_without_chance():
    model = tiny(**FREE_OF_CHANCE)
    x = noise(2, 5000)
    training = model.train()(x)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), training, rtol=1e-4, atol=1e-5)


def test_layerdrop():
    x = noise(1, 5000)
    model = tiny(**{**FREE_OF_CHANCE, "encoder_layer_drop": 1.0})
    whole = model(x)
    assert not torch.allclose(model.train()(x), whole)


# -- checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [adapter.name for adapter in ADAPTERS])
def test_export_is_what_the_layout_reads(layout):
    state = tiny().state_dict()
    exported = export_state(state, layout)
    adapter = next(adapter for adapter in ADAPTERS if adapter.matches(set(exported)))
    assert adapter.name == layout
    kept = layout.startswith(("avex", "esp"))
    wanted = {name: value for name, value in state.items() if kept or not name.startswith("classifier.")}
    back = adapter.convert(exported)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[name], wanted[name]) for name in wanted)


def test_export_into_an_unknown_layout():
    with pytest.raises(UnknownNameError, match="Did you mean 'fairseq'"):
        export_state({}, "fairsq")


@pytest.mark.parametrize("bias", [False, True])
def test_own_file_keeps_its_classifier(tmp_path, bias):
    model = tiny(extractor_conv_bias=bias)
    save_file(model.state_dict(), tmp_path / "hubert.safetensors")
    options = {"init_config": {"encoder_num_heads": 4}, "device": "cpu"}
    again = avex.load_model("aves", checkpoint_path=tmp_path / "hubert.safetensors", **options)
    x = noise(1, 5000)
    assert torch.equal(again(x), model(x))


def test_heads_must_be_known(tmp_path):
    save_file(tiny().state_dict(), tmp_path / "hubert.safetensors")
    with pytest.raises(ConfigError, match="encoder_num_heads"):
        avex.load_model("hubert", checkpoint_path=tmp_path / "hubert.safetensors", device="cpu")


@pytest.mark.parametrize(
    "lost", ["feature_extractor.conv_layers.3.conv.weight", "feature_extractor.conv_layers.6."]
)
def test_a_missing_convolution_is_named(tmp_path, lost):
    state = {name: value for name, value in tiny().state_dict().items() if lost not in name}
    save_file(state, tmp_path / "hubert.safetensors")
    options = {"init_config": {"encoder_num_heads": 4}, "device": "cpu"}
    with pytest.raises(WeightsError, match=rf"lacks 1 of them: 'backbone\.{lost}"):
        avex.load_model("aves", checkpoint_path=tmp_path / "hubert.safetensors", **options)


@pytest.mark.parametrize(
    "name",
    [
        "feature_extractor.conv_layers.0.conv.weight",
        "feature_extractor.conv_layers.6.conv.weight",
        "encoder.transformer.pos_conv_embed.weight_v",
    ],
)
@pytest.mark.parametrize("reshape", [torch.flatten, torch.sum], ids=["flat", "number"])
def test_a_misshapen_convolution_is_named(tmp_path, name, reshape):
    state = tiny().state_dict()
    state[f"backbone.{name}"] = reshape(state[f"backbone.{name}"])
    save_file(state, tmp_path / "hubert.safetensors")
    options = {"init_config": {"encoder_num_heads": 4}, "device": "cpu"}
    with pytest.raises(WeightsError, match=rf"'backbone\.{name}' is \([0-9]*,?\), expected"):
        avex.load_model("aves", checkpoint_path=tmp_path / "hubert.safetensors", **options)


def test_fewer_layers_than_published_are_said(tmp_path, caplog):
    save_file(tiny().state_dict(), tmp_path / "hubert.safetensors")
    options = {"init_config": {"encoder_num_heads": 4}, "device": "cpu"}
    avex.load_model("aves_base_bio", checkpoint_path=tmp_path / "hubert.safetensors", **options)
    assert f"holds {SIZES['encoder_num_layers']} transformer layers, the card states 12" in caplog.text


def test_other_sizes_do_not_fit(tmp_path):
    save_file(tiny().state_dict(), tmp_path / "hubert.safetensors")
    options = {"init_config": {**SIZES, "encoder_ff_interm_features": 40}, "device": "cpu"}
    with pytest.raises(WeightsError, match=r"expected \(40, 16\)"):
        avex.load_model("hubert", checkpoint_path=tmp_path / "hubert.safetensors", **options)


def test_config_file(tmp_path):
    path = tmp_path / "model_config.json"
    path.write_text(json.dumps(SIZES))
    assert Hubert(config_path=path, init_config={"encoder_num_layers": 1}).config.encoder_num_layers == 1
    path.write_text("[]")
    with pytest.raises(ConfigError, match="not a JSON object"):
        Hubert(config_path=path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Hubert(config_path=tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_num_layer": 2}, "Did you mean 'encoder_num_layers'"),
        ({"extractor_mode": "layer_norm"}, "only 'group_norm'"),
        ({"encoder_layer_norm_first": True}, "encoder_layer_norm_first=True is not supported"),
        ({"encoder_num_heads": 5}, "encoder_num_heads=5 does not divide encoder_embed_dim=768"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        HubertConfig.from_options(settings)


def test_another_sample_rate():
    with pytest.raises(ConfigError, match="16000 Hz, not 32000"):
        tiny(options={"audio_config": {"sample_rate": 32000, "representation": "raw"}})


def test_devices_without_float64_convolve_and_norm_one_after_another():
    convolutions = tiny_model("hubert").backbone.feature_extractor
    x = 0.1 * torch.randn(2, 6000, generator=torch.Generator().manual_seed(5)) + 0.05
    with torch.no_grad():
        plain, folded = convolutions._convolve(x).transpose(1, 2), convolutions(x)
    assert (plain - folded).abs().max() < 1e-4 * folded.abs().max()
