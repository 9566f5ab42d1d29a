"""The native BirdNET network at a tiny size: shapes, layers, gradients, precision, weights files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from avex._core.errors import ConfigError, WeightsError
from avex.models.birdnet.config import BirdNetConfig, SpectrogramConfig, StageConfig
from avex.models.birdnet.frontend import BirdNetFrontEnd, mel_filters, used_bins
from avex.models.birdnet.model import BirdNet
from avex.models.birdnet.network import Block, _same_padding
from avex.models.precision import set_precision

TINY = BirdNetConfig(
    sample_rate=8000,
    window_samples=4096,
    num_mels=32,
    spectrograms=(SpectrogramConfig(256, 32, 0, 1000), SpectrogramConfig(128, 33, 200, 3000)),
    stem_channels=4,
    stages=(StageConfig(8, 6, 2, None), StageConfig(12, 8, 2, 3)),
    embedding_dim=16,
    num_classes=5,
)
LAYERS = [
    "backbone.stem",
    *(f"backbone.stages.{i}.{j}" for i in (0, 1) for j in (0, 1)),
    "backbone.head",
    "embedding",
]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks of this size gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(**options) -> BirdNet:
    torch.manual_seed(0)
    return BirdNet(backend="native", config=TINY, **options).eval()


def clips(count: int = 3, samples: int = 4096, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(count, samples, generator=generator)


# -- shapes and layers -------------------------------------------------------------------------------------


def test_shapes_of_one_window_and_of_several():
    model, features = tiny(), tiny(return_features_only=True)
    assert model(clips()).shape == (3, 5)
    assert features(clips()).shape == (3, 16)
    assert features(clips(samples=9000)).shape == (3, 3, 16)
    assert features(clips(samples=10)).shape == (3, 16)
    assert model.embedding_dim == 16
    assert model.window_seconds == 4096 / 8000
    assert not hasattr(features, "classifier")


def test_logits_are_the_mean_over_windows():
    model = tiny()
    x = clips(samples=8192)
    expected = (model(x[:, :4096]) + model(x[:, 4096:])) / 2
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))


@pytest.mark.parametrize("aggregation", ["mean", "max"])
def test_layers_of_long_audio_are_pooled_over_its_windows(aggregation):
    model = tiny()
    assert model.get_model_layers() == LAYERS
    x = clips(samples=8192)
    parts = torch.stack(
        [model.embed(part, ["layer_2", "last_layer"], aggregation) for part in x.split(4096, 1)]
    )
    expected = parts.mean(0) if aggregation == "mean" else parts.amax(0)
    torch.testing.assert_close(model.embed(x, ["layer_2", "last_layer"], aggregation), expected)
    assert expected.shape == (3, 6 + 16)


def test_unpooled_maps_continue_along_time():
    model = tiny()
    one, two = (model.embed(clips(samples=n), ["layer_3"], "none") for n in (4096, 8192))
    assert two.shape == (*one.shape[:3], 2 * one.shape[3])
    torch.testing.assert_close(
        two[..., : one.shape[3]], model.embed(clips(samples=8192)[:, :4096], [3], "none")
    )
    assert model.embed(clips(samples=8192), aggregation="none").shape == (3, 2, 16)


def test_what_a_layer_gives_is_not_overwritten_later():
    model = tiny()
    names = [name for name, module in model.backbone.named_modules() if not list(module.children()) and name]
    recorded: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in names:
        model.backbone.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: recorded.update({name: (out, out.clone())})
        )
    with torch.inference_mode():
        model(clips())
    changed = [name for name, (now, then) in recorded.items() if not torch.equal(now, then)]
    assert len(recorded) > 20
    assert not changed


def test_what_a_block_gives_is_not_overwritten_later():
    model, unheard = tiny(), tiny()
    unheard.load_state_dict(model.state_dict())
    recorded: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name in model.backbone.layer_names():
        model.backbone.get_submodule(name).register_forward_hook(
            lambda _m, _i, out: recorded.append((out, out.clone()))
        )
    with torch.inference_mode():
        logits = model(clips())
        assert torch.equal(logits, unheard(clips()))
    assert len(recorded) == len(model.backbone.layer_names())
    assert all(torch.equal(now, then) for now, then in recorded)


def test_in_place_blocks_compute_what_others_do():
    model = tiny()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    block = next(b for b in model.modules() if isinstance(b, Block) and b.has_shortcut)
    x = torch.randn(2, block.expand.in_channels, 6, 8)
    before, quick = x.clone(), block(x)
    plain = block.project(block.squeeze(block.depthwise(block.expand(x)))) + x
    assert torch.equal(x, before)
    assert torch.equal(quick, plain)
    followed = block(x.requires_grad_())
    assert torch.equal(followed, quick)
    followed.sum().backward()
    assert x.grad is not None


def test_a_clip_does_not_depend_on_its_neighbours():
    model = tiny()
    x = clips(5)
    x[2] *= 1e3
    torch.testing.assert_close(model(x), torch.cat([model(clip[None]) for clip in x]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
def test_constant_signals_are_finite_and_all_alike(value):
    model = tiny()
    logits = model(torch.full((1, 4096), value))
    assert logits.isfinite().all()
    torch.testing.assert_close(logits, model(torch.zeros(1, 4096)))


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_loudness_does_not_matter(gain, seed):
    # Each window is scaled by its own range; only the 1e-6 added to the range tells loud from soft.
    model = tiny()
    x = clips(1, seed=seed)
    torch.testing.assert_close(model(x), model(gain * x), rtol=2e-2, atol=2e-3)


def test_train_and_eval_mode_compute_the_same():
    model = tiny()
    assert torch.equal(model.train()(clips()), model.eval()(clips()))


# -- gradients ---------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter_and_the_waveform():
    model = tiny().train()
    x = clips().requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert model.frontend.spectrograms[0].exponent.grad.abs() > 0


def test_silence_has_finite_gradients():
    model = tiny().train()
    x = torch.zeros(1, 4096, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_gradient_checkpointing_changes_no_gradient():
    plain, saving = tiny().train(), tiny().train()
    saving.enable_gradient_checkpointing()
    for model in (plain, saving):
        model(clips()).square().sum().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


# -- precision ---------------------------------------------------------------------------------------------


def test_half_precision_keeps_the_spectrograms_and_the_results_in_float32():
    model, exact = tiny(), tiny()
    set_precision(model, "bf16")
    assert model.backbone.stem.conv.weight.dtype == torch.bfloat16
    assert model.backbone.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert {t.dtype for t in (*model.frontend.buffers(), *model.frontend.parameters())} == {torch.float32}
    torch.testing.assert_close(model.frontend(clips())[0], exact.frontend(clips())[0])
    assert model(clips()).dtype == torch.float32
    assert torch.cosine_similarity(model.embed(clips()), exact.embed(clips())).min() > 0.999


def test_autocast_is_close_to_float32():
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        half = model.embed(clips())
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half, model.embed(clips())).min() > 0.999


# -- weights -----------------------------------------------------------------------------------------------


def test_a_saved_state_dict_loads_again_with_its_head(tmp_path):
    model = tiny(num_classes=7)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "fine-tuned.safetensors")
    again = BirdNet(backend="native", config=TINY, checkpoint=tmp_path / "fine-tuned.safetensors").eval()
    assert again.num_classes == 7
    assert torch.equal(again(clips()), model(clips()))
    fresh = BirdNet(
        backend="native", config=TINY, checkpoint=tmp_path / "fine-tuned.safetensors", num_classes=7
    )
    assert not torch.equal(fresh.classifier.weight, model.classifier.weight)
    assert set(fresh.load_report.reset) == {"classifier.weight", "classifier.bias"}
    bare = BirdNet(
        backend="native",
        config=TINY,
        checkpoint=tmp_path / "fine-tuned.safetensors",
        return_features_only=True,
    )
    assert torch.equal(bare.eval()(clips()), model.embed(clips()))


def test_weights_of_another_size_are_refused(tmp_path):
    model = tiny()
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    state["backbone.head.conv.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(WeightsError, match=r"backbone\.head\.conv\.bias"):
        BirdNet(backend="native", config=TINY, checkpoint=tmp_path / "wrong.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorflow"}, "'litert' or 'native'"),
        ({"backend": "litert", "config": TINY}, "Leave backend='litert' away"),
        ({"backend": "litert"}, "load_model"),
    ],
)
def test_options_that_do_not_exist(options, message):
    with pytest.raises(ConfigError, match=message):
        BirdNet(**options)


def test_a_wrong_rate_and_wrong_shapes_are_refused():
    with pytest.raises(ConfigError, match="48000 Hz"):
        BirdNet(backend="native", audio_config=tiny().audio_config)
    for shape in ((1, 1, 4096), (0, 4096), (1, 0)):
        with pytest.raises(ValueError, match="waveforms"):
            tiny()(torch.zeros(shape))
    with pytest.raises(ValueError, match="4096 samples at once"):
        tiny().frontend(torch.zeros(1, 5000))


# -- parts -------------------------------------------------------------------------------------------------


def test_the_spectrogram_is_the_real_part_of_the_transform():
    """A cosine that starts with a frame gives a peak, a sine gives none: phase counts."""
    front = BirdNetFrontEnd(TINY).double()
    spectrogram = front.spectrograms[0]
    rate, n_fft, k = TINY.sample_rate, 256, 16
    t = torch.arange(4096) / rate
    phase = 2 * torch.pi * k * rate / n_fft * t
    frame = 8  # hop 32 x 8 = one n_fft: the tone has whole periods at its start
    cosine, sine = (spectrogram(wave[None])[0, :, frame] for wave in (phase.cos(), phase.sin()))
    assert cosine.max() > 1.5 * sine.max()
    mel = mel_filters(TINY.spectrograms[0], TINY.num_mels, rate)
    assert TINY.num_mels - 1 - int(cosine.argmax()) == int(mel[:, k].argmax())


def test_mel_filters_are_triangles_inside_their_band():
    for part in TINY.spectrograms:
        mel = mel_filters(part, 16, TINY.sample_rate)
        bins = used_bins(part, TINY.sample_rate)
        outside = mel.clone()
        outside[:, bins] = 0
        assert not outside.any()
        assert 0 <= mel.min() <= mel.max() <= 1
        centres = (mel * torch.arange(mel.shape[1])).sum(1) / mel.sum(1).clamp_min(1e-9)
        assert (np.diff(centres[mel.sum(1) > 0]) > 0).all()


@given(size=st.integers(1, 600), kernel=st.integers(1, 9), stride=st.integers(1, 4))
def test_same_padding_gives_the_rounded_up_quotient(size, kernel, stride):
    before, after = _same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    assert (max(size + before + after, kernel) - kernel) // stride + 1 == -(-size // stride)


def test_spectrograms_must_have_one_length():
    with pytest.raises(ValueError, match="one common number"):
        BirdNetConfig(
            spectrograms=(SpectrogramConfig(2048, 278, 0, 3000), SpectrogramConfig(1024, 270, 0, 9000))
        )
