"""Probes as files: what is in them, what they refuse."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from avex._core.errors import ConfigError, WeightsError
from avex.configs import ProbeConfig
from avex.models.probes import build_probe_from_config, load_probe, save_probe
from avex.testing import tiny_model
from avex.weights.fingerprint import weights_identity

TYPES = {
    "linear": {},
    "mlp": {"hidden_dims": [4], "activation": "swish"},
    "lstm": {"lstm_hidden_size": 4, "num_layers": 1, "use_positional_encoding": True},
    "attention": {"num_heads": 2, "attention_dim": 4, "use_positional_encoding": True},
    "transformer": {"num_heads": 2, "attention_dim": 4, "num_layers": 1},
    "attention_pooling": {"num_heads": 2},
    "prototype": {"temperature": 0.3},
    "knn": {"knn_neighbors": 2, "knn_weighting": "uniform"},
}


def build(probe_type="linear", base=None, layers=("last_layer",), **fields):
    torch.manual_seed(0)
    config = ProbeConfig(probe_type=probe_type, target_layers=list(layers), **{**TYPES[probe_type], **fields})
    where = {"input_dim": 8} if base is None else {"base_model": base}
    probe = build_probe_from_config(config, 3, "cpu", **where).eval()
    if probe_type in ("prototype", "knn"):
        probe.fit(torch.randn(6, probe.inputs.dim), [0, 1, 2, 0, 1, 2])
    return probe


def header(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["avex_probe"]), set(file.keys())


@pytest.mark.parametrize("probe_type", TYPES)
def test_every_type_survives_the_round_trip(tmp_path, probe_type):
    probe = build(probe_type)
    probe.set_standardisation(torch.randn(8), torch.rand(8))
    path = tmp_path / "probe.safetensors"
    labels = ["a", "b", "c"]
    save_probe(probe, path, labels=labels, card="beats", weights="0" * 64, metadata={"window_s": 3.0})
    loaded = load_probe(path)
    x = torch.randn(4, 5, 8)
    assert torch.equal(loaded(x), probe(x))
    assert not loaded.training
    assert loaded.config == probe.config
    assert loaded.labels == ("a", "b", "c")
    assert (loaded.info.card, loaded.info.weights) == ("beats", "0" * 64)
    assert loaded.info.metadata == {"window_s": 3.0}
    # What a probe knows it keeps, also when it is written again.
    save_probe(loaded, path, metadata={"accuracy": 0.9})
    assert load_probe(path).info.metadata == {"window_s": 3.0, "accuracy": 0.9}
    assert load_probe(path).labels == loaded.labels


def test_head_and_identity_are_stored_and_the_frozen_backbone_is_not(tmp_path):
    base = tiny_model("beats", num_classes=None)
    probe = build("linear", base, ["all"], aggregation="none")
    path = tmp_path / "probe.safetensors"
    save_probe(probe, path)
    stored, names = header(path)
    assert names == {"layer_weights", "classifier.weight", "classifier.bias"}
    assert stored["info"]["weights"] == weights_identity(base)
    assert stored["info"]["metadata"] == {"sample_rate": 16000}
    assert stored["inputs"]["dims"] == [24, 24, 24]
    assert stored["config"]["target_layers"] == ["all"]
    assert path.stat().st_size < 4000
    online = load_probe(path, base_model=tiny_model("beats", num_classes=None))
    x = 0.1 * torch.randn(2, 16000)
    torch.testing.assert_close(online(x), probe(x))
    offline = load_probe(path)
    with torch.no_grad():
        features = base.layer_features(x, ["all"])
    torch.testing.assert_close(offline(features), probe(x))


def test_a_probe_trained_offline_goes_onto_its_model(tmp_path):
    base = tiny_model("hubert", num_classes=None)
    torch.manual_seed(0)
    config = ProbeConfig(target_layers=["layer_1"], aggregation="mean", online_training=False)
    probe = build_probe_from_config(config, 3, "cpu", input_dim=16).eval()
    path = tmp_path / "probe.safetensors"
    save_probe(probe, path, weights=weights_identity(base))
    online = load_probe(path, base_model=base)
    x = 0.1 * torch.randn(2, 16000)
    with torch.no_grad():
        torch.testing.assert_close(online(x), probe(base.embed(x, ["layer_1"])))
    assert online.layers == ["backbone.encoder.transformer.layers.0"]


def test_the_wrong_backbone_is_refused(tmp_path):
    base, other = (tiny_model("beats", seed, num_classes=None) for seed in (0, 1))
    path = tmp_path / "probe.safetensors"
    save_probe(build("linear", base), path, card="esp_beats")
    with pytest.raises(WeightsError) as error:
        load_probe(path, base_model=other)
    message = str(error.value)
    assert weights_identity(base) in message
    assert weights_identity(other) in message
    assert "base_model=load_model('esp_beats')" in message
    assert load_probe(path, base_model=other, allow_other_weights=True).base_model is other
    with pytest.raises(WeightsError, match=r"widths \[24\].*have \[16\]"):
        load_probe(path, base_model=tiny_model("hubert"), allow_other_weights=True)
    save_probe(build("linear"), path)
    with pytest.raises(WeightsError, match="does not say which weights"):
        load_probe(
            path,
            base_model=tiny_model(
                "beats",
                init_config={
                    "encoder_embed_dim": 8,
                    "embed_dim": 8,
                    "encoder_layers": 1,
                    "encoder_ffn_embed_dim": 8,
                    "encoder_attention_heads": 2,
                    "conv_pos": 8,
                    "conv_pos_groups": 4,
                },
            ),
        )


def test_a_backbone_that_was_trained_along_is_stored(tmp_path):
    base = tiny_model("resnet18", num_classes=None)
    probe = build("linear", base, freeze_backbone=False)
    fresh = copy.deepcopy(base)
    probe.train()
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
    x = 0.1 * torch.randn(2, 16000)
    probe(x).sum().backward()
    optimizer.step()
    path = tmp_path / "probe.safetensors"
    save_probe(probe.eval(), path, card="resnet18")
    with pytest.raises(WeightsError, match=r"works with that only. Pass base_model=load_model\('resnet18'\)"):
        load_probe(path)
    loaded = load_probe(path, base_model=fresh)
    torch.testing.assert_close(loaded(x), probe(x))


def test_files_that_are_no_probes(tmp_path):
    path = tmp_path / "probe.safetensors"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_probe(path)
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read as a safetensors file"):
        load_probe(path)
    save_file({"classifier.weight": torch.zeros(3, 8)}, path)
    with pytest.raises(WeightsError, match="not a probe of avex"):
        load_probe(path)


def test_headers_that_do_not_fit(tmp_path):
    path = tmp_path / "probe.safetensors"
    save_probe(build("linear"), path)
    stored, _ = header(path)
    with safe_open(path, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(state, path, {"avex_probe": json.dumps({**stored, "num_classes": 4})})
    with pytest.raises(WeightsError, match="does not hold what its header says"):
        load_probe(path)
    save_file(state, path, {"avex_probe": json.dumps({**stored, "format_version": 99})})
    with pytest.raises(WeightsError, match="Update avex"):
        load_probe(path)


def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "probe.safetensors"
    probe = build("linear")
    with pytest.raises(ConfigError, match="2 labels were given for a probe of 3"):
        save_probe(probe, path, labels=["a", "b"])
    with pytest.raises(ConfigError, match="JSON"):
        save_probe(probe, path, metadata={"when": object()})
    probe.config = None
    with pytest.raises(ConfigError, match="build_probe_from_config"):
        save_probe(probe, path)
    assert not path.exists()


def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "probe.safetensors"
    save_probe(build("linear"), path, labels=["a", "b", "c"])
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_probe(build("linear"), path, labels=["d", "e", "f"])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["probe.safetensors"]


def test_options_given_besides_the_config_are_kept(tmp_path):
    config = ProbeConfig(probe_type="mlp", hidden_dims=[2], target_layers=["x"])
    probe = build_probe_from_config(config, 3, input_dim=8, hidden_dims=[5, 6]).eval()
    path = tmp_path / "probe.safetensors"
    save_probe(probe, path)
    x = torch.randn(2, 8)
    assert torch.equal(load_probe(path)(x), probe(x))


def test_a_probe_on_sequences_of_windows_does_not_take_the_time_steps_of_a_clip(tmp_path):
    base = tiny_model("beats", num_classes=None)
    probe = build("lstm", base)
    path = tmp_path / "probe.safetensors"
    save_probe(probe, path, metadata={"sequence": True})
    with pytest.raises(ConfigError, match="trained on sequences of windows"):
        load_probe(path, base_model=base)
    assert load_probe(path).info.metadata["sequence"]


def test_layers_side_by_side_may_have_been_split_elsewhere(tmp_path):
    """A store says how wide all layers are together, not each of them."""
    base = tiny_model("efficientnet", num_classes=None)
    layers = ["layer_0", "layer_1", "last_layer"]
    online = build("linear", base, layers)
    first, *others = online.inputs.dims
    assert len({first, *others}) > 1
    config = ProbeConfig(target_layers=layers, aggregation="mean")
    offline = build_probe_from_config(config, 3, input_dim=[first + 1, others[0] - 1, *others[1:]])
    offline.load_state_dict(online.state_dict())
    path = tmp_path / "probe.safetensors"
    save_probe(offline, path, weights=weights_identity(base))
    x = 0.1 * torch.randn(2, 16_000)
    with torch.no_grad():
        torch.testing.assert_close(load_probe(path, base_model=base)(x), online(x))
    # Added up with weights, it matters where a layer ends.
    config = ProbeConfig(target_layers=layers, aggregation="none")
    weighted = build_probe_from_config(config, 3, input_dim=[8, 8, 8])
    save_probe(weighted, path, weights=weights_identity(base))
    with pytest.raises(WeightsError, match=r"reads layers of widths \[8, 8, 8\]"):
        load_probe(path, base_model=base)
