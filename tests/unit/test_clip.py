"""CLIP beyond its reference values: text, tokens, features mode, training, RoBERTa weights to start from."""

import copy
import json
import math

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import avex
from avex._core.errors import ConfigError, MissingExtraError, WeightsError
from avex._core.optional import available
from avex.configs import AudioConfig
from avex.models.clip import config as clip_config
from avex.models.clip.checkpoint import export_state
from avex.models.clip.config import RobertaConfig
from avex.models.clip.model import Clip
from avex.models.clip.text import TextEncoder, tokens_of

AUDIO = AudioConfig(n_fft=800, hop_length=160, win_length=800)
SMALL = RobertaConfig(dim=16, depth=2, num_heads=4, hidden_dim=32, vocabulary_size=50, num_positions=20)
IDS = torch.tensor([[0, 7, 9, 11, 2], [0, 8, 2, 1, 1]])


@pytest.fixture(autouse=True)
def _small_text_tower(monkeypatch):
    monkeypatch.setitem(clip_config.TEXT_MODELS, "roberta-base", SMALL)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Clip(audio_config=AUDIO, projection_dim=12)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.backbone.train()(model.frontend(noise(4))[0])
    return model.eval()


def noise(count):
    return torch.randn(count, 8_000, generator=torch.Generator().manual_seed(0)) * 0.1


@torch.no_grad()
def test_sounds_and_texts(model):
    audio, text, scale = model(noise(3), IDS)
    assert audio.shape == (3, 12)
    assert text.shape == (2, 12)
    assert scale.item() == pytest.approx(1 / 0.07)
    torch.testing.assert_close(audio.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2))
    assert torch.equal(model(noise(3)), audio)
    assert torch.equal(model.embed(noise(3)), audio)
    assert model.embedding_dim == 12
    assert model.get_model_layers()[-1] == "audio_projection"
    pooled = model.embed(noise(3), ["backbone.features.8"])
    torch.testing.assert_close(
        nn.functional.normalize(model.audio_projection(pooled)), audio, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_filling_does_not_matter(model):
    alone = model.encode_text(IDS[1:, :3])
    torch.testing.assert_close(model.encode_text(IDS)[1:], alone)
    more = {"input_ids": nn.functional.pad(IDS, (0, 3), value=1)}
    torch.testing.assert_close(model.encode_text(more)[1:], alone)


def test_text_that_is_too_long(model):
    with pytest.raises(ValueError, match="at most 18"):
        model.encode_text(torch.full((1, 19), 5))


def test_strings_need_the_extra():
    if available("transformers"):
        pytest.skip("transformers is installed")
    with pytest.raises(MissingExtraError, match=r"avex\[text\]"):
        tokens_of("a wren", "roberta-base", RobertaConfig())
    with pytest.raises(ValueError, match="no text"):
        tokens_of([], "roberta-base", RobertaConfig())


@torch.no_grad()
def test_features_mode_is_the_audio_tower(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "clip.safetensors")
    options = {"device": "cpu", "audio_config": AUDIO, "projection_dim": 12}
    options["checkpoint_path"] = tmp_path / "clip.safetensors"
    whole = avex.load_model("clip", **options)
    half = avex.load_model("clip", return_features_only=True, **options)
    x = noise(2)
    assert torch.equal(whole.encode_text(IDS), model.encode_text(IDS))
    assert torch.equal(half(x), model(x))
    assert not any(name.startswith("text") for name, _ in half.named_parameters())
    with pytest.raises(ValueError, match="without its text tower"):
        half(x, IDS)


@torch.no_grad()
def test_the_published_layout(model, tmp_path):
    state = export_state(model.state_dict(), "esp")
    assert "audio_encoder.model.features.0.0.weight" in state
    state |= {
        "audio_encoder.model.classifier.1.weight": torch.zeros(1000, 4),
        "text_encoder.pooler.dense.bias": torch.zeros(16),
        "text_encoder.embeddings.position_ids": torch.arange(20)[None],
    }
    save_file(state, tmp_path / "clip.safetensors")
    loaded = avex.load_model(
        "clip", checkpoint_path=tmp_path / "clip.safetensors", audio_config=AUDIO, projection_dim=12
    )
    assert len(loaded.load_report.ignored) == 3
    assert torch.equal(loaded.encode_text(IDS), model.encode_text(IDS))
    with pytest.raises(WeightsError, match="audio_projection"):
        avex.load_model("clip", checkpoint_path=tmp_path / "clip.safetensors", projection_dim=13)


def test_training(model):
    model.train()
    audio, text, scale = model(noise(2), IDS)
    nn.functional.cross_entropy(scale * audio @ text.T, torch.arange(2)).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing
    assert model.logit_scale.grad.abs() > 0


def test_the_scale_is_at_most_100_and_can_come_down_again(model):
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert model.scale().item() == pytest.approx(100)
    assert model.logit_scale.item() == 9.0, "evaluation changes nothing"
    model.train().scale().backward()
    assert model.logit_scale.item() == pytest.approx(math.log(100))
    assert model.logit_scale.grad > 0


def test_gradient_checkpointing(model):
    frugal = copy.deepcopy(model)
    frugal.enable_gradient_checkpointing()
    for network in (model, frugal):
        audio, text, scale = network(noise(2), IDS)
        (scale * audio @ text.T).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


@pytest.mark.parametrize("prefix", ["roberta.", ""])
def test_roberta_weights_to_start_from(model, tmp_path, prefix):
    torch.manual_seed(5)
    tower = TextEncoder(SMALL)
    state = {prefix + key: value for key, value in tower.state_dict().items()}
    state |= {prefix + "pooler.dense.bias": torch.zeros(16), "lm_head.bias": torch.zeros(50)}
    save_file(state, tmp_path / "model.safetensors")
    report = model.load_text_weights(tmp_path / "model.safetensors")
    assert len(report.loaded) == len(tower.state_dict())
    with torch.no_grad():
        assert torch.equal(model.text_encoder(IDS), tower.eval()(IDS))


def test_wrong_options(model):
    with pytest.raises(ConfigError, match="'roberta-bas'.*'roberta-base'"):
        Clip(text_model_name="roberta-bas")
    with pytest.raises(KeyError, match="'eps'"):
        export_state(model.state_dict(), "eps")
    card = avex.models.utils.registry.resolve("clip_effnetb0_roberta")
    assert card.checkpoint_path is None
    assert "no weights are published" in card.description


@torch.no_grad()
def test_text_tower_is_that_of_transformers():
    reason = "the text tower's author's code is not here: pip install 'avex[text]'"
    transformers = pytest.importorskip("transformers", reason=reason)
    config = transformers.RobertaConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=20, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.RobertaModel(config, add_pooling_layer=False).eval()
    ours = TextEncoder(SMALL).eval()
    ours.load_state_dict(theirs.state_dict())
    mask = (IDS != 1).long()
    expected = theirs(input_ids=IDS, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours(IDS, mask), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_strings_become_tokens(model, tmp_path):
    pytest.importorskip("transformers", reason="text needs the extra: pip install 'avex[text]'")
    folder = tmp_path / "roberta-base"
    folder.mkdir()
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6, "ab": 7}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    tokens = tokens_of(["ab", "b" * 99], str(folder), RobertaConfig())
    assert tokens["input_ids"].shape == (2, 70)
    assert tokens["input_ids"][0, :4].tolist() == [0, 7, 2, 1]
    assert tokens["attention_mask"][0].sum() == 3
    model.text_model_name = str(folder)
    assert model.encode_text("ab").shape == (1, 12)
    assert model.encode_text(["ab", "ba"]).shape == (2, 12)


@torch.no_grad()
def test_texts_as_bytes_need_nothing_installed():
    torch.manual_seed(0)
    model = Clip(audio_config=AUDIO, text_model_name="bytes-small", projection_dim=12).eval()
    tokens = tokens_of(["wren", "Grünspecht", ""], "bytes-small", model.text_encoder.config)
    ids = tokens["input_ids"]
    assert ids.shape == (3, 13)  # eleven bytes, for ten letters, between start and end
    assert ids[0].tolist() == [0, *(byte + 4 for byte in b"wren"), 2, *[1] * 7]
    assert bytes((ids[1][tokens["attention_mask"][1]][1:-1] - 4).tolist()).decode() == "Grünspecht"
    assert tokens["attention_mask"].sum(1).tolist() == [6, 13, 2]
    vectors = model.encode_text(["wren", "Grünspecht", "x" * 1000])
    torch.testing.assert_close(vectors[:1], model.encode_text("wren"))
    assert not torch.allclose(vectors[0], vectors[1], atol=1e-4)
