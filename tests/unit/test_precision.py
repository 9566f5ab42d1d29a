"""Lower precision at inference: what is converted, what is not, and that embeddings stay what they were."""

from __future__ import annotations

import copy
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from avex._core.errors import ConfigError
from avex.configs import AudioConfig
from avex.embedding.engines import EngineOptions
from avex.embedding.engines.torch_engine import TorchEngine
from avex.frontends.base import FrontEnd
from avex.models.atst_frame.model import AtstFrame
from avex.models.base_model import ModelBase
from avex.models.beats.model import Beats
from avex.models.birdmae.model import BirdMae
from avex.models.birdnet.config import BirdNetConfig, SpectrogramConfig, StageConfig
from avex.models.birdnet.model import BirdNet
from avex.models.clip.model import Clip
from avex.models.eat.model import Eat
from avex.models.efficientnet.model import EfficientNetModel
from avex.models.features import Features
from avex.models.hubert.model import Hubert
from avex.models.precision import (
    PRECISIONS,
    canonical_precision,
    fast_precision,
    is_graph,
    resolve_precision,
    set_precision,
)
from avex.models.resnet.model import ResNet18
from avex.nn.convolution import FoldableConv2d
from avex.weights.fingerprint import weights_identity

_SPEC = importlib.util.spec_from_file_location(
    "synthetic_weights", Path(__file__).parents[1] / "golden" / "synthetic_weights.py"
)
recipe = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(recipe)

CPU = torch.device("cpu")
PICTURES = AudioConfig(n_fft=800, hop_length=160)
VIT = {"embed_dim": 64, "depth": 2, "num_heads": 2}
BEATS = {
    "encoder_layers": 2,
    "encoder_embed_dim": 64,
    "encoder_ffn_embed_dim": 128,
    "encoder_attention_heads": 4,
    "embed_dim": 32,
}
HUBERT = {
    "encoder_num_layers": 2,
    "encoder_embed_dim": 64,
    "encoder_num_heads": 4,
    "encoder_ff_interm_features": 128,
    "encoder_pos_conv_kernel": 16,
    "encoder_pos_conv_groups": 4,
}
BIRDNET = BirdNetConfig(
    window_samples=8192,
    num_mels=32,
    spectrograms=(SpectrogramConfig(512, 64, 0, 3000), SpectrogramConfig(256, 66, 500, 15000)),
    stem_channels=8,
    stages=(StageConfig(16, 8, 2, None), StageConfig(32, 16, 2, 4)),
    embedding_dim=32,
    num_classes=5,
)


class Own(ModelBase):
    """A user's class: only a constructor and `forward`."""

    name = "own"

    def __init__(self, device="cpu", num_classes=3, **kwargs):
        super().__init__(device=device, **kwargs)
        self.net = nn.Sequential(nn.Conv1d(1, 8, 64, 32), nn.BatchNorm1d(8), nn.GELU(), nn.Conv1d(8, 16, 3))
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, x, padding_mask=None):
        y = self.net(x.unsqueeze(1)).transpose(1, 2)
        y = self.attention(y, y, y, need_weights=False)[0]
        return self.classifier(y.mean(1))


FAMILIES = {
    "beats": lambda: Beats(init_config=BEATS, num_classes=3),
    "eat": lambda: Eat(eat_cfg={**VIT, "target_length": 128, "max_length": 16}, num_classes=3),
    "birdmae": lambda: BirdMae(config=VIT, num_classes=3),
    "atst": lambda: AtstFrame(config=VIT, num_classes=3),
    "hubert": lambda: Hubert(init_config=HUBERT, num_classes=3),
    "efficientnet": lambda: EfficientNetModel(audio_config=PICTURES, num_classes=3),
    "resnet": lambda: ResNet18(audio_config=PICTURES, num_classes=3),
    "clip": lambda: Clip(audio_config=PICTURES, return_features_only=True),
    "birdnet": lambda: BirdNet(backend="native", config=BIRDNET),
    "own": Own,
}
TRANSFORMERS = ("beats", "eat", "birdmae", "atst", "hubert", "own", "birdnet")
# Random weights in these enlarge rounding far more than trained ones.
LOOSER = {"efficientnet": 0.99, "resnet": 0.99, "clip": 0.99}


def build(name: str) -> ModelBase:
    """A tiny model with weights of the recipe, so that no value is special."""
    model = FAMILIES[name]().eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.startswith("frontend") and tensor.is_floating_point() and tensor.ndim:
                tensor.copy_(torch.from_numpy(np.asarray(recipe.fill(key, tensor.shape))))
    return model


def wave(model: ModelBase, clips: int = 2) -> torch.Tensor:
    samples = BIRDNET.window_samples if isinstance(model, BirdNet) else model.sample_rate
    seconds = samples / model.sample_rate
    signals = [recipe.waveform(f"precision_{i}", seconds, model.sample_rate) for i in range(clips)]
    return torch.from_numpy(np.stack(signals))


def low_weights(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("fp32", "fp32"),
        ("float32", "fp32"),
        ("bf16", "bf16"),
        ("bfloat16", "bf16"),
        ("fp16", "fp16"),
        ("float16", "fp16"),
        ("auto", "auto"),
    ],
)
def test_names(name, short):
    assert canonical_precision(name) == short
    assert short in PRECISIONS


@pytest.mark.parametrize("name", ["int8", "half", "FP32", "", None])
def test_unknown_names_are_refused_with_the_choices(name):
    with pytest.raises(ConfigError, match=r"fp32, bf16, fp16, auto"):
        canonical_precision(name)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="Did you mean 'bf16'"):
        canonical_precision("bf61")


def test_auto_follows_the_device(monkeypatch):
    import avex.models.precision as module

    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(module, "_cpu_computes_bfloat16", lambda has=has: has)
        assert resolve_precision("auto", CPU) == expected
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, has=has: has)
        assert resolve_precision("auto", torch.device("cuda")) == ("bf16" if has else "fp16")
    assert fast_precision(torch.device("mps")) == "fp32"
    assert resolve_precision("bfloat16", torch.device("mps")) == "bf16"


def test_auto_keeps_float32_where_embeddings_would_change(monkeypatch):
    import avex.models.precision as module

    monkeypatch.setattr(module, "fast_precision", lambda device: "bf16")
    b1 = EfficientNetModel(audio_config=PICTURES, efficientnet_variant="b1")
    expected = {"resnet": "fp32", "efficientnet": "bf16", "beats": "bf16", "own": "bf16", "clip": "bf16"}
    for name, precision in expected.items():
        assert resolve_precision("auto", CPU, FAMILIES[name]()) == precision, name
    assert resolve_precision("auto", CPU, b1) == "fp32"
    assert resolve_precision("auto", CPU, nn.Linear(2, 2)) == "fp32"
    assert resolve_precision("bf16", CPU, b1) == "bf16"


# -- converting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_embeddings_stay_and_are_float32(name):
    model = build(name)
    x = wave(model)
    full, identity = model.embed(x), weights_identity(copy.deepcopy(model))
    assert model.precision == "fp32"
    assert set_precision(model, "bfloat16") == "bf16"
    assert model.precision == "bf16"
    half = model.embed(x)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full), "nothing was computed in bfloat16"
    assert torch.cosine_similarity(half, full).min() > LOOSER.get(name, 0.999)
    assert weights_identity(model) == identity
    features = model.forward_features(x)
    assert features.values.dtype == model(x).dtype == torch.float32
    if name != "clip":
        embedding, logits = model.embed_and_classify(x)
        assert embedding.dtype == logits.dtype == torch.float32
        torch.testing.assert_close(embedding, half, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_stored_in_bfloat16(name):
    model = build(name)
    set_precision(model, "bf16")
    low = low_weights(model)
    for prefix, module in model.named_modules():
        own = {f"{prefix}.{key}" for key, _ in module.named_parameters(recurse=False)}
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, FoldableConv2d)):
            assert not own & low, prefix
        elif isinstance(module, FrontEnd):
            assert not {f"{prefix}.{key}" for key, _ in module.named_parameters()} & low
    if name in TRANSFORMERS:
        assert "classifier.weight" in low
        inside = [m for key, m in model.named_modules() if type(m).__mro__[1:] and isinstance(m, nn.Linear)]
        converted = [m for m in inside if m.weight.dtype == torch.bfloat16]
        assert len(converted) >= len(inside) - 1  # all but the output layer of torch's own attention


@torch.no_grad()
def test_convolutions_with_batch_norm_are_folded_into_bfloat16_once():
    model = build("efficientnet")
    set_precision(model, "bf16")
    model(wave(model))
    convolutions = [m for m in model.modules() if isinstance(m, FoldableConv2d) and m._cache is not None]
    kinds = [m._cache.folded.weight.dtype for m in convolutions]
    assert kinds[0] == torch.float32, "the convolution that reads the picture"
    assert len(kinds) > 40
    assert set(kinds[1:]) == {torch.bfloat16}
    before = [m._cache.folded.weight.data_ptr() for m in convolutions]
    model(wave(model))
    assert [m._cache.folded.weight.data_ptr() for m in convolutions] == before


def test_what_must_stay_exact_in_hubert():
    model = build("hubert")
    set_precision(model, "bf16")
    first, second, *_ = model.backbone.feature_extractor.conv_layers
    assert first.conv.weight.dtype == torch.float32
    assert second.conv.weight.dtype == torch.bfloat16


def test_twice_is_once():
    model = build("eat")
    assert set_precision(model, "bf16") == "bf16"
    pointers = [p.data_ptr() for p in model.parameters()]
    assert set_precision(model, "bfloat16") == "bf16"
    assert set_precision(model, "auto") == "bf16"
    assert [p.data_ptr() for p in model.parameters()] == pointers


def test_there_is_no_way_back():
    model = build("eat")
    set_precision(model, "bf16")
    for name in ("fp32", "float16"):
        with pytest.raises(ConfigError, match="Load it again"):
            set_precision(model, name)


def test_float32_changes_nothing():
    model = build("beats")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert set_precision(model, "float32") == "fp32"
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert set_precision(nn.Linear(2, 2), "fp32") == "fp32"
    assert set_precision(nn.Linear(2, 2), "auto") == "fp32"


def test_what_cannot_be_converted():
    with pytest.raises(ConfigError, match="ModelBase"):
        set_precision(nn.Linear(2, 2), "bf16")
    with pytest.raises(ConfigError, match="precision='bf16'"):
        set_precision(build("eat"), "fp16")

    class Graph(Own):
        reads_graph_file = True

    graph = Graph()
    assert is_graph(graph)
    assert set_precision(graph, "auto") == "fp32"
    with pytest.raises(ConfigError, match="is a graph"):
        set_precision(graph, "bf16")


@torch.no_grad()
def test_copies_and_pickles_keep_the_precision():
    model = build("eat")
    set_precision(model, "bf16")
    x = wave(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.precision == "bf16"
        assert torch.equal(other.embed(x), model.embed(x))


@torch.no_grad()
def test_autocast_does_not_reach_beyond_the_call():
    model = build("own")
    set_precision(model, "bf16")
    model(wave(model))
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(ValueError, match="None"):
        model.process_audio(None)
    with pytest.raises(RuntimeError):
        model(torch.zeros(2, 3))
    assert not torch.is_autocast_enabled("cpu")


@torch.no_grad()
@pytest.mark.parametrize("name", ["beats", "efficientnet", "hubert"])
def test_layers_are_float32_too(name):
    model = build(name)
    x = wave(model)
    full = model.embed(x, ["layer_1", "last_layer"])
    set_precision(model, "bf16")
    half = model.embed(x, ["layer_1", "last_layer"])
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, full).min() > LOOSER.get(name, 0.999)


@torch.no_grad()
def test_further_ways_through_a_network():
    beats = Beats(init_config={**BEATS, "predictor_class": 4}, fine_tuned=True).eval()
    full = beats.forward_predictor(beats.forward_features(wave(beats)))
    set_precision(beats, "bf16")
    half = beats.forward_predictor(beats.forward_features(wave(beats)))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
    birdmae = build("birdmae")
    set_precision(birdmae, "bf16")
    assert isinstance(tokens := birdmae.forward_tokens(wave(birdmae)), Features)
    assert tokens.values.dtype == torch.float32


# -- engines -----------------------------------------------------------------------------------------------


@pytest.fixture
def engine_of(monkeypatch):
    """An engine around a tiny model, by way of a card that cannot be loaded from a file."""
    from avex.configs import ModelCard, ModelSpec

    def make(model: ModelBase, **options) -> TorchEngine:
        import avex.embedding.engines.torch_engine as module

        monkeypatch.setattr(module, "load_card", lambda card, request: model)
        card = ModelCard(name="tiny", model_spec=ModelSpec(name="own", device="cpu"))
        return TorchEngine(card, EngineOptions(**options))

    return make


def test_engine_header(engine_of):
    model = build("beats")
    identity = weights_identity(copy.deepcopy(model))
    engine = engine_of(model, precision="bf16")
    assert engine.info.precision == "bfloat16"
    assert engine.info.weights_sha256 == identity
    output = engine.session().run(wave(model).numpy(), np.full(2, model.sample_rate))
    assert output.embedding.dtype == np.float32
    assert engine_of(build("beats")).info.precision == "float32"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "name", ["beats", "eat masked", "hubert masked", "hubert", "birdmae", "atst", "resnet", "own"]
)
def test_embeddings_do_not_depend_on_padding_of_neighbours(engine_of, name, precision):
    model = build(name.split()[0])
    if name == "eat masked":
        config = {**VIT, "target_length": 128, "max_length": 16}
        model = Eat(eat_cfg=config, mask_padding=True, return_features_only=True).eval()
    elif name == "hubert masked":
        model = Hubert(init_config=HUBERT, handle_padding=True, return_features_only=True).eval()
    engine = engine_of(model, precision=precision)
    windows = wave(model, 4).numpy()
    samples = windows.shape[1]
    windows[1, samples // 2 :] = 0
    windows[3, samples // 3 :] = 0
    valid = np.array([samples, samples // 2, samples, samples // 3])
    together = engine.run(windows, valid).embedding
    without = engine.run(windows[[0, 2]], valid[[0, 2]]).embedding
    padded = engine.run(windows[[1, 3]], valid[[1, 3]]).embedding
    tolerance = 1e-5 if precision == "fp32" else 1e-3  # products of other sizes round differently
    np.testing.assert_allclose(together[[0, 2]], without, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(together[[1, 3]], padded, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eat", "own"])
def test_compiled_is_the_same(engine_of, name):
    model = build(name)
    windows, valid = wave(model, 3).numpy(), np.full(3, model.sample_rate)
    plain = engine_of(model, batch_size=4).run(windows, valid).embedding
    compiled = engine_of(build(name), batch_size=4, compile=True)
    assert compiled.info.runtime.endswith("compiled")
    output = compiled.run(windows, valid).embedding
    assert output.shape == plain.shape
    scale = np.abs(plain).max()
    np.testing.assert_allclose(output, plain, rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_array_equal(compiled.run(windows, valid).embedding, output)


def test_compiling_needs_a_compiler(engine_of, monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def nothing():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", nothing)
    with pytest.raises(ConfigError, match=r"g\+\+"):
        engine_of(build("eat"), compile=True)


def test_compiling_shows_the_models_own_output_only(engine_of):
    with pytest.raises(ConfigError, match="own output"):
        engine_of(build("eat"), compile=True, layers=("layer_1",))
