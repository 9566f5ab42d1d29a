"""k-means, the quantiser and the tokenizers of BEATs, HuBERT's targets."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from avex._core.errors import ConfigError, WeightsError
from avex.frontends.kaldi import KaldiFbank
from avex.models.beats.config import BeatsConfig
from avex.models.beats.pretraining import BeatsPretrainingConfig, raw_patches
from avex.models.birdmae.pretraining import patches_of
from avex.models.hubert.config import HubertConfig
from avex.models.hubert.pretraining import SpectralTargets, _cosines, _differences
from avex.testing import tiny_model
from avex.training.objectives.base import perplexity
from avex.training.objectives.beats import BeatsTokenizerObjective
from avex.training.objectives.kmeans import fit_kmeans, nearest
from avex.training.objectives.quantiser import Quantiser
from avex.training.objectives.tokenizers import LearnedTokenizer, RandomProjectionTokenizer

TINY = BeatsPretrainingConfig(codes=8, code_dim=4, predictor_layers=1)


def test_kmeans_finds_clusters_that_are_there():
    generator = torch.Generator().manual_seed(0)
    truth = 10 * torch.randn(6, 3, generator=generator)
    points = (truth.unsqueeze(1) + 0.1 * torch.randn(6, 50, 3, generator=generator)).flatten(0, 1)
    best = min(
        (fit_kmeans(points, 6, generator=generator) for _ in range(5)),
        key=lambda c: nearest(points, c)[1].sum(),
    )
    order = nearest(truth, best)[0]
    assert sorted(order.tolist()) == list(range(6))
    assert torch.allclose(best[order], truth, atol=0.1)


@given(st.integers(1, 8), st.integers(0, 1000))
def test_kmeans_of_few_points_is_the_points(count, seed):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 2, generator=generator)
    centres = fit_kmeans(points, count, generator=generator)
    codes, distances = nearest(points, centres)
    assert sorted(codes.tolist()) == list(range(count))
    assert distances.max() < 1e-4


def test_kmeans_is_seeded_copes_with_copies_and_refuses_too_few():
    points = torch.randn(40, 3)
    first, second = (fit_kmeans(points, 5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.isfinite(fit_kmeans(torch.ones(10, 2), 4)).all()
    with pytest.raises(ConfigError, match="cannot be put into 50 clusters"):
        fit_kmeans(points, 50)


def test_perplexity_counts_the_codes_in_use():
    assert perplexity(torch.tensor([3, 3, 3]), 8).item() == pytest.approx(1.0)
    assert perplexity(torch.arange(8), 8).item() == pytest.approx(8.0)
    # Shares of 3/4 and 1/4: exp(0.5623).
    assert perplexity(torch.tensor([0, 0, 0, 1]), 2).item() == pytest.approx(1.7548, abs=1e-4)


def test_patches_have_the_order_of_the_tokens():
    # Every patch of 16 x 16 holds one number, time step times 8 plus band.
    steps, bands = torch.meshgrid(torch.arange(32), torch.arange(8), indexing="ij")
    image = (steps * 8 + bands).float().repeat_interleave(16, 0).repeat_interleave(16, 1).unsqueeze(0)
    for patches in (raw_patches(image, 16), patches_of(image, normalise=False)):
        assert torch.equal(patches, torch.arange(256.0).view(1, 256, 1).expand(1, 256, 256))


def test_normalised_patches_have_mean_zero_and_variance_one():
    patches = patches_of(5 + 3 * torch.randn(2, 512, 128))
    assert patches.mean(-1).abs().max() < 1e-5
    assert torch.allclose(patches.var(-1, unbiased=False), torch.ones(2, 256), atol=1e-4)


def test_random_labels_are_those_of_the_nearest_code_and_never_change():
    tokenizer = RandomProjectionTokenizer(16, codes=64, code_dim=16, seed=1)
    fbank = torch.randn(2, 48, 128)
    labels = tokenizer(fbank)
    again = RandomProjectionTokenizer(16, codes=64, code_dim=16, seed=1)
    assert torch.equal(labels, again(fbank))
    assert torch.equal(labels, tokenizer(3 * fbank + 7))  # loudness and offset do not matter
    assert not torch.equal(labels, RandomProjectionTokenizer(16, 64, 16, seed=2)(fbank))
    clip = (fbank[0] - fbank[0].mean()) / fbank[0].std(unbiased=False)
    projected = raw_patches(clip.unsqueeze(0), 16)[0] @ tokenizer.projection.t()
    distances = torch.cdist(torch.nn.functional.normalize(projected, dim=-1), tokenizer.vectors)
    assert torch.equal(labels[0], distances.argmin(-1))
    assert not list(tokenizer.parameters())
    assert perplexity(labels, 64) > 10


def test_the_quantiser_passes_gradients_and_its_codes_follow():
    torch.manual_seed(0)
    quantiser = Quantiser(4, 8).train()
    centres = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    x = (centres.repeat(20, 1) + 0.05 * torch.randn(80, 8)).requires_grad_()
    for _ in range(20):
        quantised, labels, distance = quantiser(x)
    assert distance < 0.1
    assert len(labels[:4].unique()) == 4
    # Every point goes to the code that its own centre goes to.
    assert torch.equal(labels, labels[:4].repeat(20))
    quantised.sum().backward()
    assert x.grad is not None
    assert torch.allclose(quantiser.vectors.norm(dim=-1), torch.ones(4), atol=1e-5)
    quantiser.eval()
    before = quantiser.vectors.clone()
    quantiser(torch.randn(10, 8))
    assert torch.equal(quantiser.vectors, before)


def test_codes_that_nobody_uses_are_given_away():
    torch.manual_seed(0)
    quantiser = Quantiser(8, 4)
    quantiser.started.fill_(True)
    quantiser.counts.fill_(0.005)
    x = torch.randn(64, 4)
    before = perplexity(quantiser(x)[1], 8)
    for _ in range(5):
        labels = quantiser(x)[1]
    assert perplexity(labels, 8) >= min(before, 6.0)
    assert (quantiser.counts > 0.005).all()


def test_a_learned_tokenizer_is_saved_whole(tmp_path):
    config = BeatsConfig(**tiny_model("beats").config.__dict__)
    tokenizer = LearnedTokenizer(config, TINY, estimator_layers=1).eval()
    path = tmp_path / "tokenizer.safetensors"
    tokenizer.save(path)
    fbank = torch.randn(1, 64, 128)
    again = LearnedTokenizer.load(path)
    assert torch.equal(again(fbank), tokenizer(fbank))
    assert again.settings == TINY
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="not a tokenizer"):
        LearnedTokenizer.load(tmp_path / "other.safetensors")


def test_a_tokenizer_learns_and_its_teacher_does_not():
    torch.manual_seed(0)
    teacher = tiny_model("beats", num_classes=None)
    objective = BeatsTokenizerObjective(teacher, TINY, estimator_layers=1, distance_weight=0.25).train()
    before = {name: p.clone() for name, p in teacher.named_parameters()}
    optimiser = torch.optim.AdamW(objective.parameter_groups(3e-3, 0.0))
    batch = {"raw_wav": 0.1 * torch.randn(4, 16000) * torch.linspace(0.01, 1, 4).unsqueeze(1)}
    cosines = []
    for _ in range(25):
        output = objective(batch)
        optimiser.zero_grad()
        output.loss.backward()
        optimiser.step()
        cosines.append(output.logs["cosine"].item())
    assert cosines[-1] > cosines[0] + 0.3
    assert output.logs["perplexity"] > 1.5
    assert not teacher.training
    assert all(torch.equal(p, before[name]) for name, p in teacher.named_parameters())
    exported = objective.export()
    own = objective.tokenizer.backbone.state_dict()
    assert all(torch.equal(t, own[name]) for name, t in exported.backbone.state_dict().items())


# -- HuBERT's targets -------------------------------------------------------------------------------------


def test_the_cosine_transform_is_scipys():
    x = np.random.default_rng(0).normal(size=(5, 23)).astype(np.float32)
    expected = dct(x, type=2, norm="ortho", axis=1)[:, :13]
    assert np.allclose(torch.from_numpy(x) @ _cosines(23, 13), expected, atol=1e-5)


def test_cepstra_are_liftered_as_kaldi_does():
    """`compute-mfcc-feats` with its defaults: 22 as the lifter's length, samples as they come."""
    waveform = 0.1 * torch.randn(1, 16000)
    mel = KaldiFbank(23)(waveform)[0, ::2].numpy()
    expected = dct(mel, type=2, norm="ortho", axis=1)[:, :13]
    expected = expected * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    features = SpectralTargets(HubertConfig())(waveform)[0, :, :13]
    assert np.allclose(features, expected[: len(features)], atol=1e-3)


def test_differences_of_a_ramp_are_its_slope():
    ramp = 3.0 * torch.arange(20.0).view(1, 20, 1)
    assert torch.allclose(_differences(ramp)[:, 2:-2], torch.full((1, 16, 1), 3.0))


@pytest.mark.parametrize("samples", [400, 16000, 16037, 16079, 24000])
def test_there_is_a_target_for_every_frame(samples):
    config = HubertConfig()
    features = SpectralTargets(config)(torch.randn(1, samples))
    assert features.shape == (1, config.num_frames(samples), 39)


def test_a_target_starts_where_its_frame_starts():
    config = HubertConfig()
    waveform = torch.randn(1, 16000)
    targets = SpectralTargets(config)
    changed = waveform.clone()
    changed[0, : 320 * 10] = 0.0
    same = torch.isclose(targets(waveform), targets(changed), atol=1e-4).all(-1)[0]
    # Differences of differences look eight frames of 10 ms ahead and back, which is four frames of 20 ms.
    assert not same[:9].any()
    assert same[10 + 4 :].all()
