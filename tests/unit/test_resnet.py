"""ResNet beyond its reference values: variants, batches, lengths, training, checkpoints that do not fit."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import avex
from avex._core.errors import ConfigError, WeightsError
from avex.configs import AudioConfig, ModelSpec
from avex.models.layers import tap_layers
from avex.models.resnet.checkpoint import ADAPTERS, export_state
from avex.models.resnet.config import ResNetConfig
from avex.models.resnet.model import ResNet18
from avex.models.resnet.network import ResNet

AUDIO = AudioConfig(n_fft=800, hop_length=160, win_length=800)


def trained(network, x):
    """A network whose batch norms have seen something."""
    with torch.no_grad():
        for _ in range(3):
            network.train()(x)
    return network.eval()


@pytest.fixture(scope="module", params=[False, True], ids=["basic", "bottleneck"])
def tiny(request):
    torch.manual_seed(0)
    network = ResNet(ResNetConfig((1, 2, 1), bottleneck=request.param, width=4))
    return trained(network, torch.rand(4, 1, 32, 40))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ResNet18(audio_config=AUDIO, num_classes=3)
    trained(model.backbone, model.frontend(torch.randn(4, 8_000) * 0.1)[0])
    return model.eval()


@pytest.fixture
def clips():
    return torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0)) * 0.1


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 4), height=st.integers(1, 40), width=st.integers(1, 70))
def test_inference_is_what_the_modules_give(tiny, batch, height, width):
    x = torch.rand(batch, 1, height, width)
    expected = tiny(x).detach()
    assert expected.shape[0] == batch
    assert expected.shape[2:] == (-(-height // 16), -(-width // 16))
    with torch.inference_mode():
        torch.testing.assert_close(tiny(x), expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(tiny(x.repeat(1, 3, 1, 1)), expected, rtol=1e-3, atol=1e-4)


def test_every_part_can_be_listened_to(tiny):
    x = torch.rand(2, 1, 32, 32)
    names = [name for name, _ in tiny.named_modules() if name]
    with torch.no_grad(), tap_layers(tiny, names) as taps:
        output = tiny(x)
    assert set(taps) == set(names)
    assert torch.equal(taps["layer3"], output)
    assert (taps["bn1"] < 0).any(), "what a batch norm put out, not what became of it"


def test_gradient_checkpointing(tiny):
    plain, frugal = copy.deepcopy(tiny).train(), copy.deepcopy(tiny).train()
    frugal.enable_gradient_checkpointing()
    x = torch.rand(4, 1, 32, 32)
    for network in (plain, frugal):
        network(x).square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), frugal.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b[1].grad, msg=name)
    for a, b in zip(plain.buffers(), frugal.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "variant", "dim", "tensors"),
    [
        ("resnet", None, 512, 122),
        ("resnet18", None, 512, 122),
        ("resnet", "resnet50", 2048, 320),
        ("resnet50", None, 2048, 320),
    ],
)
def test_names_and_variants(name, variant, dim, tensors):
    options = {} if variant is None else {"variant": variant}
    model = avex.load_model(name, num_classes=10, device="cpu", **options)
    assert model.get_embedding_dim() == dim
    assert len(model.state_dict()) == tensors
    assert model(torch.zeros(1, 8_000)).shape == (1, 10)
    assert model.embed(torch.zeros(2, 8_000)).shape == (2, dim)
    assert len(model.get_model_layers()) == 1 + sum(ResNetConfig.named(model.variant).blocks)


def test_resnet152_is_one():
    spec = ModelSpec(name="resnet152", pretrained=False, device="cpu")
    model = avex.build_model_from_spec(spec, "cpu", return_features_only=True)
    assert model.variant == "resnet152"
    assert len(model.backbone.layer3) == 36


@torch.no_grad()
def test_shapes_and_layers(model, clips):
    assert model.forward_features(torch.zeros(1, 80_000)).values.shape == (1, 512, 4, 16)
    assert model.frame_rate == pytest.approx(100 / 32)
    layers = model.get_model_layers()
    assert (layers[0], layers[1], layers[-1]) == (
        "backbone.maxpool",
        "backbone.layer1.0",
        "backbone.layer4.1",
    )
    torch.testing.assert_close(model.embed(clips, [layers[-1]]), model.embed(clips), rtol=1e-4, atol=1e-5)
    assert model.embed(clips, ["layer_0", "layer_8"]).shape == (3, 64 + 512)


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
    with pytest.raises(ValueError, match="at least 401"):
        model(torch.zeros(1, 400))


def test_training(model, clips):
    model = copy.deepcopy(model).train()
    torch.nn.functional.cross_entropy(model(clips.requires_grad_()), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert clips.grad.abs().sum() > 0


def test_wrong_options():
    with pytest.raises(ConfigError, match="'resnet51'.*resnet50"):
        avex.load_model("resnet", variant="resnet51", device="cpu")
    with pytest.raises(ConfigError, match=r"'resnet50' cannot be of variant 'resnet18'"):
        avex.load_model("resnet50", variant="resnet18", device="cpu")
    with pytest.raises(ConfigError, match="raw"):
        ResNet18(audio_config=AudioConfig(representation="raw"))


def test_checkpoints(model, clips, tmp_path):
    options = {"device": "cpu", "audio_config": AUDIO}
    with torch.no_grad():
        for layout in ("avex", "torchvision"):
            path = tmp_path / f"{layout}.safetensors"
            save_file(export_state(model.state_dict(), layout), path)
            loaded = avex.load_model("resnet18", checkpoint_path=path, **options)
            assert torch.equal(loaded(clips), model(clips)), "its own classifier comes along"
            keys = set(export_state(model.state_dict(), layout))
            assert [adapter.name for adapter in ADAPTERS if adapter.matches(keys)] == [layout]
    with pytest.raises(WeightsError, match="does not fit 'ResNet50'"):
        avex.load_model("resnet50", checkpoint_path=tmp_path / "avex.safetensors", **options)
    with pytest.raises(KeyError, match="'torchvison'"):
        export_state(model.state_dict(), "torchvison")


def test_a_given_file_may_have_another_layout_than_the_cards(model, clips, tmp_path):
    """`checkpoint_format` of a card speaks of the card's own file."""
    path = tmp_path / "trained.safetensors"
    save_file(export_state(model.state_dict(), "avex"), path)
    loaded = avex.load_model("resnet18_imagenet", checkpoint_path=path, device="cpu")
    assert loaded.load_report.layout == "avex"
    with torch.no_grad():
        assert torch.equal(loaded(clips), model(clips))
    with pytest.raises(WeightsError, match="trained.safetensors.*'torchvision'.*fit no rule"):
        avex.load_model("resnet18_imagenet", checkpoint_path=path, checkpoint_format="torchvision")


def test_a_tensor_that_nobody_knows_is_named_with_its_file(model, tmp_path):
    path = tmp_path / "more.safetensors"
    save_file({**export_state(model.state_dict(), "avex"), "extra.weight": torch.zeros(2)}, path)
    with pytest.raises(
        WeightsError, match="more.safetensors' does not fit 'resnet18'.*1 of the .*'extra.weight'"
    ):
        avex.load_model("resnet18", checkpoint_path=path)


@pytest.mark.parametrize("size", [18, 50, 152])
def test_imagenet_cards(size):
    card = avex.models.utils.registry.resolve(f"resnet{size}_imagenet")
    assert card.model_spec.name == f"resnet{size}"
    assert card.checkpoint_path.startswith(f"https://download.pytorch.org/models/resnet{size}-")
    assert card.license
    assert card.citation
