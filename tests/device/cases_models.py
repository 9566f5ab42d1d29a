"""Encoders, engines and the pipeline on a device that is not the CPU."""

import copy
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import avex
from avex.embedding.throughput import measure
from avex.testing import tiny_card, tiny_families, tiny_model

_spec = importlib.util.spec_from_file_location("standin", Path(__file__).with_name("standin.py"))
standin = sys.modules["standin"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(standin)

FAMILIES = [name for name in tiny_families() if not name.startswith("perch")]  # graphs run in ONNX Runtime
FAMILIES = [name for name in FAMILIES if name not in ("resnet50", "resnet152")]  # resnet18, but longer
WITH_FILES = [name for name in FAMILIES if name != "birdnet"]
DEMO = Path(__file__).parents[2] / "examples" / "audio"


@pytest.fixture(autouse=True)
def count():
    standin.waits.clear()
    standin.operations.clear()


def _sounds(model):
    """Three clips of two seconds (BirdNET's three), and a mask that pads half of the second."""
    samples = round(model.sample_rate * (3 if type(model).__name__ == "BirdNet" else 2))
    mask = torch.zeros(3, samples, dtype=torch.bool)
    mask[1, samples // 2 :] = True
    return 0.1 * torch.randn(3, samples, generator=torch.Generator().manual_seed(0)), mask


def _same(other, cpu, tolerance=1e-3, scale=None):
    """All tensors on the device, and equal to those on the CPU but for rounding in deep untrained networks."""
    pairs = list(zip(pytree.tree_leaves(other), pytree.tree_leaves(cpu), strict=True))
    assert pairs
    for got, expected in pairs:
        assert (got.device, got.dtype) == (standin.DEVICE, expected.dtype)
        assert (got.cpu() - expected).abs().max() <= tolerance * (scale or float(expected.abs().max()))


def test_the_stand_in_refuses_what_a_gpu_refuses():
    x = torch.randn(3, 4).to(standin.DEVICE)
    with pytest.raises(RuntimeError, match="was given a tensor of cpu"):
        x + torch.randn(3, 4)
    with pytest.raises((RuntimeError, TypeError)):
        x.numpy()
    assert not standin.waits
    assert (x @ x.T).cpu().shape == (3, 3)
    assert float(x.sum()) == x.cpu().sum()
    assert standin.waits == {"outside": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_models_give_the_same_numbers_and_wait_for_nothing(family):
    on_cpu = tiny_model(family)
    on_device = copy.deepcopy(on_cpu).to(standin.DEVICE)
    (x, mask), results = _sounds(on_cpu), []
    for model, sounds, padding in (
        (on_cpu, x, mask),
        (on_device, x.to(standin.DEVICE), mask.to(standin.DEVICE)),
    ):
        model.register_hooks_for_layers(["all"])
        with torch.no_grad():
            results.append(
                [
                    model(sounds),
                    model(sounds, padding_mask=padding),
                    model.embed(sounds, padding_mask=padding),
                    model.embed(sounds, aggregation="none"),
                    model.extract_embeddings(sounds, padding_mask=padding, aggregation="none"),
                ]
            )
    assert not standin.waits
    assert standin.operations
    _same(results[1], results[0])


@pytest.mark.parametrize(("family", "recompute"), [*((name, False) for name in FAMILIES), ("beats", True)])
def test_gradients_are_the_same(family, recompute):
    results = []
    for device in (torch.device("cpu"), standin.DEVICE):
        model = tiny_model(family).to(device).train()
        if recompute:
            model.enable_gradient_checkpointing()
        torch.manual_seed(1)
        model(_sounds(model)[0].to(device)).square().sum().backward()
        results.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(results[0]) > 10
    # Some are sums that cancel out: what is left of those is rounding.
    _same(results[1], results[0], scale=max(float(gradient.abs().max()) for gradient in results[0]))


@pytest.mark.parametrize("family", WITH_FILES)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_under_the_rules_of_cuda(family, precision, tmp_path):
    card = tiny_card(family, tmp_path)
    exact, low = (
        avex.load_model(card, device=device, precision=name)
        for device, name in (("cpu", "fp32"), (standin.NAME, precision))
    )
    x, mask = _sounds(exact)
    with torch.no_grad():
        expected = exact.embed(x, padding_mask=mask)
        found = low.embed(x.to(standin.DEVICE), padding_mask=mask.to(standin.DEVICE)).cpu()
    assert found.dtype == torch.float32
    # Untrained residual networks of many layers let rounding grow.
    assert torch.cosine_similarity(expected, found).min() > (0.95 if family.startswith("resnet") else 0.999)


@pytest.mark.parametrize("family", [*WITH_FILES, "birdnet"])
def test_recordings_are_embedded_the_same_with_one_transfer_per_batch(family, tmp_path):
    card = "birdnet" if family == "birdnet" else tiny_card(family, tmp_path)
    vectors = []
    for device in ("cpu", standin.NAME):
        standin.waits.clear()
        store = avex.embed(DEMO, card, tmp_path / f"{device}.parquet", device=device, batch_size=16)
        vectors.append(store.to_numpy())
    assert np.abs(vectors[0] - vectors[1]).max() <= 1e-3 * np.abs(vectors[0]).max()
    assert sum(standin.waits.values()) <= -(-len(vectors[0]) // 16) + 4  # recordings begin batches anew


@pytest.mark.parametrize("family", ["beats", "birdnet"])
def test_detections_are_the_same(family, tmp_path):
    card = "birdnet" if family == "birdnet" else tiny_card(family, tmp_path)
    found = [avex.predict(DEMO, card, min_conf=0.3, device=d).detections() for d in ("cpu", standin.NAME)]
    assert [(d.recording, d.start_s, d.label) for d in found[0]] == [
        (d.recording, d.start_s, d.label) for d in found[1]
    ]
    assert max(abs(a.confidence - b.confidence) for a, b in zip(*found, strict=True)) < 1e-4


def test_speed_is_measured_there(tmp_path):
    results = measure(tiny_card("beats", tmp_path), device=standin.NAME, batch_sizes=[2], rounds=1)
    assert {result.device for result in results} == {str(standin.DEVICE)}
