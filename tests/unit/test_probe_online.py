"""Probes on models: layers, masks, frozen and trained backbones, devices, several probes on one base."""

import copy
import threading

import pytest
import torch
from torch import nn

from avex._core.errors import ConfigError
from avex.configs import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.layers import LayerError
from avex.models.probes import build_probe_from_config
from avex.models.probes.utils import build_probe_from_config_online
from avex.models.probes.utils.dims import look_at_layers
from avex.testing import tiny_families, tiny_model

SETTINGS = {
    "linear": {},
    "mlp": {"hidden_dims": [4]},
    "lstm": {"lstm_hidden_size": 4, "num_layers": 1},
    "attention": {"num_heads": 2, "attention_dim": 4},
    "transformer": {"num_heads": 2, "attention_dim": 4, "num_layers": 1},
    "attention_pooling": {},
}
FAMILIES = [n for n in tiny_families() if n not in ("resnet50", "resnet152", "perch2", "perch")]


def on(base, probe_type="linear", layers=("last_layer",), num_classes=3, **fields):
    torch.manual_seed(0)
    config = ProbeConfig(
        probe_type=probe_type, target_layers=list(layers), **{**SETTINGS[probe_type], **fields}
    )
    return build_probe_from_config(config, num_classes, "cpu", base_model=base)


def sound(model, batch=2, seconds=None, seed=0):
    samples = round((seconds or model.window_seconds or 1.0) * model.sample_rate)
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def beats():
    return tiny_model("beats", num_classes=None)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("probe_type", ["linear", "lstm", "attention_pooling"])
def test_every_family_takes_probes(family, probe_type):
    base = tiny_model(family)
    layers = ["layer_1", "last_layer"]
    probe = on(base, probe_type, layers, aggregation="none").eval()
    x = sound(base)
    logits = probe(x)
    assert logits.shape == (2, 3)
    assert logits.isfinite().all()
    torch.testing.assert_close(probe({"raw_wav": x}), logits)
    assert len(probe.learned_weights()) == 2
    # Online is offline on the same features.
    with torch.no_grad():
        features = base.layer_features(x, layers)
    torch.testing.assert_close(probe.forward_embeddings(features), logits)


@pytest.mark.parametrize("aggregation", ["mean", "max", "none", "concat"])
def test_online_equals_offline_on_extracted_embeddings(beats, aggregation):
    layers = ["all"]
    probe = on(beats, "linear", layers, aggregation=aggregation).eval()
    x = sound(beats)
    pooled = "mean" if aggregation in ("none", "concat") else aggregation
    with torch.no_grad():
        stored = beats.extract_embeddings(x, layers=layers, aggregation=pooled, return_layers=dict)
    assert len(stored) == 3
    torch.testing.assert_close(probe.forward_embeddings(stored), probe(x))
    if aggregation != "none":
        side_by_side = beats.embed(x, layers, pooled).detach()
        torch.testing.assert_close(probe.forward_embeddings(side_by_side), probe(x))


def test_pooled_layers_are_side_by_side_and_unpooled_ones_weighted(beats):
    assert on(beats, "linear", ["all"], aggregation="mean").inputs.dim == 72
    weighted = on(beats, "linear", ["all"], aggregation="none")
    assert weighted.inputs.dim == 24
    assert sum(p.numel() for p in weighted.parameters()) == 24 * 3 + 3 + 3


def test_no_length_is_baked_in(beats):
    for probe_type in SETTINGS:
        probe = on(beats, probe_type, ["layer_0", "last_layer"], aggregation="none").eval()
        for seconds in (0.5, 1.0, 2.3):
            assert probe(sound(beats, seconds=seconds)).shape == (2, 3)


@pytest.mark.parametrize("probe_type", ["linear", "lstm", "attention", "transformer", "attention_pooling"])
def test_masks_of_samples_reach_the_head_at_token_rate(beats, probe_type):
    """What a padded clip scores depends on its mask, and on nothing behind the tokens that the mask leaves."""
    probe = on(beats, probe_type, aggregation="none").eval()
    x = sound(beats)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[1, x.shape[1] // 2 :] = True
    masked = probe(x, mask)
    torch.testing.assert_close(probe({"raw_wav": x, "padding_mask": mask}), masked)
    assert not torch.allclose(masked[1], probe(x)[1])
    with torch.no_grad():
        features = beats.layer_features(x, padding_mask=mask)["last_layer"]
    assert features.padding_mask[1].any()
    kept = features.values[1:, ~features.padding_mask[1]]
    torch.testing.assert_close(probe.forward_embeddings(kept), masked[1:], rtol=1e-4, atol=1e-5)


def test_widths_are_asked_for_before_they_are_looked_up(beats, monkeypatch):
    base = copy.deepcopy(beats)
    monkeypatch.setattr(type(base), "layer_features", None)  # nothing may run
    assert on(base).inputs.dims == (24,)
    assert on(base, "attention_pooling").inputs.dims == (24,)


def test_looking_up_changes_neither_mode_nor_chance():
    base = tiny_model("efficientnet").train()
    base.backbone.features[0].eval()
    modes = [module.training for module in base.modules()]
    norms = copy.deepcopy(list(base.buffers()))
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    look_at_layers(base, ["last_layer"], 16000)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in base.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(norms, base.buffers(), strict=True))


def test_maps_make_wide_sequences():
    base = tiny_model("resnet18", num_classes=None)
    probe = on(base, "attention_pooling")
    assert probe.inputs.dims == (1024,), "512 channels, 2 bands"
    assert on(base, "linear").inputs.dims == (512,)


# -- a frozen base -----------------------------------------------------------------------------------------


def test_a_frozen_base_is_a_guest():
    base = tiny_model("efficientnet", num_classes=None)
    state = copy.deepcopy(base.state_dict())
    probe = on(base, "linear").train()
    assert probe.base_model is base
    assert not base.training
    assert [name for name, _ in probe.named_parameters()] == ["classifier.weight", "classifier.bias"]
    assert set(probe.state_dict()) == {"classifier.weight", "classifier.bias"}
    optimizer = torch.optim.SGD(probe.parameters(), lr=0.1)
    before = probe.classifier.weight.clone()
    for _ in range(2):
        nn.functional.cross_entropy(probe(sound(base, 4)), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        probe.train()
    assert not torch.equal(before, probe.classifier.weight)
    assert all(torch.equal(state[name], value) for name, value in base.state_dict().items()), (
        "batch norms too"
    )
    assert all(parameter.grad is None for parameter in base.parameters())
    assert not base.training
    assert all(parameter.requires_grad for parameter in base.parameters()), "others may train it"


def test_a_frozen_base_runs_in_eval_mode_whatever_others_do():
    base = tiny_model("efficientnet", num_classes=None)
    probe = on(base).eval()
    x = sound(base, 4)
    expected = probe(x)
    statistics = copy.deepcopy(base.state_dict())
    base.train()  # another user of the base
    torch.testing.assert_close(probe(x), expected)
    assert base.training
    assert all(m.training for m in base.modules())
    assert all(torch.equal(statistics[name], value) for name, value in base.state_dict().items())


def test_a_frozen_base_keeps_dropout_out():
    base = tiny_model("beats", num_classes=None)
    for module in base.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    probe = on(base, "linear", ["all"], aggregation="none").train()
    x = sound(base)
    assert torch.equal(probe(x), probe(x))


def test_two_probes_on_one_base_do_not_disturb_each_other(beats):
    x = sound(beats, 4)
    target = torch.tensor([0, 1, 2, 0])

    def train(probe, steps):
        optimizer = torch.optim.AdamW(probe.parameters(), lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(probe(x), target).backward()
            optimizer.step()
            yield

    def pair():
        return (
            on(beats, "linear", ["layer_0"]).train(),
            on(beats, "attention_pooling", ["all"], dropout_rate=0.0).train(),
        )

    alone = pair()
    for probe in alone:
        list(train(probe, 3))
    together = pair()
    for _ in zip(*(train(probe, 3) for probe in together), strict=True):
        pass
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)
    del alone
    assert together[0](x).isfinite().all(), "a probe that goes away takes no hooks along"
    assert not any(module._forward_hooks for module in beats.modules())


def test_two_probes_in_two_threads(beats):
    probes = [on(beats, "linear", ["layer_0"]).eval(), on(beats, "attention_pooling", ["all"]).eval()]
    inputs = [sound(beats, seed=i) for i in range(2)]
    expected = [probe(x).detach() for probe, x in zip(probes, inputs, strict=True)]
    wrong = []

    def work(i):
        if not all(torch.allclose(probes[i](inputs[i]), expected[i], atol=1e-6) for _ in range(15)):
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_base_moves_along_but_keeps_its_numbers():
    base = tiny_model("resnet18", num_classes=None)
    probe = on(base)
    probe.double()
    assert probe.classifier.weight.dtype == torch.float64
    assert next(base.parameters()).dtype == torch.float32
    assert probe(sound(base)).dtype == torch.float64
    probe.to("meta")
    assert base.device.type == "meta"


# -- a trained base ----------------------------------------------------------------------------------------


def test_a_base_that_is_trained_belongs_to_the_probe():
    base = tiny_model("efficientnet", num_classes=None)
    probe = on(base, freeze_backbone=False)
    assert probe.base_model is base
    assert {id(p) for p in base.parameters()} <= {id(p) for p in probe.parameters()}
    assert any(name.startswith("base_model.backbone.") for name in probe.state_dict())
    assert probe.train().base_model.training
    before = base.state_dict()["backbone.features.0.1.running_mean"].clone()
    probe(sound(base, 4)).sum().backward()
    assert base.backbone.features[0][0].weight.grad.abs().sum() > 0
    assert not torch.equal(before, base.state_dict()["backbone.features.0.1.running_mean"])
    assert not probe.eval().base_model.training


@pytest.mark.parametrize("family", ["beats", "hubert"])
def test_training_with_layer_drop(family):
    base = tiny_model(family, num_classes=None)
    encoder = base.backbone.encoder if family == "beats" else base.backbone.encoder.transformer
    setattr(encoder, "layerdrop" if family == "beats" else "layer_drop", 0.5)
    probe = on(base, "linear", ["all"], aggregation="none", freeze_backbone=False).train()
    for _ in range(6):
        probe(sound(base)).sum().backward()


def test_graphs_cannot_be_trained(tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    base = tiny_model("perch", folder=tmp_path)
    probe = on(base, "linear", ["spatial_embedding", "last_layer"], aggregation="none").eval()
    assert probe(sound(base)).shape == (2, 3)
    with pytest.raises(ConfigError, match="freeze_backbone=True"):
        on(base, freeze_backbone=False)


# -- errors ------------------------------------------------------------------------------------------------


def test_settings_that_contradict_the_model(beats):
    with pytest.raises(ConfigError, match="no CLS token"):
        on(beats, aggregation="cls_token")
    with pytest.raises(ConfigError, match="no CLS token"):
        on(beats, layers=["layer_1"], aggregation="cls_token")
    with pytest.raises(LayerError, match="layer_7|Layer 7"):
        on(beats, layers=["layer_7"])
    any_length = {"sample_rate": 16000, "representation": "raw", "target_length_seconds": None}
    free = tiny_model("beats", num_classes=None, audio_config=any_length)
    with pytest.raises(ConfigError, match="target_length"):
        on(free, input_processing="flatten")
    probe = on(free, input_processing="flatten", target_length=8000).eval()
    assert probe(sound(free, seconds=0.5)).shape == (2, 3)
    with pytest.raises(ValueError, match="must all have the length"):
        probe(sound(free, seconds=1.0))


def test_cls_tokens_are_taken_where_there_are_some():
    base = tiny_model("birdmae", num_classes=None)
    x = sound(base)
    probe = on(base, layers=["layer_1"], aggregation="cls_token").eval()
    with torch.no_grad():
        block = base.layer_features(x, ["layer_1"])["backbone.blocks.0"].values
    torch.testing.assert_close(probe(x), probe.classifier(block[:, 0]))
    eat = tiny_model("eat", num_classes=None)
    assert on(eat, aggregation="cls_token").inputs.dims == (16,)


def test_compiled_bases_are_unwrapped(beats):
    base = torch.compile(copy.deepcopy(beats), backend="eager")
    probe = build_probe_from_config_online(ProbeConfig(target_layers=["all"]), base, 3, "cpu").eval()
    x = sound(beats)
    assert probe.base_model is base._orig_mod
    plain = on(beats, "linear", ["all"]).eval()
    plain.load_state_dict(probe.state_dict())
    torch.testing.assert_close(probe(x), plain(x))


def test_probes_can_be_compiled():
    base = Bare()
    probe = on(base, "linear", ["encoder", "last_layer"], aggregation="none").eval()
    x = torch.randn(2, 100)
    expected = probe(x)
    compiled = torch.compile(probe, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), expected)


class Bare(ModelBase):
    """Only `__init__` and `forward`."""

    def __init__(self, **options):
        super().__init__(audio_config={"sample_rate": 100, "representation": "raw"}, **options)
        self.encoder = nn.Linear(10, 7)
        self.classifier = nn.Linear(7, 2)

    def forward(self, x):
        return self.classifier(self.encoder(x.unfold(1, 10, 10)).relu())


@pytest.mark.parametrize("layers", [["last_layer"], ["encoder"], ["encoder", "last_layer"], ["all"]])
def test_classes_that_only_have_a_forward(layers):
    base = Bare()
    probe = on(base, "attention_pooling", layers).eval()
    assert probe.inputs.dims == (7,) * len(base.layer_keys(layers))
    assert probe(torch.randn(2, 100)).shape == (2, 3)
