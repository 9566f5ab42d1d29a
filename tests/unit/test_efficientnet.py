"""EfficientNet beyond its reference values: batches, lengths, training, checkpoints that do not fit."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import avex
from avex._core.errors import ConfigError, WeightsError
from avex.configs import AudioConfig, ModelSpec
from avex.models.efficientnet.checkpoint import ADAPTERS, export_state
from avex.models.efficientnet.config import EfficientNetConfig, Stage
from avex.models.efficientnet.model import EfficientNetModel
from avex.models.efficientnet.network import EfficientNet, MBConv
from avex.models.layers import tap_layers
from avex.nn import convolution

AUDIO = AudioConfig(n_fft=800, hop_length=160, win_length=800)
TINY = EfficientNetConfig(
    stages=(Stage(1, 3, 1, 8, 1), Stage(6, 5, 2, 12, 2), Stage(4, 3, 1, 12, 2)),
    stem_channels=8,
    embedding_dim=16,
)


def lively(network, x):
    """Statistics of batch norm that fit the input: with fresh ones it fades away in a deep network."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    blocks = [module for module in network.modules() if isinstance(module, MBConv)]
    chances = [block.drop_chance for block in blocks]
    for norm in norms:
        norm.momentum = None  # the mean over all passes, of which there is one
    for block in blocks:
        block.drop_chance = 0.0
    with torch.no_grad():
        network.train()(x)
    for norm in norms:
        norm.momentum = 0.1
    for block, chance in zip(blocks, chances, strict=True):
        block.drop_chance = chance
    return network.eval()


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return lively(EfficientNet(TINY), torch.rand(4, 1, 32, 40))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = EfficientNetModel(audio_config=AUDIO, num_classes=3)
    lively(model.backbone, model.frontend(noise(8))[0])
    return model.eval()


@pytest.fixture
def clips():
    return noise(3)


def noise(count):
    """Half-second clips of different colours."""
    x = torch.randn(count, 8_000, generator=torch.Generator().manual_seed(0)) * 0.1
    return x.cumsum(1) * 0.02 + x * torch.linspace(0, 1, count)[:, None]


# -- the network -----------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 5), height=st.integers(1, 40), width=st.integers(1, 70))
def test_inference_is_what_the_modules_give(tiny, batch, height, width):
    x = torch.rand(batch, 1, height, width)
    expected = tiny(x).detach()
    assert expected.shape == (batch, 16, -(-height // 4), -(-width // 4))
    with torch.inference_mode():
        torch.testing.assert_close(tiny(x), expected, rtol=1e-3, atol=1e-4)


def test_large_batches_go_through_in_parts(tiny, monkeypatch):
    x = torch.rand(5, 1, 32, 40)
    with torch.no_grad():
        whole = tiny(x)
        monkeypatch.setattr("avex.models.efficientnet.network._CACHED_VALUES", 48 * 16 * 20 * 2)
        torch.testing.assert_close(tiny(x), whole, rtol=1e-4, atol=1e-5)


def test_three_equal_channels_are_one(tiny):
    x = torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(tiny(x.expand(-1, 3, -1, -1)), tiny(x))
        torch.testing.assert_close(tiny(x.repeat(1, 3, 1, 1)), tiny(x), rtol=1e-4, atol=1e-5)


def test_every_part_can_be_listened_to(tiny):
    x = torch.rand(2, 1, 16, 16)
    names = [name for name, module in tiny.named_modules() if name and not name.endswith((".fc1", ".fc2"))]
    with torch.no_grad(), tap_layers(tiny, names) as taps:
        output = tiny(x)
    assert set(taps) == set(names)
    assert torch.equal(taps["features"], output)
    with torch.no_grad(), tap_layers(tiny, ["features.2.1.block.1", "features.2.0"]) as few:
        tiny(x)
    for name, value in few.items():
        torch.testing.assert_close(value, taps[name], rtol=1e-4, atol=1e-5)


def test_a_part_of_ones_own(tiny):
    network = copy.deepcopy(tiny)
    x = torch.rand(2, 1, 16, 16)
    network.features[2][0].block[2] = nn.Identity()
    with torch.no_grad():
        assert not torch.allclose(network(x), tiny(x))


def test_gradient_checkpointing(tiny):
    plain, frugal = copy.deepcopy(tiny).train(), copy.deepcopy(tiny).train()
    frugal.enable_gradient_checkpointing()
    x = torch.rand(4, 1, 32, 32)
    for network in (plain, frugal):
        torch.manual_seed(3)  # stochastic depth
        network(x).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
        assert a.grad.abs().sum() > 0, name
    for a, b in zip(plain.buffers(), frugal.buffers(), strict=True):
        assert torch.equal(a, b)
    with torch.no_grad():
        torch.testing.assert_close(frugal.eval()(x), plain.eval()(x))


def test_stochastic_depth_skips_whole_clips_in_training_only():
    block = MBConv(8, Stage(2, 3, 1, 8, 1), stride=1, drop_chance=0.5)
    x = torch.rand(64, 8, 4, 4)
    torch.manual_seed(0)
    y = block.train()(x)
    skipped = (y == x).flatten(1).all(1)
    assert 16 < int(skipped.sum()) < 48
    # The others make up for them.
    torch.testing.assert_close(y[~skipped], (x + 2 * block.block(x))[~skipped])
    with torch.no_grad():
        assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_chances_of_stochastic_depth_grow_with_depth():
    blocks = [m for m in EfficientNet(EfficientNetConfig.named("b0")).modules() if isinstance(m, MBConv)]
    assert [block.drop_chance for block in blocks] == pytest.approx([0.2 * i / 16 for i in range(16)])


# -- the model -------------------------------------------------------------------------------------------------


def test_shapes_and_rates(clips):
    model = EfficientNetModel(audio_config=AUDIO, return_features_only=True).eval()
    defaults = EfficientNetModel(return_features_only=True).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 80_000)).shape == (1, 1280, 4, 16)
        assert defaults(torch.zeros(1, 80_000)).shape == (1, 1280, 4, 5)
        assert model.embed(clips).shape == (3, 1280) == (3, model.embedding_dim)
    assert model.frame_rate == pytest.approx(100 / 32)


def test_numbers_of_parameters():
    counts = {
        variant: sum(
            p.numel() for p in EfficientNetModel(num_classes=10, efficientnet_variant=variant).parameters()
        )
        for variant in ("b0", "b1")
    }
    assert counts == {"b0": 4_020_358, "b1": 6_525_994}


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours(model, clips):
    together = model.embed(clips)
    mask = torch.zeros_like(clips, dtype=torch.bool)
    mask[1, 4_000:] = True
    for i in range(3):
        torch.testing.assert_close(model.embed(clips[i : i + 1])[0], together[i], rtol=1e-3, atol=1e-4)
    assert torch.equal(model.embed(clips, padding_mask=mask), together), "masks are ignored, as published"


@torch.no_grad()
def test_silence_and_short_clips(model):
    assert model(torch.zeros(2, 8_000)).isfinite().all()
    assert model(torch.zeros(1, 401)).isfinite().all()
    with pytest.raises(ValueError, match="at least 401"):
        model(torch.zeros(1, 400))


def test_layers(model, clips):
    layers = model.get_model_layers()
    assert len(layers) == 18
    assert (layers[0], layers[1], layers[-1]) == (
        "backbone.features.0",
        "backbone.features.1.0",
        "backbone.features.8",
    )
    with torch.no_grad():
        everything = model.embed(clips, ["all"])
        last = model.embed(clips)
        assert everything.shape == (3, 32 + 16 + 2 * 24 + 2 * 40 + 3 * 80 + 3 * 112 + 4 * 192 + 320 + 1280)
        torch.testing.assert_close(everything[:, -1280:], last, rtol=1e-3, atol=1e-4)
    for name in ("last_layer", "layer_17", -1, "model.avgpool", "model.features.8", "backbone.features.8"):
        assert model.resolve_layers([name]) == ["backbone.features.8"], name


def test_training_and_evaluation(model, clips):
    model = copy.deepcopy(model).train()
    before = model.backbone.features[0][1].running_mean.clone()
    torch.nn.functional.cross_entropy(model(clips), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not torch.equal(model.backbone.features[0][1].running_mean, before)
    with torch.no_grad():
        assert not torch.equal(model(clips), model(clips)), "dropout"
        model.eval()
        assert torch.equal(model(clips), model(clips))


def test_gradients_reach_the_waveform(model, clips):
    clips.requires_grad_()
    model(clips).sum().backward()
    assert clips.grad.abs().sum() > 0


def test_wrong_options():
    with pytest.raises(ConfigError, match=r"'b9'.*'b0' or 'b1'"):
        EfficientNetModel(efficientnet_variant="b9")
    with pytest.raises(ConfigError, match="raw"):
        EfficientNetModel(audio_config=AudioConfig(representation="raw"))
    model = EfficientNetModel()
    features = model.forward_features(torch.zeros(1, 8_000))
    with pytest.raises(ValueError, match="num_classes"):
        model.forward_head(features)


def test_the_family_by_name():
    model = avex.load_model("efficientnet", num_classes=50, device="cpu", efficientnet_variant="b1")
    assert model.classifier.out_features == 50
    assert model.efficientnet_variant == "b1"
    assert not model.training
    built = avex.build_model("efficientnet", device="cpu", num_classes=2)
    assert built(torch.zeros(1, 8_000)).shape == (1, 2)


def test_checkpoints_round_trip(model, clips, tmp_path):
    with torch.no_grad():
        expected = model(clips)
        for layout in ("avex", "esp", "torchvision"):
            save_file(export_state(model.state_dict(), layout), tmp_path / f"{layout}.safetensors")
            loaded = avex.load_model(
                "efficientnet",
                checkpoint_path=tmp_path / f"{layout}.safetensors",
                device="cpu",
                audio_config=AUDIO,
            )
            assert torch.equal(loaded(clips), expected), layout
            assert not loaded.load_report.ignored


def test_checkpoints_that_do_not_fit(model, tmp_path):
    path = tmp_path / "b0.safetensors"
    save_file(export_state(model.state_dict()), path)
    card = ModelSpec(name="efficientnet", pretrained=False, device="cpu", efficientnet_variant="b1")
    with pytest.raises(WeightsError, match=r"b0\.safetensors.*does not fit"):
        avex.load_model(card, checkpoint_path=path)
    state = export_state(model.state_dict())
    state["model.features.3.0.block.1.0.weight"] = torch.zeros(144, 1, 3, 3)
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"features\.3\.0\.block\.1\.0\.weight"):
        avex.load_model("efficientnet", checkpoint_path=path, device="cpu")
    del state["model.features.3.0.block.1.0.weight"]
    save_file(state, path)
    with pytest.raises(WeightsError, match="lacks 1"):
        avex.load_model("efficientnet", checkpoint_path=path, device="cpu")
    with pytest.raises(KeyError, match="'torchvison'.*Did you mean 'torchvision'"):
        export_state(state, "torchvison")


def test_a_misshapen_classifier_is_named(model, tmp_path):
    state = export_state(model.state_dict(), "torchvision")
    state["classifier.1.weight"] = torch.tensor(1.0)
    save_file(state, tmp_path / "b0.safetensors")
    with pytest.raises(WeightsError, match=r"'classifier\.weight' is \(\), expected \("):
        avex.load_model("efficientnet", checkpoint_path=tmp_path / "b0.safetensors", device="cpu")


def test_layouts_are_told_apart(model):
    for layout in ("avex", "esp", "torchvision"):
        keys = set(export_state(model.state_dict(), layout))
        assert [adapter.name for adapter in ADAPTERS if adapter.matches(keys)] == [layout]


def test_plain_path_where_folding_is_switched_off(model, clips, monkeypatch):
    with torch.no_grad():
        folded = model(clips)
        monkeypatch.setattr(convolution, "fold", lambda conv, norm, x: None)
        torch.testing.assert_close(model(clips), folded, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["b0", "b1"])
def test_imagenet_cards(name):
    card = avex.models.utils.registry.resolve(f"efficientnet_{name}_imagenet")
    assert card.model_spec.efficientnet_variant == name
    assert card.checkpoint_path.startswith("https://download.pytorch.org/models/")
    assert not card.has_trained_classifier
    assert card.license
    assert card.citation
