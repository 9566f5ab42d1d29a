"""Heads on stored embeddings: names and sizes of parameters, inputs of every form, masks, fitting."""

import numpy as np
import pytest
import torch
from torch import nn

from avex._core.errors import ConfigError
from avex.configs import ProbeConfig
from avex.models.features import Features, TokenLayout
from avex.models.probes import (
    AttentionProbe,
    KNNProbe,
    LayerMix,
    LinearProbe,
    MLPProbe,
    Probe,
    PrototypeProbe,
    TransformerProbe,
)
from avex.models.probes.memory import available_bytes, module_bytes
from avex.models.probes.positions import sinusoids
from avex.models.probes.utils import (
    build_probe_from_config,
    build_probe_from_config_offline,
    get_probe_class,
    register_probe_class,
)
from avex.models.probes.utils.registry import _PROBE_CLASSES

SEQUENCES = {
    "lstm": {"lstm_hidden_size": 6, "num_layers": 2, "bidirectional": True},
    "attention": {"num_heads": 2, "attention_dim": 8, "num_layers": 2},
    "transformer": {"num_heads": 2, "attention_dim": 8, "num_layers": 2},
    "attention_pooling": {"num_heads": 3},
}


def build(probe_type="linear", input_dim=8, num_classes=3, layers=("x",), **fields):
    torch.manual_seed(0)
    config = ProbeConfig(probe_type=probe_type, target_layers=list(layers), **fields)
    return build_probe_from_config(config, num_classes, "cpu", input_dim=input_dim).eval()


def shapes(probe):
    return {name: tuple(value.shape) for name, value in probe.state_dict().items()}


# -- published names and sizes (D = 768, 10 classes) -------------------------------------------------------

PUBLISHED = [
    ("linear", {}, 7_690),
    ("mlp", {"hidden_dims": [512, 256]}, 527_626),
    ("lstm", {"lstm_hidden_size": 256, "num_layers": 2, "bidirectional": True}, 3_683_338),
    ("attention", {"num_heads": 8, "attention_dim": 512, "num_layers": 2}, 4_735_498),
    ("attention", {"num_heads": 4, "attention_dim": 64}, 2_371_594),
    (
        "transformer",
        {"num_heads": 8, "attention_dim": 512, "num_layers": 3, "use_positional_encoding": True},
        10_235_146,
    ),
]


@pytest.mark.parametrize(("probe_type", "fields", "count"), PUBLISHED)
def test_sizes_are_those_of_published_probes(probe_type, fields, count):
    probe = build(probe_type, 768, 10, **fields)
    assert sum(p.numel() for p in probe.parameters()) == count


def test_names_are_those_of_published_probes():
    assert shapes(build("linear", 768, 10)) == {"classifier.weight": (10, 768), "classifier.bias": (10,)}
    mlp = shapes(build("mlp", 768, 10, hidden_dims=[512, 256]))
    assert [name for name in mlp if name.endswith("weight")] == [
        "mlp.0.weight",
        "mlp.3.weight",
        "mlp.6.weight",
    ]
    plain = shapes(build("mlp", 768, 10, hidden_dims=[512, 256], dropout_rate=0.0))
    assert [name for name in plain if name.endswith("weight")] == [
        "mlp.0.weight",
        "mlp.2.weight",
        "mlp.4.weight",
    ]
    lstm = shapes(build("lstm", 768, 10, lstm_hidden_size=256, num_layers=2, bidirectional=True))
    assert lstm["lstm.weight_ih_l0"] == lstm["lstm.weight_ih_l0_reverse"] == (1024, 768)
    assert lstm["lstm.weight_hh_l1"] == (1024, 256)
    assert lstm["classifier.weight"] == (10, 512)
    attention = shapes(build("attention", 768, 10, num_heads=8, attention_dim=512, num_layers=2))
    assert set(attention) == {
        *(
            f"attention_layers.{i}.{name}"
            for i in (0, 1)
            for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        ),
        *(f"layer_norms.{i}.{name}" for i in (0, 1) for name in ("weight", "bias")),
        "classifier.weight",
        "classifier.bias",
    }
    fields = {"num_heads": 8, "attention_dim": 512, "num_layers": 1, "use_positional_encoding": True}
    transformer = shapes(build("transformer", 768, 10, **fields))
    assert transformer["pos_encoding"] == (1, 1000, 768)
    assert transformer["transformer.layers.0.self_attn.in_proj_weight"] == (2304, 768)
    assert transformer["transformer.layers.0.linear1.weight"] == (512, 768)
    assert transformer["transformer.layers.0.norm2.bias"] == (768,)
    assert shapes(build("attention", 8, 2, num_heads=2, attention_dim=1, use_positional_encoding=True))[
        "pos_encoding"
    ] == (1, 1000, 8)


def test_layers_of_different_widths_have_the_published_projections():
    probe = build("linear", [768, 768, 512], 10, layers=("a", "b", "c"), aggregation="none")
    assert shapes(probe) == {
        "layer_weights": (3,),
        "embedding_projectors.2.weight": (768, 512),
        "embedding_projectors.2.bias": (768,),
        "classifier.weight": (10, 768),
        "classifier.bias": (10,),
    }
    # Without a majority the widest wins.
    assert build("linear", [4, 8], 2, layers=("a", "b"), aggregation="none").inputs.dim == 8
    assert build("linear", [8, 4, 4], 2, layers=tuple("abc"), aggregation="none").inputs.dim == 4


# -- inputs ------------------------------------------------------------------------------------------------


def test_the_example_of_the_documents():
    probe = build("linear", 768, 50, layers=("backbone",), aggregation="none", online_training=False)
    assert probe(torch.randn(2, 768)).shape == (2, 50)
    assert probe.feature_mode
    assert probe.layers == ["backbone"]


def test_sequences_and_maps_are_pooled_never_flattened():
    for aggregation in ("none", "mean"):
        probe = build("linear", 8, aggregation=aggregation)
        x = torch.randn(2, 5, 8)
        torch.testing.assert_close(probe(x), probe(x.mean(1)))
        torch.testing.assert_close(probe(torch.cat([x, x], 1)), probe(x))
        maps = torch.randn(2, 8, 3, 4)
        torch.testing.assert_close(probe(maps), probe(maps.mean((2, 3))))
    largest = build("linear", 8, aggregation="max")
    torch.testing.assert_close(largest(x), largest(x.amax(1)))
    first = build("linear", 8, aggregation="cls_token")
    torch.testing.assert_close(first(x), first(x[:, 0]))


def test_flattening_is_for_one_length():
    probe = build("linear", (5, 8), input_processing="flatten")
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(probe(x), probe.classifier(x.flatten(1)))
    with pytest.raises(
        ValueError, match="gives vectors of 48 numbers; the probe was built for 40. Flattened"
    ):
        probe(torch.randn(2, 6, 8))


def test_vectors_as_they_are():
    probe = build("linear", 8, input_processing="none", aggregation="none")
    assert probe(torch.randn(2, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="input_processing='pooled'"):
        probe(torch.randn(2, 5, 8))
    with pytest.raises(ConfigError, match="input_processing='pooled'"):
        build("linear", (5, 8), input_processing="none", aggregation="none")


@pytest.mark.parametrize("probe_type", SEQUENCES)
def test_sequence_probes_refuse_vectors(probe_type):
    probe = build(probe_type, 8, **SEQUENCES[probe_type])
    assert probe(torch.randn(2, 5, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="aggregation='none', or use a linear"):
        probe(torch.randn(2, 8))


@pytest.mark.parametrize("probe_type", SEQUENCES)
def test_maps_become_sequences_of_bands(probe_type):
    probe = build(probe_type, (4, 2, 7), **SEQUENCES[probe_type])
    maps = torch.randn(2, 4, 2, 5)
    torch.testing.assert_close(probe(maps), probe(maps.permute(0, 3, 2, 1).flatten(2)))


def test_layers_come_as_lists_dicts_or_side_by_side():
    probe = build("linear", [4, 6], layers=("a", "b"))
    a, b = torch.randn(2, 4), torch.randn(2, 6)
    expected = probe.classifier(torch.cat([a, b], 1))
    for x in ([a, b], (a, b), {"b": b, "a": a, "label": 1}, {"one": a, "two": b}, torch.cat([a, b], 1)):
        torch.testing.assert_close(probe(x), expected)
    read_only = a.numpy().copy()
    read_only.flags.writeable = False
    torch.testing.assert_close(probe([read_only, b.double().numpy()]), expected)
    with pytest.raises(ValueError, match="reads 2 layers"):
        probe([a])
    with pytest.raises(ValueError, match="the dict holds a"):
        probe({"a": a})
    with pytest.raises(TypeError, match="str"):
        build("linear", 4)("embedding")
    with pytest.raises(ValueError, match=r"not \(4,\)"):
        build("linear", 4)(torch.zeros(4))


def test_weights_of_layers_are_a_softmax():
    probe = build("linear", [4, 4, 4], layers=("a", "b", "c"), aggregation="none")
    layers = [torch.randn(2, 4) for _ in range(3)]
    torch.testing.assert_close(probe(layers), probe.classifier(sum(layers) / 3))
    with torch.no_grad():
        probe.layer_weights.copy_(torch.tensor([0.0, torch.log(torch.tensor(3.0)), -40.0]))
    torch.testing.assert_close(probe(layers), probe.classifier(0.25 * layers[0] + 0.75 * layers[1]))
    assert probe.learned_weights() == pytest.approx({"a": 0.25, "b": 0.75, "c": 0.0}, abs=1e-6)
    table = probe.get_learned_weights_table().splitlines()
    assert table[0].split() == ["Layer", "raw", "weight", "%"]
    assert table[2].split() == ["b", "1.0986", "0.7500", "75.0"]
    assert "No learned weights" in build().get_learned_weights_table()


def test_sequences_are_aligned_to_the_shortest():
    probe = build("attention_pooling", [2, 2], layers=("a", "b"))
    long = torch.linspace(0, 7, 8).reshape(1, 8, 1).expand(1, 8, 2)
    values, mask = probe.head_input([torch.zeros(1, 4, 2), long])
    assert mask is None
    # Pairs of neighbours meet in the middle; half of the weight is with the other layer.
    torch.testing.assert_close(values[0, :, 0], 0.5 * torch.tensor([0.5, 2.5, 4.5, 6.5]))


def test_padding_does_not_bleed_when_sequences_are_aligned():
    probe = build("attention_pooling", [2, 2], layers=("a", "b"))
    short = Features(torch.zeros(1, 2, 2), TokenLayout("tokens"), torch.tensor([[False, True]]))
    long_values = torch.tensor([1.0, 1.0, 1.0, 99.0]).reshape(1, 4, 1).expand(1, 4, 2)
    mask = torch.tensor([[False, False, False, True]])
    values, padding = probe.head_input([short, Features(long_values, TokenLayout("tokens"), mask)])
    torch.testing.assert_close(values[0, :, 0], torch.tensor([0.5, 0.5]))
    assert padding.tolist() == [[False, True]], "padding in one layer"
    mask = torch.tensor([[True, True, True, False]])
    _, padding = probe.head_input([torch.zeros(1, 2, 2), Features(long_values, TokenLayout("tokens"), mask)])
    assert padding.tolist() == [[True, False]], "a step that has some audio counts"


def test_prefix_tokens_of_features_take_no_part():
    layout = TokenLayout("tokens", num_prefix_tokens=1)
    x = torch.randn(2, 6, 8)
    for probe in (build("linear", 8), build("attention_pooling", 8)):
        torch.testing.assert_close(probe(Features(x, layout)), probe(x[:, 1:]))


def test_masks_must_fit():
    probe = build("attention_pooling", 8)
    with pytest.raises(ValueError, match=r"expected \(2, 5\)"):
        probe(torch.zeros(2, 5, 8), torch.zeros(2, 16000, dtype=torch.bool))


@pytest.mark.parametrize("probe_type", SEQUENCES)
def test_clips_of_nothing_but_padding_give_numbers(probe_type):
    probe = build(probe_type, 8, **SEQUENCES[probe_type])
    assert probe(torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)).isfinite().all()


# -- settings of heads -------------------------------------------------------------------------------------


def test_activations():
    x = torch.linspace(-1, 1, 8).reshape(1, 8)
    outputs = {
        name: build("mlp", 8, hidden_dims=[4], activation=name)(x)
        for name in ("relu", "gelu", "tanh", "swish")
    }
    probe = build("mlp", 8, hidden_dims=[4], activation="swish")
    hidden = nn.functional.silu(probe.mlp[0](x))
    torch.testing.assert_close(outputs["swish"], probe.mlp[3](hidden))
    assert len({tuple(o.flatten().tolist()) for o in outputs.values()}) == 4
    with pytest.raises(ConfigError, match="relu, gelu, tanh, swish"):
        MLPProbe(LayerMix(("x",), (8,)), 2, activation="sine")


def test_heads_must_divide_the_width():
    for cls in (AttentionProbe, TransformerProbe):
        with pytest.raises(ConfigError, match="Choose one of 1, 2, 3, 4, 6, 12"):
            cls(LayerMix(("x",), (12,), kind="sequence"), 2, num_heads=5)


def test_learned_positions_end_and_sinusoids_do_not():
    fields = {**SEQUENCES["transformer"], "use_positional_encoding": True, "max_sequence_length": 4}
    probe = build("transformer", 8, **fields)
    assert probe(torch.randn(1, 4, 8)).shape == (1, 3)
    with pytest.raises(ValueError, match="max_sequence_length=5"):
        probe(torch.randn(1, 5, 8))
    fields = {**SEQUENCES["attention"], "use_positional_encoding": True, "max_sequence_length": 4}
    short, long = (build("attention", 8, **{**fields, "max_sequence_length": n}) for n in (4, 50))
    long.load_state_dict({**short.state_dict(), "pos_encoding": long.pos_encoding})
    x = torch.randn(1, 9, 8)
    torch.testing.assert_close(short(x), long(x))
    assert sinusoids(3, 4)[0, 2, 0] == pytest.approx(np.sin(2.0))
    assert sinusoids(3, 4)[0, 2, 3] == pytest.approx(np.cos(2.0 / 100.0))
    assert sinusoids(3, 5).shape == (1, 3, 5)


def test_attention_pooling_starts_near_the_mean_and_can_choose():
    probe = build("attention_pooling", 8, num_heads=1)
    x = torch.randn(1, 6, 8)
    torch.testing.assert_close(probe(x), probe.classifier(x.mean(1)), atol=0.05, rtol=0.05)
    with torch.no_grad():
        probe.queries.copy_(1000 * x[0, 2:3])
    torch.testing.assert_close(probe(x), probe.classifier(x[:, 2]), atol=1e-3, rtol=1e-3)
    assert probe.attention(x).shape == (1, 1, 6)


def test_standardisation_comes_before_the_head():
    probe = build("linear", 4)
    mean, std = torch.arange(4.0), torch.tensor([1.0, 2.0, 0.0, 4.0])
    x = torch.randn(5, 4)
    expected = probe((x - mean) / torch.tensor([1.0, 2.0, 1.0, 4.0]))
    probe.set_standardisation(mean, std)
    torch.testing.assert_close(probe(x), expected)
    other = build("linear", 4)
    other.load_state_dict(probe.state_dict())
    torch.testing.assert_close(other(x), expected)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        probe.set_standardisation(mean[:2], std[:2])
    with pytest.raises(ValueError, match="not negative"):
        probe.set_standardisation(mean, -std)


# -- building ----------------------------------------------------------------------------------------------


def test_forms_of_input_dim():
    assert build("linear", (5, 8)).inputs.dims == (8,)
    assert build("linear", (6, 2, 9)).inputs.dims == (6,)
    assert build("attention_pooling", (6, 2, 9)).inputs.dims == (12,)
    assert build("linear", np.int64(8)).inputs.dims == (8,)
    assert build("linear", [4, (3, 4)], layers=["all"], aggregation="none").layers == ["input_0", "input_1"]
    for wrong in (0, (), (1, 2, 3, 4), "8", [[8]], 2.5, (4, -1)):
        with pytest.raises(ConfigError, match=r"input_dim|at least one layer"):
            build("linear", wrong)


def test_what_to_build_must_be_clear():
    config = ProbeConfig(target_layers=["last_layer"])
    with pytest.raises(ConfigError, match="got neither"):
        build_probe_from_config(config, 3)
    with pytest.raises(ConfigError, match="got both"):
        build_probe_from_config(config, 3, base_model=nn.Linear(1, 1), input_dim=3)
    with pytest.raises(ConfigError, match="must be a ModelBase"):
        build_probe_from_config(config, 3, base_model=nn.Linear(1, 1))
    tuned = ProbeConfig(target_layers=["last_layer"], freeze_backbone=False)
    with pytest.raises(ConfigError, match="there is none"):
        build_probe_from_config(tuned, 3, input_dim=3)
    with pytest.raises(ConfigError, match="at least one class"):
        build_probe_from_config(config, 0, input_dim=3)
    with pytest.raises(ConfigError, match="Unknown device 'gpu'"):
        build_probe_from_config(config, 3, "gpu", input_dim=3)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="'cuda' was asked for"):
            build_probe_from_config(config, 3, "cuda", input_dim=3)
    with pytest.raises(ConfigError, match="no option 'hiden_dims'"):
        build_probe_from_config(config, 3, input_dim=3, hiden_dims=[3])
    mlp = ProbeConfig(probe_type="mlp", hidden_dims=[2], target_layers=["x"])
    with pytest.raises(ConfigError, match="Did you mean 'hidden_dims'"):
        build_probe_from_config(mlp, 3, input_dim=3, hiden_dims=[3])
    with pytest.raises(ConfigError, match="reads a sequence"):
        AttentionProbe(LayerMix(("x",), (8,)), 2)


def test_options_win_over_the_config():
    config = ProbeConfig(probe_type="mlp", hidden_dims=[2], target_layers=["x"])
    probe = build_probe_from_config_offline(config, 8, 3, "cpu", hidden_dims=[5])
    assert probe.mlp[0].out_features == 5


def test_a_probe_that_does_not_fit_is_not_built():
    config = ProbeConfig(probe_type="mlp", hidden_dims=[2_000_000], target_layers=["x"])
    with pytest.raises(ConfigError, match=r"take 8,\d\d\d\.\d GB .*, but .* GB are free.*hidden_dims"):
        build_probe_from_config(config, 3, input_dim=1_000_000)
    config = ProbeConfig(target_layers=["x"], input_processing="flatten")
    with pytest.raises(ConfigError, match="GB"):
        build_probe_from_config(config, 1000, input_dim=(100_000, 50_000))


def test_memory_is_measured():
    assert module_bytes(lambda: nn.Linear(10, 5)) == 4 * 55

    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = int(torch.ones(1).item())

    assert module_bytes(Looks) is None
    assert available_bytes(torch.device("cpu")) > 1e6
    assert available_bytes(torch.device("mps")) is None


def test_building_draws_the_same_weights_as_the_plain_module():
    config = ProbeConfig(target_layers=["x"])
    torch.manual_seed(3)
    probe = build_probe_from_config(config, 3, input_dim=8)
    torch.manual_seed(3)
    assert torch.equal(probe.classifier.weight, nn.Linear(8, 3).weight)


def test_a_class_of_ones_own():
    @register_probe_class("scaled")
    class ScaledProbe(Probe):
        kind = "sequence"

        def __init__(self, inputs, num_classes, *, dropout_rate=0.0, scale=1.0, **options):
            super().__init__(inputs, num_classes, **options)
            self.classifier, self.scale, self.rate = nn.Linear(inputs.dim, num_classes), scale, dropout_rate

        def head(self, x, padding_mask):
            return self.scale * self.classifier(x.mean(1))

    try:
        probe = build("scaled", 8, dropout_rate=0.3, extra_config={"scale": 2.0})
        assert (type(probe), probe.scale, probe.rate) == (ScaledProbe, 2.0, 0.3)
        assert probe(torch.ones(1, 4, 8)).shape == (1, 3)
        assert get_probe_class("scaled").probe_type == "scaled"
        with pytest.raises(ConfigError, match="no option 'colour'"):
            build("scaled", 8, extra_config={"colour": 1})
    finally:
        _PROBE_CLASSES.unregister("scaled")


# -- no training loop --------------------------------------------------------------------------------------


def blobs(classes=4, each=10, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 3 * torch.randn(classes, dim, generator=generator)
    labels = torch.arange(classes).repeat_interleave(each)
    return centres[labels] + torch.randn(len(labels), dim, generator=generator), labels


@pytest.mark.parametrize("probe_type", ["prototype", "knn"])
def test_fitted_probes_recognise_what_they_saw(probe_type):
    x, y = blobs()
    probe = build(probe_type, 16, 4).fit(x[::2], y[::2])
    assert (probe(x[1::2]).argmax(1) == y[1::2]).float().mean() > 0.95
    torch.testing.assert_close(probe(10 * x), probe(x))
    assert not list(probe.parameters())


def test_prototypes_are_mean_directions():
    probe = PrototypeProbe(LayerMix(("x",), (2,)), 2, temperature=0.5)
    probe.fit(np.array([[2.0, 0.0], [0.0, 9.0], [0.0, -1.0]], np.float32), [0, 0, 1])
    s = 2**-0.5
    torch.testing.assert_close(probe.prototypes, torch.tensor([[s, s], [0.0, -1.0]]))
    torch.testing.assert_close(probe(torch.tensor([[5.0, 0.0]])), torch.tensor([[2 * s, 0.0]]))


def test_neighbours_vote():
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    probe = KNNProbe(LayerMix(("x",), (2,)), 2, knn_neighbors=3, knn_weighting="uniform")
    probe.fit(bank, [0, 0, 1, 1])
    torch.testing.assert_close(
        probe(torch.tensor([[1.0, 0.05]])).softmax(1), torch.tensor([[2 / 3, 1 / 3]]), atol=1e-3, rtol=0
    )
    weighted = KNNProbe(LayerMix(("x",), (2,)), 2, knn_neighbors=3, temperature=0.1).fit(bank, [0, 0, 1, 1])
    x = torch.tensor([[1.0, 0.0]])
    similarity = torch.tensor([1.0, 1 / 1.01**0.5, 0.0])
    votes = (similarity / 0.1).softmax(0)
    torch.testing.assert_close(weighted(x).softmax(1)[0, 0], votes[:2].sum(), atol=2e-4, rtol=0)


def test_neighbours_are_those_of_scikit_learn():
    neighbors = pytest.importorskip("sklearn.neighbors")
    generator = torch.Generator().manual_seed(0)
    bank, queries = (torch.rand(n, 6, generator=generator) * torch.arange(1, 7) for n in (40, 9))
    y = torch.arange(40) % 3
    probe = KNNProbe(LayerMix(("x",), (6,)), 3, knn_neighbors=7, knn_weighting="uniform").fit(bank, y)
    wanted = neighbors.KNeighborsClassifier(7, metric="cosine").fit(bank, y).predict_proba(queries)
    np.testing.assert_allclose(probe(queries).softmax(1), wanted, atol=1e-3)


def test_several_labels_per_clip():
    x = torch.eye(3)
    y = [[1, 0], [1, 1], [0, 1]]
    knn = KNNProbe(LayerMix(("x",), (3,)), 2, knn_neighbors=1).fit(x, y)
    assert knn(x).isfinite().all(), "no class is ever impossible, or certain"
    torch.testing.assert_close(knn(x).sigmoid(), torch.tensor(y, dtype=torch.float), atol=1e-3, rtol=0)
    prototypes = PrototypeProbe(LayerMix(("x",), (3,)), 2).fit(x, torch.tensor(y)).prototypes
    s = 2**-0.5
    torch.testing.assert_close(prototypes, torch.tensor([[s, s, 0.0], [0.0, s, s]]))


def test_what_cannot_be_learned_from():
    probe = build("knn", 2, 3)
    with pytest.raises(ValueError, match=r"Call fit\(embeddings, labels\)"):
        probe(torch.zeros(1, 2))
    x = torch.eye(2)
    for labels, message in [
        ([0, 1], "No example of class 2"),
        ([0], "2 class numbers"),
        ([0, 3], "between 0 and 2"),
        ([0.5, 1.0], "class numbers"),
        ([[0, 1, 2], [1, 0, 0]], "0 or 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            probe.fit(x, labels)
    with pytest.raises(ConfigError, match="uniform"):
        KNNProbe(LayerMix(("x",), (2,)), 2, knn_weighting="distance")


def test_linear_probe_by_hand():
    probe = LinearProbe(LayerMix(("x",), (8,)), 3)
    assert probe(torch.zeros(2, 8)).shape == (2, 3)
    info = probe.debug_info()
    assert info["probe_type"] == "linear"
    assert info["parameters"] == 27
    assert info["feature_mode"] is True
