"""Every Python block of the documentation of probes (`api_probes.md`), as printed.

The document's models are small ones under its names. Its printed numbers of parameters (7680, 395264, 66560) follow
from no architecture; what is asserted instead is arithmetic.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

from avex.models.beats.model import Beats
from avex.models.probes import Probe, build_probe_from_config
from avex.models.probes.utils import registry

_SPEC = importlib.util.spec_from_file_location("seed_cards", Path(__file__).with_name("seed_cards.py"))
seed = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(seed)

BEGIN = """
from avex import load_model
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
cfg = ProbeConfig(
    probe_type="linear",
    target_layers=["last_layer"],
    aggregation="mean",
    freeze_backbone=True,
    online_training=True,
)
probe = build_probe_from_config(cfg, base_model=base, num_classes=50, device="cpu")
"""

ONLINE = """
from avex import load_model
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
# 1. Load a backbone model that returns features
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
# 2. Define a simple linear probe on the backbone features
probe_config = ProbeConfig(
    probe_type="linear",
    target_layers=["backbone"], # use final backbone layer
    aggregation="mean", # mean-pool over time
    freeze_backbone=True, # keep backbone frozen
    online_training=True, # end-to-end graph (even if backbone is frozen)
)
# 3. Build the probe
probe = build_probe_from_config(
    probe_config=probe_config,
    base_model=base,
    num_classes=50,
    device="cpu",
)
"""

OFFLINE = """
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
# For pre-computed embeddings (no base model needed)
probe_config = ProbeConfig(
    probe_type="linear",
    target_layers=["backbone"], # conceptual; not used when base_model=None
    aggregation="none",
    freeze_backbone=True,
    online_training=False,
)
probe = build_probe_from_config(
    probe_config=probe_config,
    input_dim=768, # embedding dimension
    num_classes=50,
    device="cpu",
)
# Use with embeddings
# For inference, set the probe to eval mode and use torch.no_grad()
probe.eval()
with torch.no_grad():
    predictions = probe(embeddings) # embeddings shape: (batch, 768)
"""

CONFIG = """
from avex.configs import ProbeConfig
probe_config = ProbeConfig(
    probe_type="linear",
    target_layers=["backbone"],
    aggregation="mean",
    freeze_backbone=True,
    online_training=True,
)
"""

YAML = """
# my_linear_probe.yml
probe_type: linear
target_layers: ["backbone"]
aggregation: mean
freeze_backbone: true
online_training: true
"""

FROM_YAML = """
from avex.models.probes.utils import (
    load_probe_config,
    build_probe_from_config,
)
from avex import load_model
config = load_probe_config("my_linear_probe.yml")
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
probe = build_probe_from_config(config, base_model=base, num_classes=50, device="cpu")
"""

SIGNATURE = """
from typing import Optional
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
def build_probe_from_config(
    probe_config: ProbeConfig,
    num_classes: int,
    device: str,
    base_model: Optional[torch.nn.Module] = None,
    input_dim: Optional[int] = None,
    target_length: Optional[int] = None,
    **kwargs,
) -> torch.nn.Module:
    ...
"""

LOAD_CONFIG = """
from avex.models.probes.utils import load_probe_config
config = load_probe_config("my_probe.yml")
"""

COMPARE = """
from avex import load_model
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
probe_types = [
    ("linear", {"aggregation": "mean"}),
    ("mlp", {"aggregation": "mean", "hidden_dims": [512, 256]}),
    ("attention", {"input_processing": "sequence", "num_heads": 4, "attention_dim": 128}),
]
for probe_type, extra_cfg in probe_types:
    cfg = ProbeConfig(
        probe_type=probe_type,
        target_layers=["backbone"],
        freeze_backbone=True,
        online_training=True,
        **extra_cfg,
    )
    probe = build_probe_from_config(
        probe_config=cfg,
        base_model=base,
        num_classes=10,
        device="cpu",
    )
    print(probe_type, "parameters:", sum(p.numel() for p in probe.parameters()))
"""

CUSTOM_YAML = """
# custom_probe.yml
probe_type: mlp
target_layers: ["backbone"]
aggregation: mean
hidden_dims: [1024, 512]
"""

CUSTOM = """
from avex.models.probes.utils import (
    build_probe_from_config,
    load_probe_config,
)
from avex import load_model
config = load_probe_config("custom_probe.yml")
base = load_model("esp_aves2_naturelm_audio_v1_beats", return_features_only=True, device="cpu")
probe = build_probe_from_config(config, base_model=base, num_classes=50, device="cpu")
"""

PROGRAMMATIC = """
from avex.configs import ProbeConfig
from avex.models.probes.utils import build_probe_from_config
# Create config programmatically
config = ProbeConfig(
    probe_type="attention",
    target_layers=["layer_12"],
    aggregation="none",
    input_processing="sequence",
    num_heads=8,
    attention_dim=64,
    num_layers=1,
)
# Use it
probe = build_probe_from_config(config, base_model=my_model, num_classes=50, device="cpu")
"""

SELF_TEST = """
from avex.models.probes import build_probe_from_config
from avex.configs import ProbeConfig
import torch
# Test offline mode (works independently)
cfg = ProbeConfig(
    probe_type="linear",
    target_layers=["backbone"],
    aggregation="none",
    freeze_backbone=True,
    online_training=False,
)
probe = build_probe_from_config(
    cfg,
    input_dim=768,
    num_classes=10,
    device="cpu",
)
# Test forward pass (inference mode)
probe.eval()
with torch.no_grad():
    dummy_embeddings = torch.randn(2, 768)
    output = probe(dummy_embeddings)
    print(f"Output shape: {output.shape}") # Should be (2, 10)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    seed.write_weights(folder)
    with seed.registered(folder):
        yield


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_linear(probe):
    assert isinstance(probe, Probe)
    assert sum(p.numel() for p in probe.parameters()) == 768 * 50 + 50
    assert probe(0.1 * torch.randn(2, 16000)).shape == (2, 50)
    assert not probe.train().base_model.training


@pytest.mark.parametrize("block", [BEGIN, ONLINE])
def test_a_linear_probe_on_the_last_layer(models, block):
    assert_linear(seed.run(block)["probe"])


def test_a_probe_on_stored_embeddings():
    names = seed.run(OFFLINE, torch=torch, embeddings=torch.randn(4, 768))
    assert names["predictions"].shape == (4, 50)
    assert not names["predictions"].requires_grad


def test_a_config_in_python_and_in_yaml(models, in_a_folder):
    (in_a_folder / "my_linear_probe.yml").write_text(YAML, encoding="utf-8")
    names = seed.run(FROM_YAML)
    assert names["config"] == seed.run(CONFIG)["probe_config"]
    assert_linear(names["probe"])


def test_the_signature_is_that_of_the_document():
    stated = inspect.signature(seed.run(SIGNATURE, torch=torch)["build_probe_from_config"])
    actual = inspect.signature(build_probe_from_config)
    assert list(actual.parameters) == list(stated.parameters)
    for name, parameter in stated.parameters.items():
        assert actual.parameters[name].kind == parameter.kind
        if parameter.default is not parameter.empty:
            assert actual.parameters[name].default == parameter.default


@pytest.mark.parametrize("nested", [True, False])
def test_configs_are_found_at_the_top_or_nested(in_a_folder, nested):
    text = (
        YAML
        if not nested
        else "probe_config:\n" + YAML.strip().replace("\n", "\n  ").replace("# my", "  # my")
    )
    (in_a_folder / "my_probe.yml").write_text(text, encoding="utf-8")
    assert seed.run(LOAD_CONFIG)["config"] == seed.run(CONFIG)["probe_config"]


def test_types_side_by_side(models, capsys):
    seed.run(COMPARE)
    dim, classes = 768, 10
    linear = dim * classes + classes
    mlp = dim * 512 + 512 + 512 * 256 + 256 + 256 * classes + classes
    attention = 3 * dim * dim + 3 * dim + dim * dim + dim + 2 * dim + linear
    assert capsys.readouterr().out.splitlines() == [
        f"linear parameters: {linear}",
        f"mlp parameters: {mlp}",
        f"attention parameters: {attention}",
    ]
    assert (linear, mlp, attention) == (7_690, 527_626, 2_371_594)


def test_a_custom_config(models, in_a_folder):
    (in_a_folder / "custom_probe.yml").write_text(CUSTOM_YAML, encoding="utf-8")
    probe = seed.run(CUSTOM)["probe"]
    assert [layer.out_features for layer in probe.mlp if hasattr(layer, "out_features")] == [1024, 512, 50]


def test_a_config_on_a_model_of_ones_own():
    sizes = {**seed.BEATS, "encoder_layers": 12, "encoder_embed_dim": 64, "encoder_attention_heads": 4}
    model = Beats(init_config=sizes, return_features_only=True).eval()
    probe = seed.run(PROGRAMMATIC, my_model=model)["probe"].eval()
    assert probe.layers == ["backbone.encoder.layers.11"], "layer_12 is the output of the twelfth block"
    assert probe(0.1 * torch.randn(2, 16000)).shape == (2, 50)


def test_the_documents_own_test(capsys):
    assert seed.run(SELF_TEST)["output"].shape == (2, 10)
    assert capsys.readouterr().out == "Output shape: torch.Size([2, 10])\n"


def test_the_parts_that_the_document_names():
    import avex.models.probes.utils.factory as factory

    assert factory.build_probe_from_config is build_probe_from_config
    for name in ("linear", "mlp", "lstm", "attention", "transformer"):
        assert issubclass(registry._PROBE_CLASSES[name], Probe)
    assert [registry.get_probe_class(name).__name__ for name in ("linear", "mlp")] == [
        "LinearProbe",
        "MLPProbe",
    ]
