"""BEATs with a tiny network: attention, padding, training, checkpoints, errors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import avex
from avex._core.errors import ConfigError, UnknownNameError, WeightsError
from avex.models.beats import relative_position
from avex.models.beats.checkpoint import ADAPTERS, export_state
from avex.models.beats.config import BeatsConfig
from avex.models.beats.model import Beats
from avex.models.beats.relative_position import RelativePositionTable, biased_attention, relative_buckets

SIZES = {
    "embed_dim": 16,
    "encoder_layers": 2,
    "encoder_embed_dim": 24,
    "encoder_ffn_embed_dim": 32,
    "encoder_attention_heads": 3,
    "conv_pos": 8,
    "conv_pos_groups": 4,
    "num_buckets": 16,
    "max_distance": 20,
}
FREE_OF_CHANCE = {"dropout": 0.0, "attention_dropout": 0.0, "encoder_layerdrop": 0.0}


def tiny(seed=0, num_classes=5, options=(), **changes):
    torch.manual_seed(seed)
    return Beats(num_classes=num_classes, init_config={**SIZES, **changes}, **dict(options)).eval()


def waveforms(*seconds, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(len(seconds), round(max(seconds) * 16000))
    mask = torch.ones(x.shape, dtype=torch.bool)
    for i, length in enumerate(round(s * 16000) for s in seconds):
        x[i, :length] = 0.1 * torch.randn(length, generator=generator)
        mask[i, :length] = False
    return x, mask


# -- attention ---------------------------------------------------------------------------------------------


@st.composite
def attention_problems(draw):
    batch, heads = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    tokens = draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    query, key, value = torch.randn(3, batch, heads, tokens, 4, generator=generator)
    rows = torch.randn(heads, 2 * tokens - 1, generator=generator)
    gate = torch.rand(batch, heads, tokens, generator=generator) if draw(st.booleans()) else None
    padding = None
    if draw(st.booleans()):
        padding = torch.rand(batch, tokens, generator=generator) < 0.4
        padding[:, draw(st.integers(0, tokens - 1))] = False
    return query, key, value, rows, gate, padding


def written_out(query, key, value, rows, gate, padding):
    """The same attention with the bias of every pair in memory."""
    tokens = query.shape[2]
    places = torch.arange(tokens)
    bias = rows[:, tokens - 1 - (places[None, :] - places[:, None])]
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    scores = scores + bias * (1.0 if gate is None else gate.unsqueeze(-1))
    if padding is not None:
        scores = scores.masked_fill(padding[:, None, None, :], -math.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(attention_problems(), st.sampled_from([1, 50, 200, 500, 2000, 10**6]))
def test_attention_is_the_same_however_it_is_cut(problem, scratch):
    wanted = written_out(*problem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative_position, "_SCRATCH_PER_CORE", scratch)
        torch.testing.assert_close(biased_attention(*problem), wanted, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(attention_problems())
def test_attention_has_the_right_gradients(problem):
    tensors = [x.clone().requires_grad_() for x in problem[:5] if x is not None]
    gate = tensors[4] if problem[4] is not None else None
    weights = torch.randn(problem[0].transpose(1, 2).shape)
    got, wanted = (
        torch.autograd.grad((f(*tensors[:4], gate, problem[5]) * weights).sum(), tensors)
        for f in (biased_attention, written_out)
    )
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_bias_by_distance():
    table = RelativePositionTable(16, 20, num_heads=2)
    for tokens in (3, 700, 5):
        distances = torch.arange(tokens - 1, -tokens, -1)
        wanted = table.weight[relative_buckets(distances, 16, 20)].T
        assert torch.equal(table(tokens), wanted)
    assert list(table.state_dict()) == ["weight"]


# -- what comes out ----------------------------------------------------------------------------------------


def test_shapes_and_rates():
    model = tiny()
    x, _ = waveforms(1.0, 1.0)
    assert model(x).shape == (2, 5)
    features = model.forward_features(x)
    assert features.values.shape == (2, 48, 24)
    assert features.sequence().shape == (2, 6, 8 * 24)
    assert model.frame_rate == 6.25
    assert model.embed(x, layers=["all"]).shape == (2, 3 * 24)
    assert model.embedding_dim == 24
    assert torch.equal(model.embed(x, layers=[-1]), features.pooled())
    faster = tiny(options={"audio_config": {"sample_rate": 32000, "representation": "raw"}})
    assert faster.frame_rate == 12.5


def test_neighbours_do_not_matter():
    model = tiny()
    x, mask = waveforms(2.0, 0.9, 1.3)
    with torch.no_grad():
        together = model.forward_features(x, mask)
        for i in range(3):
            alone = model.forward_features(x[i : i + 1], mask[i : i + 1])
            torch.testing.assert_close(together.values[i], alone.values[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.pooled()[i], alone.pooled()[0], rtol=1e-4, atol=1e-5)


def test_an_empty_mask_changes_nothing():
    model = tiny()
    x, _ = waveforms(1.0)
    with torch.no_grad():
        torch.testing.assert_close(model(x, torch.zeros_like(x, dtype=torch.bool)), model(x))


def test_silence_and_padding_throughout_are_finite():
    model = tiny()
    x = torch.zeros(2, 16000)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[1] = True
    for gradients in (True, False):  # attention has a path of its own for each
        with torch.set_grad_enabled(gradients):
            assert model(x).isfinite().all()
            assert model(x, mask).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("change", [{}, {"relative_position_embedding": False}])
def test_what_stands_in_padded_tokens_does_not_matter(change):
    encoder = tiny(**change).backbone.encoder
    tokens = torch.randn(2, 24, 24, generator=torch.Generator().manual_seed(2))
    padding = torch.arange(24) >= torch.tensor([[24], [9]])
    other = torch.where(padding.unsqueeze(-1), 7.0, tokens)
    torch.testing.assert_close(encoder(other, padding)[~padding], encoder(tokens, padding)[~padding])


@torch.no_grad()
def test_with_norms_first_what_comes_out_is_normed():
    tokens = tiny(deep_norm=False, layer_norm_first=True).forward_features(waveforms(1.0)[0]).values
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(1, 48), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.std(-1, correction=0), torch.ones(1, 48), rtol=0, atol=1e-3)


def test_length_of_a_patch_is_the_least():
    model = tiny()
    assert model.forward_features(torch.zeros(1, 2800)).values.shape == (1, 8, 24)
    with pytest.raises(ValueError, match=r"at least 2800 samples \(0.175 s at 16000 Hz\), not 2799"):
        model(torch.zeros(1, 2799))


def test_naturelm_limits_the_waveform():
    plain, limited = tiny(), tiny(options={"use_naturelm": True})
    limited.load_state_dict(plain.state_dict(), strict=False)
    loud = 5 * waveforms(1.0)[0]
    fbank = plain.frontend(loud.clamp(-1, 1))[0]
    assert torch.equal(limited.frontend(loud)[0], fbank)
    assert not torch.equal(plain.frontend(loud)[0], fbank)
    assert limited.backbone.predictor is not None, "its published weights were fine-tuned"


@torch.no_grad()
def test_double_precision():
    """PyTorch's attention on a CPU misreads a float32 bias beside float64 queries."""
    model = tiny()
    x, _ = waveforms(1, 1)
    single = model.embed(x)
    torch.testing.assert_close(model.double().embed(x).float(), single, rtol=0, atol=1e-4)


def test_lower_precision():
    model = tiny()
    x, _ = waveforms(2.0, 2.0)
    with torch.no_grad():
        wanted = model.embed(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = model.embed(x)
        assert torch.cosine_similarity(low.float(), wanted).min() > 0.999
        converted = model.to(torch.bfloat16).embed(x)
    assert torch.cosine_similarity(converted.float(), wanted).min() > 0.999


@pytest.mark.parametrize(
    "change",
    [
        {"gru_rel_pos": False},
        {"relative_position_embedding": False},
        {"deep_norm": False, "layer_norm_first": True},
        {"activation_fn": "relu"},
        {"embed_dim": 24},
        {"conv_bias": True},
        {"input_patch_size": 32},
    ],
)
def test_variants_run_and_can_be_saved(change, tmp_path):
    model = tiny(**change)
    x, mask = waveforms(1.0, 0.6)
    assert model(x, mask).isfinite().all()
    assert model.embed(x, layers=["all"], padding_mask=mask).shape == (2, 3 * 24)
    shown = Beats.options_from_checkpoint({}, model.state_dict())["checkpoint_config"]
    wanted = {**vars(BeatsConfig()), **SIZES, **change}
    wanted["gru_rel_pos"] &= wanted["relative_position_embedding"]
    assert shown.items() <= wanted.items()
    save_file(model.state_dict(), tmp_path / "beats.safetensors")
    again = avex.load_model(
        "beats", checkpoint_path=tmp_path / "beats.safetensors", init_config={**SIZES, **change}, device="cpu"
    )
    assert torch.equal(again(x, mask), model(x, mask))


# -- training ----------------------------------------------------------------------------------------------


def gradients(model, x, mask):
    model.zero_grad()
    torch.manual_seed(3)
    model(x, mask).square().sum().backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_gradients_reach_everything_and_checkpointing_keeps_them():
    model = tiny(dropout=0.1, encoder_layerdrop=0.0, attention_dropout=0.0).train()
    x, mask = waveforms(1.0, 0.6)
    x.requires_grad_()
    with torch.inference_mode():
        model(waveforms(1.0)[0])  # leaves nothing behind that training could not use
    plain = gradients(model, x, mask)
    assert x.grad.abs().sum() > 0
    assert all(grad is not None and grad.isfinite().all() for grad in plain.values())
    assert not [name for name, grad in plain.items() if not grad.any()]
    model.enable_gradient_checkpointing()
    again = gradients(model, x, mask)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_training_and_inference_agree_without_chance():
    model = tiny(**FREE_OF_CHANCE)
    x, mask = waveforms(1.0, 0.6)
    training = model.train()(x, mask)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x, mask), training, rtol=1e-4, atol=1e-5)


def test_gradient_decay():
    x, _ = waveforms(1.0)
    plain, decayed = (tiny(**FREE_OF_CHANCE, layer_wise_gradient_decay_ratio=r).train() for r in (1.0, 0.5))
    assert torch.equal(plain(x), decayed(x))
    full, less = gradients(plain, x, None), gradients(decayed, x, None)
    name = "backbone.encoder.layers.{}.fc1.weight"
    assert torch.equal(less[name.format(1)], full[name.format(1)])
    torch.testing.assert_close(less[name.format(0)], 0.5 * full[name.format(0)])
    post = "backbone.post_extract_proj.weight"
    torch.testing.assert_close(less[post], 0.25 * full[post])


def test_layerdrop():
    x, _ = waveforms(1.0)
    model = tiny(**{**FREE_OF_CHANCE, "encoder_layerdrop": 1.0})
    whole = model(x)
    assert not torch.allclose(model.train()(x), whole)
    kept = tiny(
        encoder_layerdrop=1.0, options={"disable_layerdrop": True}, dropout=0.0, attention_dropout=0.0
    )
    assert torch.allclose(kept.train()(x), whole, atol=1e-5)


# -- checkpoints -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [adapter.name for adapter in ADAPTERS])
def test_export_is_what_the_layout_reads(layout):
    model = tiny(finetuned_model=True, predictor_class=6)
    adapter = next(adapter for adapter in ADAPTERS if adapter.name == layout)
    exported = export_state(model.state_dict(), layout)
    assert adapter.matches(set(exported))
    head = "backbone.predictor." if layout == "microsoft_audioset" else "classifier."
    wanted = {
        k: v for k, v in model.state_dict().items() if "microsoft" not in layout or not k.startswith(head)
    }
    back = adapter.convert(exported)
    assert back.keys() == wanted.keys()
    assert all(torch.equal(back[name], wanted[name]) for name in wanted)
    copies = [name for name in exported if name.endswith("relative_attention_bias.weight")]
    assert len(copies) == (1 if layout == "avex" else SIZES["encoder_layers"])
    assert len({exported[name].data_ptr() for name in exported}) == len(exported)  # safetensors wants that


def test_export_into_an_unknown_layout():
    with pytest.raises(UnknownNameError, match="Did you mean 'microsoft'"):
        export_state({}, "microsft")


@pytest.mark.parametrize("layout", ["avex", "microsoft_audioset"])
def test_own_file_of_a_fine_tuned_card(layout, tmp_path):
    model = tiny()
    save_file(export_state(model.state_dict(), layout), tmp_path / "mine.safetensors")
    again = avex.load_model(
        "beats_iter3_plus_as2m_finetuned_cpt2",
        checkpoint_path=tmp_path / "mine.safetensors",
        init_config=SIZES,
        device="cpu",
    )
    x, _ = waveforms(1.0)
    assert torch.equal(again(x), model(x))


def test_the_file_decides_on_the_predictor(tmp_path):
    for there in (True, False):
        model = tiny(finetuned_model=there)
        save_file(export_state(model.state_dict(), "esp"), tmp_path / "beats.safetensors")
        again = avex.load_model(
            "beats",
            checkpoint_path=tmp_path / "beats.safetensors",
            init_config={**SIZES, "finetuned_model": not there},
            device="cpu",
        )
        assert (again.backbone.predictor is not None) == there
    with pytest.raises(ValueError, match="no predictor"):
        again.forward_predictor(again.forward_features(torch.zeros(1, 16000)))


def test_settings_come_from_the_file(tmp_path):
    model = tiny(deep_norm=False)
    config = {**SIZES, "deep_norm": False, "some_setting_of_its_training": 1}
    torch.save({"cfg": config, "model": export_state(model.state_dict())}, tmp_path / "beats.pt")
    again = avex.load_model(
        "beats", checkpoint_path=tmp_path / "beats.pt", return_features_only=True, device="cpu"
    )
    assert not again.config.deep_norm
    x, _ = waveforms(1.0)
    assert torch.equal(again(x), model.forward_features(x).values)


def test_other_sizes_do_not_fit(tmp_path):
    save_file(tiny().state_dict(), tmp_path / "beats.safetensors")
    options = {"init_config": {**SIZES, "encoder_ffn_embed_dim": 40}, "device": "cpu"}
    with pytest.raises(WeightsError, match=r"fc1.weight' is \(32, 24\), expected \(40, 24\)"):
        avex.load_model("beats", checkpoint_path=tmp_path / "beats.safetensors", **options)


def test_copies_of_the_table_must_agree(tmp_path):
    state = export_state(tiny().state_dict(), "esp")
    state["backbone.encoder.layers.1.self_attn.relative_attention_bias.weight"] += 1
    save_file(state, tmp_path / "beats.safetensors")
    with pytest.raises(WeightsError, match="all layers share one"):
        avex.load_model("beats", checkpoint_path=tmp_path / "beats.safetensors", device="cpu")


_TABLES = [f"encoder.layers.{i}.self_attn.relative_attention_bias.weight" for i in range(2)]


def _absent(table):
    return None


def _not_finite(table):
    return table.clone().index_fill_(0, torch.tensor([3]), torch.nan)


@pytest.mark.parametrize(
    ("damage", "layers", "message"),
    [
        (_absent, [0, 1], r"lacks 1 of them: 'backbone\.encoder\.relative_attention_bias\.weight'"),
        (_absent, [0], rf"the checkpoint lacks the table of relative positions '{_TABLES[0]}'"),
        (
            _not_finite,
            [0, 1],
            r"values in 'backbone\.encoder\.relative_attention_bias\.weight' that are not finite",
        ),
        (
            _not_finite,
            [0],
            r"values in 'backbone\.encoder\.relative_attention_bias\.weight' that are not finite",
        ),
        (_not_finite, [1], rf"values in '{_TABLES[1]}' that are not finite"),
        (torch.Tensor.long, [0, 1], r"'backbone\.encoder\.relative_attention_bias\.weight' as torch\.int64"),
        (
            torch.Tensor.long,
            [1],
            rf"as torch\.int64 in '{_TABLES[1]}' and as torch\.float32 in '{_TABLES[0]}'",
        ),
        (torch.Tensor.flatten, [0, 1], r"relative_attention_bias\.weight' is \(48,\)"),
    ],
)
def test_what_is_wrong_with_the_table_is_said(tmp_path, damage, layers, message):
    state = export_state(tiny().state_dict(), "microsoft")
    for key in (_TABLES[i] for i in layers):
        state[key] = damage(state[key])
    save_file(
        {key: value for key, value in state.items() if value is not None}, tmp_path / "beats.safetensors"
    )
    with pytest.raises(WeightsError, match=message):
        avex.load_model("beats", checkpoint_path=tmp_path / "beats.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"deep_nrom": True}, "Did you mean 'deep_norm'"),
        ({"layer_norm_first": True}, "deep_norm needs layer_norm_first=False"),
        ({"activation_fn": "glu"}, "activation_fn 'glu'"),
        ({"encoder_attention_heads": 5}, "encoder_attention_heads=5 does not divide encoder_embed_dim=768"),
        ({"max_distance": 80}, "do not fit together"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        BeatsConfig.from_options(options)
