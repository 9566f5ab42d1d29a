"""Every Python block of the README of the older package, `representation_learning`, as printed.

The remote files of the document are local here. Where its text is at odds with the models, the rulings of the project
are asserted and the comment says which.
"""
# ruff: noqa: E501

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from torch import nn

import avex
from avex import audio
from avex._core.errors import ConfigError
from avex._core.optional import available
from avex.configs import AudioConfig, ModelSpec
from avex.models.base_model import ModelBase

_SPEC = importlib.util.spec_from_file_location("seed_cards", Path(__file__).with_name("seed_cards.py"))
seed = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(seed)

BASIC_USAGE = """
from representation_learning import list_models, load_model, describe_model

# List available models (prints table and returns dict)
models = list_models()  # Prints table + returns dict with detailed info
print(f"Available models: {list(models.keys())}")

# Get detailed information about a model
describe_model("beats_naturelm", verbose=True)
# Shows: model type, whether it has a trained classifier, number of classes, usage examples

# Load a pre-trained model with checkpoint (num_classes extracted automatically)
model = load_model("sl_beats_animalspeak", device="cpu")

# Load a model for a new task (creates new classifier)
model = load_model("beats_naturelm", num_classes=10, device="cpu")

# Load for embedding extraction (returns unpooled features)
model = load_model("beats_naturelm", return_features_only=True, device="cpu")
# Returns (batch, time_steps, 768) for BEATs instead of classification logits
"""

PROBES = """
from representation_learning import load_model
from representation_learning.api import build_probe_from_config_online
from representation_learning.configs import ProbeConfig

# Load backbone for feature extraction
base = load_model("beats_naturelm", return_features_only=True, device="cpu")

# Define a simple linear probe on the backbone features
probe_config = ProbeConfig(
    probe_type="linear",
    target_layers=["backbone"],
    aggregation="mean",
    freeze_backbone=True,
    online_training=True,
)

probe = build_probe_from_config_online(
    probe_config=probe_config,
    base_model=base,
    num_classes=10,
    device="cpu",
)
"""

LOAD_MODEL = """
from representation_learning import load_model

# Load with explicit num_classes (for new model with new classifier)
model = load_model("efficientnet", num_classes=100)

# Load with custom checkpoint
model = load_model("efficientnet", checkpoint_path="gs://my-bucket/checkpoint.pt")

# Load with default checkpoint (from YAML config)
# Checkpoint paths are defined in api/configs/official_models/*.yml files
# When num_classes=None, it's automatically extracted from the checkpoint
model = load_model("efficientnet_animalspeak")  # Uses default checkpoint from YAML + extracts num_classes

# Load for embedding extraction (no classifier head)
# When num_classes=None and no checkpoint, builds model for embedding extraction
model = load_model("beats")  # Returns embeddings, not logits

# Load from config file
model = load_model("experiments/my_model.yml")

# Load with custom parameters
model = load_model("efficientnet", num_classes=50, device="cuda", efficientnet_variant="b1")
"""

PRETRAINED = """
# Load with pretrained=True (no checkpoint) - uses model's own pretrained weights
model = load_model("beats", pretrained=True)  # BEATs loads SSL weights

# Load with checkpoint - pretrained is automatically False
model = load_model("efficientnet_animalspeak")  # Uses checkpoint, pretrained=False
"""

BUILD_MODEL = """
from representation_learning import build_model, register_model_class
from representation_learning.models.base_model import ModelBase

# Register a custom model class
@register_model_class
class MyCustomModel(ModelBase):
    name = "my_custom_model"

    def __init__(self, device, num_classes, **kwargs):
        super().__init__(device=device)
        # Your model implementation
        pass

# Build using the plugin architecture
model = build_model("my_custom_model", device="cpu", num_classes=10)
"""

REGISTRY = """
from representation_learning import (
    register_model, get_model_spec, list_models, describe_model
)

# Register a new model configuration
from representation_learning.configs import ModelSpec, AudioConfig
model_spec = ModelSpec(
    name="my_model",
    pretrained=False,
    device="cpu",
    audio_config=AudioConfig(sample_rate=16000)
)
register_model("my_model", model_spec)

# List available models (prints table and returns dict)
models = list_models()
# Prints formatted table:
# ====================================================================================================
# Model Name                          Description                              Trained Classifier
# ====================================================================================================
# beats_naturelm                      beats (pretrained backbone) - NatureLM    No
# sl_beats_animalspeak                beats (fine-tuned) - 12279 classes        Yes (12279 classes)
# ====================================================================================================
#
# Returns dictionary: {'model_name': {'description': '...', 'has_trained_classifier': True/False, ...}}
print(f"Available models: {list(models.keys())}")

# Get detailed model information
model_info = describe_model("beats_naturelm", verbose=True)
# Prints formatted output showing:
# - Model type and device
# - Whether it has a trained classifier
# - Number of classes (if applicable)
# - Checkpoint and class mapping paths
# - Audio configuration
# - Usage examples

# Check if model is registered
model_spec = get_model_spec("efficientnet")
if model_spec is not None:
    print("Model is available")
else:
    print("Model is not available")
"""

MODEL_CLASSES = """
from representation_learning import (
    register_model_class, get_model_class, list_model_classes
)

# Register a custom model class
@register_model_class
class MyModel(ModelBase):
    name = "my_model"
    # Implementation...

# List registered model classes
classes = list_model_classes()
print(f"Available model classes: {classes}")

# Get a specific model class
model_class = get_model_class("my_model")
"""

CHECKPOINTS = """
from representation_learning import get_checkpoint_path

# Get default checkpoint path from YAML config
# Checkpoint paths are defined in api/configs/official_models/*.yml files
checkpoint = get_checkpoint_path("efficientnet_animalspeak")
print(f"Default checkpoint: {checkpoint}")

# Override default checkpoint by passing checkpoint_path parameter
from representation_learning import load_model
model = load_model("efficientnet_animalspeak", checkpoint_path="gs://my-custom-checkpoint.pt")
"""

CLASS_MAPPING = """
from representation_learning import load_class_mapping

# Load class mappings for a model
# Class mappings define the relationship between class labels and indices
class_mapping = load_class_mapping("sl_beats_animalspeak")
if class_mapping:
    label_to_index = class_mapping["label_to_index"]
    index_to_label = class_mapping["index_to_label"]
    print(f"Loaded {len(label_to_index)} classes")
    print(f"Example: {label_to_index['dog']}")  # Get index for 'dog'
    print(f"Example: {index_to_label[0]}")  # Get label for index 0
"""

PLUGIN = """
from representation_learning.models.base_model import ModelBase
from representation_learning import register_model_class

@register_model_class
class MyCustomModel(ModelBase):
    name = "my_custom_model"

    def __init__(self, device: str, num_classes: int, **kwargs):
        super().__init__(device=device)
        # Your model implementation
        self.model = nn.Sequential(...)

    def forward(self, x, padding_mask=None):
        return self.model(x)

    def get_embedding_dim(self):
        return 512

# Now you can use it with build_model() if you also register a ModelSpec
# Or use it directly without registration: MyCustomModel(device="cpu", num_classes=10)
model = MyCustomModel(num_classes=10, device="cpu")
"""

MODEL_SPECS = """
from representation_learning.configs import ModelSpec, AudioConfig

# Basic configuration
model_spec = ModelSpec(
    name="efficientnet",
    pretrained=False,
    device="cuda",
    audio_config=AudioConfig(
        sample_rate=16000,
        representation="mel_spectrogram",
        n_mels=128
    )
)

# Model-specific parameters
model_spec = ModelSpec(
    name="beats",
    use_naturelm=True,
    fine_tuned=False,
    disable_layerdrop=False
)

# CLIP-specific parameters
model_spec = ModelSpec(
    name="clip",
    text_model_name="roberta-base",
    projection_dim=512,
    temperature=0.07
)

# EAT-specific parameters
model_spec = ModelSpec(
    name="eat_hf",
    model_id="worstchan/EAT-base_epoch30_pretrain",
    fairseq_weights_path="/path/to/weights.pt",
    eat_norm_mean=-4.268,
    eat_norm_std=4.569
)
"""

SAMPLE_RATE = """
from representation_learning import describe_model, get_model_spec

# Option 1: Use describe_model() for a formatted overview
describe_model("beats_naturelm", verbose=True)
# Prints:  Sample Rate: 16000 Hz

# Option 2: Access programmatically via get_model_spec()
spec = get_model_spec("beats_naturelm")
target_sr = spec.audio_config.sample_rate  # 16000
"""

RESAMPLING = """
import librosa
import torch
from representation_learning import get_model_spec, load_model

# Get the model's expected sample rate
spec = get_model_spec("beats_naturelm")
target_sr = spec.audio_config.sample_rate

# Load audio at original sample rate
audio, original_sr = librosa.load("audio.wav", sr=None)

# Resample if needed (use these exact parameters for reproducibility)
if original_sr != target_sr:
    audio = librosa.resample(
        audio,
        orig_sr=original_sr,
        target_sr=target_sr,
        res_type="kaiser_best",
        scale=True,
    )

# Convert to tensor and add batch dimension
audio_tensor = torch.from_numpy(audio).unsqueeze(0).float()  # Shape: (1, num_samples)

# Run inference
model = load_model("beats_naturelm", return_features_only=True, device="cpu")
with torch.no_grad():
    output = model(audio_tensor, padding_mask=None)
"""

AUDIO_CONFIG = """
from representation_learning.configs import AudioConfig

audio_config = AudioConfig(
    sample_rate=16000,
    n_fft=2048,
    hop_length=512,
    win_length=2048,
    window="hann",
    n_mels=128,
    representation="mel_spectrogram",  # or "spectrogram", "raw"
    normalize=True,
    target_length_seconds=10,
    window_selection="random",  # or "center"
    center=True
)
"""

TRAINING = """
import torch
import torch.nn as nn
import torch.optim as optim
from representation_learning import build_model

# Create a backbone for training (attach your own head or use a probe)
model = build_model("efficientnet", device="cpu")

# Define loss function and optimizer
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=0.001)

# Training loop
model.train()
for epoch in range(num_epochs):
    for batch_audio, batch_labels in train_loader:
        # Forward pass
        outputs = model(batch_audio, padding_mask=None)
        loss = criterion(outputs, batch_labels)

        # Backward pass and optimization
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    print(f"Epoch {epoch+1}/{num_epochs}, Loss: {loss.item():.4f}")

# Save checkpoint
torch.save(model.state_dict(), "checkpoints/my_model.pt")
"""

EVALUATION = """
import torch
from representation_learning import load_model

# Load pre-trained model with checkpoint
model = load_model("sl_beats_animalspeak", device="cpu")
model.eval()

# Run inference
with torch.no_grad():
    audio = torch.randn(1, 16000 * 5)  # 5 seconds of audio
    outputs = model(audio, padding_mask=None)
    predictions = torch.softmax(outputs, dim=-1)

    # If model has label mapping, get human-readable labels
    if hasattr(model, "label_mapping"):
        top_k = 5
        probs, indices = torch.topk(predictions, top_k)
        for prob, idx in zip(probs[0], indices[0]):
            label = model.label_mapping["index_to_label"][idx.item()]
            print(f"{label}: {prob.item():.4f}")
"""

FEATURES = """
# Load model for embedding extraction
model = load_model("beats_naturelm", return_features_only=True, device="cpu")
model.eval()

# Get unpooled features
audio = torch.randn(1, 16000 * 5)  # 5 seconds at 16kHz
features = model(audio, padding_mask=None)
# features.shape = (batch, time_steps, feature_dim)
"""

BEATS = """
model = load_model("beats_naturelm", return_features_only=True, device="cpu")
audio = torch.randn(1, 16000 * 5)  # 5 seconds at 16kHz
features = model(audio, padding_mask=None)
# features.shape = (1, ~31, 768)
# 31 frames  5 seconds * 6.25 Hz
# Each frame has 768-dimensional features representing 8 frequency bands
"""

BEATS_USE = """
# Option 1: Pool manually for classification
pooled = features.mean(dim=1)  # (batch, 768)

# Option 2: Use specific frequency band
band_0 = features[:, :, :96]  # First frequency band (assuming 96-dim per band)

# Option 3: Use for sequence modeling
# Features preserve temporal structure for RNNs, Transformers, etc.
"""

EAT = """
model = load_model("sl_eat_animalspeak_ssl_all", return_features_only=True, device="cpu")
audio = torch.randn(1, 16000 * 5)  # 5 seconds at 16kHz
features = model(audio, padding_mask=None)
# features.shape = (1, 513, 768)
# 513 patches = 1 CLS token + 512 spectrogram patches
"""

EAT_USE = """
# Option 1: Use CLS token (typically most informative)
cls_token = features[:, 0]  # (batch, 768)

# Option 2: Mean pooling over all patches
pooled = features.mean(dim=1)  # (batch, 768)

# Option 3: Exclude CLS token and pool
spatial_features = features[:, 1:]  # Exclude CLS token
pooled = spatial_features.mean(dim=1)  # (batch, 768)
"""

EFFICIENTNET = """
model = load_model("efficientnet", num_classes=10, return_features_only=True, device="cpu")
audio = torch.randn(1, 16000 * 5)  # 5 seconds at 16kHz
features = model(audio, padding_mask=None)
# features.shape = (1, 1280, 4, 5) for EfficientNet-B0
# 1280 channels, 4x5 spatial dimensions
"""

EFFICIENTNET_USE = """
# Option 1: Global average pooling
pooled = features.mean(dim=[2, 3])  # (batch, 1280)

# Option 2: Max pooling
pooled = features.amax(dim=[2, 3])  # (batch, 1280)

# Option 3: Flatten for spatial awareness
flattened = features.flatten(1)  # (batch, 1280*4*5)
"""

CUSTOM_MODEL = """
import torch
import torch.nn as nn
from representation_learning.models.base_model import ModelBase
from representation_learning import register_model_class

@register_model_class
class MyAudioCNN(ModelBase):
    name = "my_audio_cnn"

    def __init__(self, device: str, num_classes: int, **kwargs):
        super().__init__(device=device, **kwargs)

        self.model = nn.Sequential(
            nn.Conv1d(1, 32, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(32, 64, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            nn.Linear(64 * 25, 128),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(128, num_classes)
        )

        self.to(device)

    def forward(self, x, padding_mask=None):
        return self.model(x)

    def get_embedding_dim(self):
        return 128

# Use the custom model
model = MyAudioCNN(device="cpu", num_classes=10)
"""

CUSTOM_CONFIG = """
from representation_learning import load_model, get_checkpoint_path

# Load model from custom YAML file
model = load_model("path/to/my_model.yml")

# Or for official models, checkpoint paths are read automatically from YAML
checkpoint = get_checkpoint_path("efficientnet_animalspeak")
print(f"Default checkpoint: {checkpoint}")

# Load with default checkpoint (from YAML)
# num_classes=None automatically extracts num_classes from checkpoint
model = load_model("efficientnet_animalspeak")  # Uses YAML checkpoint + extracts num_classes

# Load with custom checkpoint (overrides YAML default)
# Priority: user-provided checkpoint_path > YAML default > no checkpoint
model = load_model("efficientnet_animalspeak", checkpoint_path="gs://my-custom-checkpoint.pt")

# Load for different number of classes
# When num_classes is explicitly provided, a new classifier is created
# (checkpoint classifier weights are NOT loaded - randomly initialized)
model = load_model("efficientnet_animalspeak", num_classes=50)  # New classifier with 50 classes
"""

MINIMAL_YAML = """
# Example: my_model.yml - Minimal configuration for model loading
model_spec:
  name: efficientnet
  pretrained: false
  device: cuda
  audio_config:
    sample_rate: 16000
    representation: mel_spectrogram
    n_mels: 128
  efficientnet_variant: b0
"""

FULL_YAML = """
# Example: efficientnet_animalspeak.yml - Complete configuration
# Optional: Default checkpoint path
checkpoint_path: gs://my-bucket/models/efficientnet_animalspeak.pt

# Optional: Label mapping for human-readable predictions
class_mapping_path: gs://my-bucket/models/label_map.json

# Required: Model specification
model_spec:
  name: efficientnet
  pretrained: false
  device: cuda
  audio_config:
    sample_rate: 16000
    representation: mel_spectrogram
    n_mels: 128
    target_length_seconds: 10
  efficientnet_variant: b0
"""

MY_MODEL_YAML = """
# my_model.yml - Custom model configuration
# Optional: Default checkpoint path (can be local or cloud storage)
checkpoint_path: gs://my-bucket/models/my_model.pt

# Optional: Path to label mapping JSON file
class_mapping_path: gs://my-bucket/models/my_model_labels.json

# Required: Model specification
model_spec:
  name: efficientnet  # Model architecture type
  pretrained: false
  device: cuda
  audio_config:
    sample_rate: 16000
    representation: mel_spectrogram
    n_mels: 128
    target_length_seconds: 10
    window_selection: random
  # Model-specific parameters
  efficientnet_variant: b0
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    seed.write_weights(folder)
    return folder


@pytest.fixture(autouse=True)
def models(weights, tmp_path, monkeypatch, clean_registry):
    """The document's models, in a working directory of its own; classes that a block registers go again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVEX_CACHE", str(tmp_path / "cache"))
    with seed.registered(weights):
        yield


def tone(seconds=1.0, rate=16000, hertz=1000.0):
    return 0.1 * torch.sin(2 * torch.pi * hertz / rate * torch.arange(round(seconds * rate)))[None]


def same_outputs(one, other, x=None):
    x = tone() if x is None else x
    with torch.no_grad():
        return torch.allclose(one(x), other(x), atol=1e-5)


# -- loading -----------------------------------------------------------------------------------------------


def test_basic_usage(capsys):
    names = seed.run(BASIC_USAGE)
    shown = capsys.readouterr().out
    assert re.search(r"^beats_naturelm +BEATs, .* No\b", shown, re.MULTILINE)
    assert re.search(r"^sl_beats_animalspeak +BEATs, .* Yes", shown, re.MULTILINE)
    assert "16000 Hz" in shown
    assert names["models"]["beats_naturelm"]["has_trained_classifier"] is False
    assert names["model"](tone()).shape == (1, 48, 768)


def test_a_new_task_gets_a_new_classifier():
    model = avex.load_model("beats_naturelm", num_classes=10, device="cpu")
    assert model(tone()).shape == (1, 10)
    assert set(model.load_report.reset) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(model.embed(tone()), seed.build("beats").embed(tone()))


def test_probes():
    names = seed.run(PROBES)
    logits = names["probe"](tone())
    assert logits.shape == (1, 10)
    logits.sum().backward()
    assert all(parameter.grad is None for parameter in names["base"].parameters())


def test_load_model(weights):
    # The checkpoint in the bucket: EfficientNet with a classifier. The YAML file: the document's own, minimal.
    seed.put_in_cache("gs://my-bucket/checkpoint.pt", weights / "efficientnet.safetensors")
    Path("experiments").mkdir()
    Path("experiments/my_model.yml").write_text(MINIMAL_YAML)
    cuda = torch.cuda.is_available()
    if not cuda:
        with pytest.raises(ConfigError, match="'cuda' was asked for"):
            avex.load_model("efficientnet", num_classes=50, device="cuda", efficientnet_variant="b1")
    names = seed.run(LOAD_MODEL if cuda else LOAD_MODEL.replace('device="cuda"', 'device="cpu"'))
    assert names["model"](tone().to(names["model"].device)).shape == (1, 50)
    assert names["model"].efficientnet_variant == "b1"


def test_what_each_line_of_load_model_gives(weights):
    seed.put_in_cache("gs://my-bucket/checkpoint.pt", weights / "efficientnet.safetensors")
    fresh = avex.load_model("efficientnet", num_classes=100)
    assert fresh(tone()).shape == (1, 100)
    given = avex.load_model("efficientnet", checkpoint_path="gs://my-bucket/checkpoint.pt")
    assert torch.equal(given.classifier.weight, seed.build("efficientnet").classifier.weight)
    default = avex.load_model("efficientnet_animalspeak")
    assert same_outputs(default, seed.build("efficientnet"))
    assert default.label_mapping["index_to_label"][1] == "dog"
    # "Returns embeddings, not logits": 1 s is 6 steps of 8 bands.
    assert avex.load_model("beats")(tone()).shape == (1, 48, 768)


def test_pretrained(caplog):
    names = seed.run(PRETRAINED, load_model=avex.load_model)
    assert names["model"].load_report.loaded
    beats = avex.load_model("beats", pretrained=True)
    assert torch.equal(beats.embed(tone()), seed.build("beats").embed(tone()))
    assert "random" not in caplog.text


def test_class_mapping_path_and_checkpoint_of_a_file_of_ones_own(weights, capsys):
    seed.put_in_cache("gs://my-bucket/models/my_model.pt", weights / "efficientnet.safetensors")
    seed.put_in_cache("gs://my-bucket/models/my_model_labels.json", weights / "labels.json")
    seed.put_in_cache("gs://my-custom-checkpoint.pt", weights / "efficientnet.safetensors")
    Path("path/to").mkdir(parents=True)
    Path("path/to/my_model.yml").write_text(MY_MODEL_YAML)
    names = seed.run(CUSTOM_CONFIG)
    assert f"Default checkpoint: {weights / 'efficientnet.safetensors'}" in capsys.readouterr().out
    assert names["model"](tone()).shape == (1, 50)
    mine = avex.load_model("path/to/my_model.yml")
    assert mine.label_mapping.labels == tuple(seed.LABELS)
    assert mine.window_seconds == 10
    assert mine.audio_config.n_fft == AudioConfig().n_fft


def test_the_full_configuration_loads(weights):
    seed.put_in_cache(
        "gs://my-bucket/models/efficientnet_animalspeak.pt", weights / "efficientnet.safetensors"
    )
    seed.put_in_cache("gs://my-bucket/models/label_map.json", weights / "labels.json")
    Path("full.yml").write_text(FULL_YAML)
    assert avex.load_model("full.yml").label_mapping.labels == tuple(seed.LABELS)


# -- building and registering --------------------------------------------------------------------------------


def test_build_model():
    names = seed.run(BUILD_MODEL)
    assert type(names["model"]) is names["MyCustomModel"]
    assert names["model"].device == torch.device("cpu")
    assert "my_custom_model" in avex.list_model_classes()


def test_registry(capsys):
    names = seed.run(REGISTRY)
    shown = capsys.readouterr().out
    assert avex.get_model_spec("my_model").audio_config.sample_rate == 16000
    assert "my_model" in names["models"]
    assert names["model_info"]["_metadata"]["has_trained_classifier"] is False
    # "Prints formatted output showing: Model type and device"
    assert re.search(r"^Architecture +beats$\nDevice +cuda, else the CPU$", shown, re.MULTILINE)
    assert names["model_info"]["audio_config"]["sample_rate"] == 16000
    assert shown.rstrip().endswith("Model is available")
    assert avex.get_model_spec("efficientnett") is None


def test_model_classes(capsys):
    # The block takes ModelBase for granted.
    names = seed.run(MODEL_CLASSES, ModelBase=ModelBase)
    assert names["model_class"] is names["MyModel"]
    listed = capsys.readouterr().out
    assert {"'beats'", "'my_model'"} <= set(re.findall("'[^']*'", listed))


def test_checkpoints(weights, capsys):
    seed.put_in_cache("gs://my-custom-checkpoint.pt", weights / "efficientnet.safetensors")
    names = seed.run(CHECKPOINTS)
    assert capsys.readouterr().out == f"Default checkpoint: {weights / 'efficientnet.safetensors'}\n"
    assert same_outputs(names["model"], seed.build("efficientnet"))


def test_class_mapping(capsys):
    seed.run(CLASS_MAPPING)
    dog = seed.LABELS.index("dog")
    assert capsys.readouterr().out == f"Loaded 7 classes\nExample: {dog}\nExample: {seed.LABELS[0]}\n"


def test_plugin():
    with pytest.raises(TypeError, match="ellipsis"):  # as printed, the network is left out
        seed.run(PLUGIN, nn=nn)
    names = seed.run(PLUGIN.replace("nn.Sequential(...)", "nn.Sequential(nn.Linear(8, num_classes))"), nn=nn)
    assert names["model"](torch.zeros(3, 8)).shape == (3, 10)
    assert names["model"].get_embedding_dim() == 512


def test_custom_model():
    names = seed.run(CUSTOM_MODEL)
    model = names["model"]
    # Conv1d wants a channel axis, and Linear(64 * 25) wants 100 samples.
    assert model(torch.zeros(2, 1, 100)).shape == (2, 10)
    assert model.embedding_dim == 128
    assert avex.get_model_class("my_audio_cnn") is type(model)


# -- configuration -------------------------------------------------------------------------------------------


def test_model_specs():
    names = seed.run(MODEL_SPECS)
    assert names["model_spec"] == ModelSpec(
        name="eat_hf",
        model_id="worstchan/EAT-base_epoch30_pretrain",
        fairseq_weights_path="/path/to/weights.pt",
        eat_norm_mean=-4.268,
        eat_norm_std=4.569,
    )
    assert names["ModelSpec"] is ModelSpec


def test_audio_config():
    config = seed.run(AUDIO_CONFIG)["audio_config"]
    assert (config.win_length, config.window, config.window_selection, config.center) == (
        2048,
        "hann",
        "random",
        True,
    )


def test_sample_rate(capsys):
    assert seed.run(SAMPLE_RATE)["target_sr"] == 16000
    assert re.search(r"Sample rate +16000 Hz", capsys.readouterr().out)


@pytest.fixture(params=["real", "stub"])
def librosa(request, monkeypatch):
    """librosa where it is installed, and what the block uses of it."""
    if request.param == "real":
        if not (available("librosa") and available("resampy")):
            pytest.skip("needs librosa and resampy")
        return

    stub = types.ModuleType("librosa")
    stub.load = lambda path, sr=None: soundfile.read(path, dtype="float32")

    def resample_like_librosa(y, *, orig_sr, target_sr, res_type, scale):
        assert (res_type, scale) == ("kaiser_best", True)
        return audio.resample(y, orig_sr, target_sr, method="kaiser_best")

    stub.resample = resample_like_librosa
    monkeypatch.setitem(sys.modules, "librosa", stub)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what librosa imports
@pytest.mark.usefixtures("librosa")
def test_resampling(wav):
    path = wav("audio.wav", seconds=2, sample_rate=44100)
    names = seed.run(RESAMPLING)
    assert names["original_sr"] == 44100
    assert names["audio_tensor"].shape == (1, 32000)
    # 2 s: 198 frames, 12 steps of 16, 8 bands.
    assert names["output"].shape == (1, 96, 768)
    ours, rate = audio.read(path, sample_rate=16000, resampler="kaiser_best")
    assert rate == 16000
    np.testing.assert_allclose(names["audio_tensor"][0], ours, atol=1e-5)


# -- training and evaluation ---------------------------------------------------------------------------------


def test_training(capsys):
    """As printed, `build_model` makes a backbone: its output is a map, so a label belongs to each cell of it."""
    Path("checkpoints").mkdir()
    torch.manual_seed(0)
    batches = [
        (tone(hertz=hertz), torch.full((1, 4, 1), index)) for index, hertz in enumerate((500.0, 3000.0))
    ]
    names = seed.run(TRAINING, num_epochs=2, train_loader=batches)
    shown = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"^Epoch \d/2, Loss: (\d+\.\d{4})$", shown, re.MULTILINE)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert names["outputs"].shape == (1, 1280, 4, 1)
    saved = torch.load("checkpoints/my_model.pt", weights_only=True)
    again = avex.load_model(
        "efficientnet", checkpoint_path="checkpoints/my_model.pt", return_features_only=True
    )
    assert all(torch.equal(saved[name], value) for name, value in again.state_dict().items())


def test_the_recommended_pattern_of_training():
    """Build a backbone via `build_model` and attach a probe head, says the document: the classifier learns two tones."""
    from representation_learning.api import build_probe_from_config_offline
    from representation_learning.configs import ProbeConfig

    torch.manual_seed(0)
    backbone = avex.build_model("beats", device="cpu", init_config=seed.BEATS).eval()
    with torch.no_grad():
        embeddings = backbone.embed(torch.cat([tone(hertz=500.0), tone(hertz=3000.0)]))
    config = ProbeConfig(
        probe_type="linear", target_layers=["backbone"], aggregation="mean", online_training=False
    )
    probe = build_probe_from_config_offline(probe_config=config, input_dim=768, num_classes=2, device="cpu")
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(probe(embeddings), torch.tensor([0, 1]))
        loss.backward()
        optimizer.step()
    assert loss < 0.3
    assert probe(embeddings).argmax(1).tolist() == [0, 1]


def test_evaluation(capsys):
    names = seed.run(EVALUATION)
    lines = capsys.readouterr().out.splitlines()
    found = [re.fullmatch(r"(.+): (0\.\d{4})", line).groups() for line in lines]
    assert len(found) == 5
    assert len({label for label, _ in found} & set(seed.LABELS)) == 5
    assert [float(p) for _, p in found] == sorted((float(p) for _, p in found), reverse=True)
    with torch.no_grad():
        torch.testing.assert_close(names["outputs"], seed.build("sl_beats")(names["audio"]))


@pytest.mark.parametrize("options", ["num_classes=10", "checkpoint_path='other.safetensors'"])
def test_evaluation_of_a_model_without_labels(options, weights, capsys):
    """The document asks `hasattr(model, "label_mapping")`; the block prints labels where there are any."""
    state = {**seed.build("beats").state_dict()}
    state |= {"classifier.weight": torch.zeros(10, 768), "classifier.bias": torch.zeros(10)}
    save_file(state, "other.safetensors")
    names = seed.run(EVALUATION.replace('device="cpu"', f'device="cpu", {options}'))
    assert names["outputs"].shape == (1, 10)
    assert capsys.readouterr().out == ""


# -- features ------------------------------------------------------------------------------------------------


@pytest.fixture
def imported():
    """What these blocks take for granted."""
    from representation_learning import load_model

    return {"load_model": load_model, "torch": torch}


def test_beats_features(imported):
    assert seed.run(FEATURES, **imported)["features"].shape == (1, 248, 768)
    names = seed.run(BEATS, **imported)
    model, features = names["model"], names["features"]
    # The document says both "8 embeddings per time step" and "(1, ~31, 768)": 31 steps of 8 bands are 248 tokens.
    assert features.shape == (1, 248, 768)
    assert model.frame_rate == 6.25
    steps = model.forward_features(names["audio"])
    assert steps.sequence().shape == (1, 31, 8 * 768)
    assert steps.frame_times()[1] == pytest.approx(0.16)
    used = seed.run(BEATS_USE, **names)
    torch.testing.assert_close(used["pooled"], model.embed(names["audio"]))
    # Its "band 0" are the first 96 of 768 channels; the first band are every eighth token.
    assert used["band_0"].shape == (1, 248, 96)
    assert torch.equal(features.reshape(1, 31, 8, 768)[:, :, 0], features[:, ::8])


def test_eat_features(imported):
    names = seed.run(EAT, **imported)
    assert names["features"].shape == (1, 513, 768)
    used = seed.run(EAT_USE, **names)
    assert used["cls_token"].shape == (1, 768)
    features = names["model"].forward_features(names["audio"])
    torch.testing.assert_close(used["cls_token"], features.pooled("cls_token"))
    torch.testing.assert_close(used["pooled"], features.pooled("mean"))


def test_efficientnet_features(imported):
    names = seed.run(EFFICIENTNET, **imported)
    assert names["features"].shape == (1, 1280, 4, 5)
    used = seed.run(EFFICIENTNET_USE, **names)
    assert used["flattened"].shape == (1, 1280 * 4 * 5)
    features = names["model"].forward_features(names["audio"])
    torch.testing.assert_close(used["pooled"], features.pooled("max"))
