"""Every Python block of the document "Representation Learning Framework Documentation" (avex), as printed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import avex

_SPEC = importlib.util.spec_from_file_location("seed_cards", Path(__file__).with_name("seed_cards.py"))
seed = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(seed)

QUICK_START = """
from avex import list_models, load_model, describe_model

# List available models (prints table and returns dict)
models = list_models()  # Prints table + returns dict with detailed info
print(f"Available models: {list(models.keys())}")

# Get detailed information about a model
describe_model("esp_aves2_naturelm_audio_v1_beats", verbose=True)
# Shows: model type, whether it has a trained classifier, number of classes, usage examples

# Load a pre-trained model with checkpoint (num_classes extracted automatically)
model = load_model("esp_aves2_sl_beats_all", device="cpu")

# For a new task, load a backbone and attach a probe head (classifier)
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")

# Load for embedding extraction (returns unpooled features)
model = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
# Returns (batch, time_steps, 768) for BEATs instead of classification logits
"""

PROBE = """
from avex import load_model
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig

# Load backbone for feature extraction
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")

# Define a simple linear probe on the backbone features
probe_config = ProbeConfig(
    probe_type="linear",
    target_layers=["last_layer"],
    aggregation="mean",
    freeze_backbone=True,
    online_training=True,
)

probe = build_probe_from_config(
    probe_config=probe_config,
    base_model=base,
    num_classes=10,
    device="cpu",
)
"""


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    seed.write_weights(folder)
    with seed.registered(folder):
        yield


def test_quick_start(capsys):
    names = seed.run(QUICK_START)
    shown = capsys.readouterr().out
    assert re.search(r"^esp_aves2_sl_beats_all +BEATs, .* Yes", shown, re.MULTILINE)
    assert re.search(r"^esp_aves2_naturelm_audio_v1_beats +BEATs, .* No\b", shown, re.MULTILINE)
    assert "Available models: ['atst_frame_base'," in shown
    description = shown.partition("Available models: ")[2]
    for fact in ("16000 Hz", "beats", 'load_model("esp_aves2_naturelm_audio_v1_beats"'):
        assert fact in description
    assert names["models"]["esp_aves2_sl_beats_all"]["has_trained_classifier"] is True
    assert names["models"]["esp_aves2_naturelm_audio_v1_beats"]["has_trained_classifier"] is False
    features = names["model"](torch.zeros(2, 16000))
    # One second: 98 frames, 6 steps of 16 frames, 8 bands each.
    assert features.shape == (2, 6 * 8, 768)
    assert torch.equal(names["base"](torch.zeros(2, 16000)), features)


def test_the_classifier_of_a_checkpoint_is_kept():
    model = avex.load_model("esp_aves2_sl_beats_all", device="cpu")
    x = torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(model(x), seed.build("sl_beats")(x))
    assert model.label_mapping["index_to_label"][1] == "dog"


def test_the_probe_reads_the_frozen_backbone():
    names = seed.run(PROBE)
    probe, base = names["probe"], names["base"]
    x = 0.1 * torch.randn(2, 16000, generator=torch.Generator().manual_seed(1))
    logits = probe(x)
    assert logits.shape == (2, 10)
    with torch.no_grad():
        by_hand = nn.functional.linear(base(x).mean(1), probe.classifier.weight, probe.classifier.bias)
    torch.testing.assert_close(logits, by_hand)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in base.parameters())
    assert sum(p.numel() for p in probe.parameters() if p.requires_grad) == 768 * 10 + 10


def test_the_names_to_install_are_there():
    """`pip install "avex[dev]"` for training, and `uv sync --group project-dev` of the older README."""
    text = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for table, name in (("project.optional-dependencies", "dev"), ("dependency-groups", "project-dev")):
        lines = text.partition(f"\n[{table}]\n")[2].partition("\n[")[0]
        assert re.search(rf"^{name} = ", lines, re.MULTILINE), name


@pytest.mark.parametrize(
    "name",
    [
        "00_quick_start.py",
        "01_basic_model_loading.py",
        "02_checkpoint_loading.py",
        "03_custom_model_registration.py",
        "04_training_and_evaluation.py",
        "05_embedding_extraction.py",
        "06_classifier_head_loading.py",
    ],
)
def test_the_examples_that_it_lists_are_there(name):
    """That they run is shown in tests/examples."""
    assert (Path(__file__).resolve().parents[2] / "examples" / name).is_file()
