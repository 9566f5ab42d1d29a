"""`ProbeConfig`: what may be said, what follows, and what contradicts itself."""

import pytest
from pydantic import ValidationError

from avex._core.errors import ConfigError, UnknownNameError
from avex.configs import PROBE_CONFIGS, ProbeConfig
from avex.configs.probe import reads_sequences
from avex.io import MissingFileError
from avex.models.probes.utils import (
    get_probe_class,
    list_probe_classes,
    load_probe_config,
    register_probe_class,
)
from avex.models.probes.utils.registry import _PROBE_CLASSES

LAYERS = {"target_layers": ["last_layer"]}
ENOUGH = {
    "linear": {},
    "mlp": {"hidden_dims": [8]},
    "lstm": {"lstm_hidden_size": 8, "num_layers": 1},
    "attention": {"num_heads": 2, "attention_dim": 8},
    "transformer": {"num_heads": 2, "attention_dim": 8, "num_layers": 1},
    "attention_pooling": {},
    "prototype": {},
    "knn": {},
}


def test_defaults_are_those_of_the_published_package():
    config = ProbeConfig(**LAYERS)
    assert config.model_dump(exclude_none=True) == {
        "probe_type": "linear",
        "target_layers": ["last_layer"],
        "aggregation": "mean",
        "input_processing": "pooled",
        "freeze_backbone": True,
        "dropout_rate": 0.1,
        "activation": "relu",
        "bidirectional": False,
        "use_positional_encoding": False,
    }


@pytest.mark.parametrize("probe_type", ENOUGH)
def test_every_type_has_a_class_and_survives_a_round_trip(probe_type):
    config = ProbeConfig(probe_type=probe_type, **LAYERS, **ENOUGH[probe_type])
    assert ProbeConfig(**config.model_dump()) == config
    assert ProbeConfig.model_validate_json(config.model_dump_json()) == config
    cls = get_probe_class(probe_type)
    assert cls.probe_type == probe_type
    assert (cls.kind == "sequence") == config.reads_sequences == reads_sequences(probe_type)
    assert config.input_processing == ("sequence" if config.reads_sequences else "pooled")
    assert config.aggregation == ("none" if config.reads_sequences else "mean")


def test_sequence_implies_no_pooling_and_attention_has_one_layer():
    config = ProbeConfig(
        probe_type="attention", input_processing="sequence", num_heads=4, attention_dim=128, **LAYERS
    )
    assert config.aggregation == "none"
    assert config.num_layers == 1


@pytest.mark.parametrize("name", ["linear", "mlp", "lstm", "attention", "transformer"])
def test_weighted_names_are_aliases(name):
    config = ProbeConfig(probe_type=f"weighted_{name}", **LAYERS, **ENOUGH[name])
    assert config == ProbeConfig(probe_type=name, aggregation="none", **LAYERS, **ENOUGH[name])
    with pytest.raises(ValidationError, match="Leave the aggregation out"):
        ProbeConfig(probe_type=f"weighted_{name}", aggregation="mean", **LAYERS, **ENOUGH[name])


@pytest.mark.parametrize("name", ["attention_minimal", "weighted_attention_minimal"])
def test_minimal_attention_is_attention_pooling(name):
    config = ProbeConfig(probe_type=name, num_heads=4, input_processing="sequence", **LAYERS)
    assert config == ProbeConfig(probe_type="attention_pooling", num_heads=4, **LAYERS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe_type": "atention"}, "Did you mean 'attention'"),
        ({"probe_type": "mlp"}, r"needs hidden_dims. For instance: hidden_dims=\[512, 256\]"),
        ({"probe_type": "mlp", "hidden_dims": []}, "hidden_dims"),
        ({"probe_type": "mlp", "hidden_dims": [8, 0]}, "hidden_dims"),
        ({"probe_type": "lstm"}, "needs lstm_hidden_size, num_layers"),
        ({"probe_type": "attention", "num_heads": 4}, "needs attention_dim"),
        ({"probe_type": "transformer", "num_heads": 4, "attention_dim": 8}, "needs num_layers"),
        ({"input_processing": "sequence"}, "Set input_processing='pooled'"),
        ({"input_processing": "flatten", "aggregation": "mean"}, "nothing left to flatten"),
        (
            {"probe_type": "attention", "aggregation": "mean", "num_heads": 4, "attention_dim": 8},
            "Set aggregation='none'",
        ),
        (
            {"probe_type": "attention_pooling", "input_processing": "pooled"},
            "Set input_processing='sequence'",
        ),
        ({"freeze_backbone": False, "online_training": False}, "online_training=True"),
        ({"target_layers": []}, "at least 1"),
        ({"target_layers": [True]}, "target_layers"),
        ({"target_layers": "last_layer"}, "list"),
        ({"dropout_rate": 1.5}, "less than or equal to 1"),
        ({"activation": "sine"}, "activation"),
        ({"num_heads": 0}, "greater than 0"),
        ({"aggregation": "median"}, "aggregation"),
        ({"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_contradictions_say_what_to_change(changes, message):
    with pytest.raises(ValidationError, match=message):
        ProbeConfig(**{**LAYERS, **changes})


def test_layers_are_required():
    with pytest.raises(ValidationError, match="target_layers"):
        ProbeConfig(probe_type="linear")


def test_a_config_is_a_value():
    config = ProbeConfig(**LAYERS)
    with pytest.raises(ValidationError, match="frozen"):
        config.aggregation = "max"


@pytest.mark.parametrize(
    ("changes", "online"),
    [
        ({"online_training": True}, True),
        ({"online_training": False, "aggregation": "none"}, False),
        ({"freeze_backbone": False}, True),
        ({"aggregation": "mean"}, False),
        ({"aggregation": "max"}, False),
        ({"aggregation": "cls_token"}, False),
        ({"aggregation": "none"}, True),
        ({"probe_type": "lstm", **ENOUGH["lstm"]}, True),
    ],
)
def test_training_mode(changes, online):
    assert ProbeConfig(**LAYERS, **changes).get_training_mode() is online


def test_ready_made_configs():
    assert set(PROBE_CONFIGS) == {
        "simple_linear",
        "mlp_probe",
        "sequence_lstm",
        "attention_probe",
        "transformer_probe",
    }
    assert PROBE_CONFIGS["transformer_probe"].target_layers == ["layer_6", "layer_8", "layer_10", "layer_12"]


@pytest.mark.parametrize("nested", [True, False])
def test_configs_from_yaml(tmp_path, nested):
    text = 'probe_type: linear\ntarget_layers: ["backbone"]\naggregation: mean\n'
    if nested:
        text = "probe_config:\n" + "".join(f"  {line}\n" for line in text.splitlines())
    path = tmp_path / "probe.yml"
    path.write_text(text, encoding="utf-8")
    assert load_probe_config(path) == ProbeConfig(target_layers=["backbone"])


def test_files_that_are_no_configs(tmp_path):
    with pytest.raises(MissingFileError, match="nowhere"):
        load_probe_config(tmp_path / "nowhere.yml")
    with pytest.raises(FileNotFoundError):
        load_probe_config(tmp_path / "nowhere.yml")
    path = tmp_path / "probe.yml"
    for text, message in [
        ("- a\n", "mapping"),
        ("probe_config: 3\n", "must hold the fields"),
        ("probe_type: mlp\ntarget_layers: [a]\n", "needs hidden_dims"),
        ("target_layers: [a]\ncolour: red\n", "colour: Extra"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            load_probe_config(path)


def test_the_registry_suggests():
    assert "linear" in list_probe_classes()
    with pytest.raises(UnknownNameError, match="Did you mean 'linear'"):
        get_probe_class("lineer")
    with pytest.raises(ConfigError, match="another name"):
        register_probe_class("linear")(get_probe_class("mlp"))
    with pytest.raises(ConfigError, match="derives from"):
        register_probe_class("mine")(dict)
    assert "mine" not in _PROBE_CLASSES
