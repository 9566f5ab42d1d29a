"""Reading layers of every family: what is selected, what it means, and who is disturbed by it."""

import copy
import itertools
import threading

import pytest
import torch
from torch import nn

from avex.models.base_model import ModelBase
from avex.models.compiled import is_compiled
from avex.models.features import Features, TokenLayout
from avex.models.layers import LayerError, tap_layers
from avex.models.tapped import join_layers, tapped_features
from avex.models.utils.layer_listing import list_model_layers
from avex.testing import tiny_families, tiny_model

# One of each network; the other ResNets are the same class.
FAMILIES = [name for name in tiny_families() if name not in ("resnet50", "resnet152", "perch2")]
TRAINABLE = [name for name in FAMILIES if name != "perch"]
TOKENS = ("atst_frame", "beats", "birdmae", "eat_hf", "hubert")


@pytest.fixture(scope="module")
def model_of(tmp_path_factory):
    folder, known = tmp_path_factory.mktemp("graphs"), {}

    def get(family):
        if family not in known:
            if family == "perch":
                pytest.importorskip("onnx")
                pytest.importorskip("onnxruntime")
            known[family] = tiny_model(family, folder=folder)
        return known[family]

    return get


def sound(model, batch=2, seconds=None, seed=0):
    samples = round((seconds or model.window_seconds) * model.sample_rate)
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


class PlainNet(ModelBase):
    """A user's class: `__init__` and `forward`, nothing else."""

    def __init__(self, **options):
        super().__init__(audio_config={"sample_rate": 1000, "representation": "raw"}, **options)
        self.conv = nn.Conv1d(1, 6, 4, stride=4)
        self.norm = nn.BatchNorm1d(6)
        self.mix = nn.Linear(6, 5)
        self.classifier = nn.Linear(5, 3)

    def forward(self, x, padding_mask=None):
        maps = self.norm(self.conv(x[:, None]))
        return self.classifier(self.mix(maps.transpose(1, 2)).relu().mean(1))


# -- what is selected --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_numbers_names_and_keywords_select_the_same(model_of, family):
    model, layers = model_of(family), model_of(family).get_model_layers()
    assert model.get_model_layer_map() == dict(enumerate(layers))
    for i, name in enumerate(layers):
        assert model.layer_keys([f"layer_{i}"]) == model.layer_keys([i]) == model.layer_keys([name]) == [name]
    assert model.layer_keys(["all"]) == layers
    assert model.layer_keys([-1]) == [layers[-1]]
    assert model.layer_keys(["last_layer", "backbone", "last_layer"]) == ["last_layer"]
    listed = list_model_layers(model)
    assert listed["layers"] == listed["all"] == layers
    assert listed["aliases"] == {f"layer_{i}": name for i, name in enumerate(layers)}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_models_own_output_is_last_layer(model_of, family):
    model = model_of(family)
    x = sound(model)
    with torch.no_grad():
        own = model.forward_features(x)
        features = model.layer_features(x, ["layer_0", "last_layer"])
        torch.testing.assert_close(model.embed(x), own.pooled("mean"), rtol=1e-4, atol=1e-4)
    assert list(features) == [model.get_model_layers()[0], "last_layer"]
    # Networks fold batch norms where nobody listens, which rounds differently.
    torch.testing.assert_close(features["last_layer"].values, own.values, rtol=1e-4, atol=1e-4)
    assert features["last_layer"].layout == own.layout


@pytest.mark.parametrize("family", ["beats", "eat_hf", "hubert"])
def test_the_last_block_of_a_post_norm_transformer_is_the_output(model_of, family):
    model = model_of(family)
    x = sound(model)
    with torch.no_grad():
        features = model.layer_features(x, [-1, "last_layer"])
    assert torch.equal(*(layer.values for layer in features.values()))


@pytest.mark.parametrize("family", TOKENS)
def test_block_outputs_lead_from_one_block_to_the_next(model_of, family):
    """layer_0 is what enters the first block, and layer_i what leaves block i: each block maps one to the next."""
    model = model_of(family)
    names = model.get_model_layers()
    x = sound(model)
    with (
        torch.no_grad(),
        tap_layers(model, names) as outputs,
        tap_layers(model, names, inputs=True) as inputs,
    ):
        model.forward_features(x)
    for before, after in itertools.pairwise(names):
        assert torch.equal(outputs[before], inputs[after]), after


# -- what it means -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_taps_hold_what_layers_gave_at_that_moment(model_of, family):
    """No later step may write into a tapped tensor."""
    model = model_of(family)
    x, copies, handles = sound(model), {}, []
    modules = dict(model.named_modules())
    for name in model.get_model_layers():

        def keep(module, args, output, name=name):
            copies[name] = output.detach().clone()

        handles.append(modules[name].register_forward_hook(keep))
    with torch.no_grad():
        features = model.layer_features(x, ["all"])
    for handle in handles:
        handle.remove()
    for name, layer in features.items():
        assert torch.equal(layer.values, copies[name]), name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_pools_and_makes_sequences_by_one_rule(model_of, family):
    model = model_of(family)
    x = sound(model)
    with torch.no_grad():
        for name, layer in model.layer_features(x, ["all", "last_layer"]).items():
            values, layout = layer.values, layer.layout
            if layout.kind == "map":
                assert torch.allclose(layer.pooled("mean"), values.mean((2, 3)), atol=1e-5)
                assert layer.sequence().shape == (2, values.shape[3], values.shape[1] * values.shape[2])
                assert torch.equal(layer.tokens(), layer.sequence())
            if layout.kind == "tokens":
                kept = values[:, layout.num_prefix_tokens :]
                assert torch.allclose(layer.pooled("max"), kept.amax(1), atol=1e-6)
                assert torch.equal(layer.tokens(), kept)
                steps = kept.shape[1] // layout.freq_bins
                assert layer.sequence().shape == (2, steps, layout.freq_bins * kept.shape[2]), name
            if layout.kind != "vector" and layout.frame_rate:
                seconds = layer.sequence().shape[1] / layout.frame_rate
                assert seconds == pytest.approx(model.window_seconds, rel=0.3, abs=0.35) or family in (
                    "birdmae",  # always 5 s
                    "eat_hf",
                )


@pytest.mark.parametrize("family", TOKENS)
def test_tapped_tokens_have_the_layout_of_the_model(model_of, family):
    model = model_of(family)
    layout = model.token_layout or model.layout
    with torch.no_grad():
        features = model.layer_features(sound(model), ["all"])
    assert {layer.layout for layer in features.values()} == {layout}
    if layout.num_prefix_tokens:
        first = next(iter(features.values()))
        assert torch.equal(first.pooled("cls_token"), first.values[:, 0])


@pytest.mark.parametrize(("family", "options"), [("beats", {}), ("eat_hf", {"mask_padding": True})])
def test_masks_reach_every_token_layer(family, options):
    model = tiny_model(family, **options)
    x = sound(model)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[1, x.shape[1] // 2 :] = True
    with torch.no_grad():
        features = model.layer_features({"raw_wav": x, "padding_mask": mask}, ["all", "last_layer"])
    for layer in features.values():
        assert layer.padding_mask is not None
        kept = layer.tokens()[1][~layer.tokens_mask()[1]]
        assert 0 < len(kept) < layer.tokens().shape[1]
        assert torch.allclose(layer.pooled("mean")[1], kept.mean(0), atol=1e-5)


def test_hubert_masks_its_layers_if_it_handles_padding():
    model = tiny_model("hubert", handle_padding=True)
    x = sound(model)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[1, x.shape[1] // 2 :] = True
    with torch.no_grad():
        layer = model.layer_features(x, [0], mask)["backbone.encoder.transformer.dropout"]
    assert layer.tokens_mask()[1].sum() == 25  # of 49 frames


def test_long_audio_through_networks_of_one_window(model_of):
    model = model_of("birdnet")
    x = sound(model, seconds=3 * model.window_seconds)
    with torch.no_grad():
        features = model.layer_features(x, ["backbone.stem", "embedding", "last_layer"])
        first = model.layer_features(x[:, : x.shape[1] // 3], ["backbone.stem"])["backbone.stem"]
    stem, embedding, own = features.values()
    assert own.values.shape == embedding.values.shape == (2, 3, 16)
    assert own.layout.kind == embedding.layout.kind == "tokens"
    torch.testing.assert_close(own.values, embedding.values)
    assert stem.values.shape == (*first.values.shape[:3], 3 * first.values.shape[3])
    torch.testing.assert_close(stem.values[..., : first.values.shape[3]], first.values)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(x, ["embedding"]), embedding.values.mean(1))


def test_raw_modules_stay_selectable(model_of):
    model = model_of("beats")
    x = sound(model)
    with torch.no_grad():
        inner = model.extract_embeddings(x, layers=["backbone.encoder.layers.1.fc2"])
        block = model.extract_embeddings(x, layers=["backbone.encoder.layers.1"])
    assert inner.shape == block.shape
    assert not torch.allclose(inner, block), "fc2 comes before the residual sum"


def test_convolutions_over_time_have_their_channels_first():
    model = PlainNet().eval()
    x = sound(model, seconds=2)
    with torch.no_grad():
        conv, mix = model.layer_features(x, ["conv", "mix"]).values()
        maps = model.conv(x[:, None])
    assert conv.layout == TokenLayout("map", frame_rate=250.0)
    torch.testing.assert_close(conv.pooled("mean"), maps.mean(2))
    torch.testing.assert_close(conv.sequence(), maps.transpose(1, 2))
    assert mix.layout == TokenLayout("tokens", frame_rate=250.0)


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_the_width_of_embeddings_changes_nothing(training):
    model = PlainNet().train(training)
    assert model.embedding_dim == 5
    assert model.training == model.norm.training == training
    assert model.norm.num_batches_tracked == 0


def test_outputs_that_are_not_batch_first_are_refused():
    own = Features(torch.zeros(2, 4), TokenLayout("vector"))
    with pytest.raises(ValueError, match="first axis is not the batch"):
        tapped_features("rnn", nn.GRU(2, 2), torch.zeros(7, 2, 3), own, 2, 1.0)
    with pytest.raises(ValueError, match="5 axes"):
        tapped_features("video", nn.Identity(), torch.zeros(2, 1, 1, 1, 1), own, 2, 1.0)


def test_a_mask_is_stretched_over_layers_with_other_steps():
    layout = TokenLayout("tokens", frame_rate=4.0)
    own = Features(torch.zeros(1, 4, 2), layout, torch.tensor([[False, False, True, True]]))
    layer = tapped_features("conv", nn.Identity(), torch.zeros(1, 3, 1, 8), own, 1, 2.0)
    assert layer.padding_mask.tolist() == [[False] * 4 + [True] * 4]
    assert layer.layout.frame_rate == 4.0


# -- extract_embeddings ------------------------------------------------------------------------------------


def test_forms_of_embeddings(model_of):
    model = model_of("eat_hf")
    x = sound(model)
    names = model.get_model_layers()
    with torch.no_grad():
        features = model.layer_features(x, ["all"])
        raw = model.extract_embeddings(x, layers=["all"])
        one = model.extract_embeddings(x, layers=[1])
        pooled = model.extract_embeddings(x, layers=["all"], aggregation="mean")
        cls = model.extract_embeddings(x, layers=["all"], aggregation="cls_token")
        side_by_side = model.extract_embeddings(x, layers=["all"], aggregation="concat")
        named = model.extract_embeddings(x, layers=["all"], aggregation="max", return_layers=dict)
        listed = model.extract_embeddings({"raw_wav": x}, layers=[1], return_layers=list)
    assert [tuple(t.shape) for t in raw] == [(2, 65, 16)] * 3
    assert torch.equal(one, features[names[1]].values)
    assert torch.equal(pooled, torch.cat([f.pooled("mean") for f in features.values()], 1))
    assert torch.equal(cls, torch.cat([f.values[:, 0] for f in features.values()], 1))
    assert side_by_side.shape == (2, 64, 48), "without the CLS token"
    assert list(named) == names
    assert all(torch.equal(named[name], features[name].pooled("max")) for name in names)
    assert len(listed) == 1
    assert torch.equal(listed[0], one)


def test_the_older_way_remembers_a_selection(model_of):
    model = copy.deepcopy(model_of("beats"))
    x = sound(model)
    assert model.register_hooks_for_layers(["layer_1"]) == ["backbone.encoder.layers.0"]
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model.extract_embeddings(x), model.extract_embeddings(x, layers=[1]))
        # An explicit selection neither needs nor changes the remembered one.
        model.extract_embeddings(x, layers=[0])
        assert torch.equal(model.extract_embeddings(x), model.extract_embeddings(x, layers=[1]))


def test_several_layers_do_not_make_one_unpooled_tensor(model_of):
    model = model_of("beats")
    with pytest.raises(ValueError, match="extract_embeddings"):
        model.embed(sound(model), ["layer_0", "layer_1"], "none")


def test_impossible_selections(model_of):
    model = model_of("beats")
    x = sound(model)
    with pytest.raises(ValueError, match="register_hooks_for_layers"):
        model.extract_embeddings(x)
    with pytest.raises(LayerError, match="Layer 9 does not exist"):
        model.extract_embeddings(x, layers=["layer_9"])
    with pytest.raises(LayerError, match="'classifier' took no part"):
        model.extract_embeddings(x, layers=["classifier"])
    with pytest.raises(ValueError, match="return_layers"):
        model.extract_embeddings(x, layers=[0], return_layers=tuple)
    with pytest.raises(ValueError, match="raw_wav"):
        model.extract_embeddings({"audio": x}, layers=[0])
    with pytest.raises(ValueError, match="CLS"):
        model.extract_embeddings(x, layers=[0], aggregation="cls_token")
    with pytest.raises(ValueError, match="one length"):
        join_layers(
            {
                "a": Features(torch.zeros(1, 3, 2), TokenLayout("tokens")),
                "b": Features(torch.zeros(1, 4, 2), TokenLayout("tokens")),
            },
            "concat",
        )


# -- modes, gradients, layer drop --------------------------------------------------------------------------


@pytest.mark.parametrize("family", TRAINABLE)
def test_gradients_flow_in_train_mode_with_checkpointing(family):
    plain = tiny_model(family).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.enable_gradient_checkpointing()
    x = sound(plain)
    gradients = []
    for model in (plain, checkpointed):
        torch.manual_seed(0)
        features = model.layer_features(x, ["all"])
        sum(layer.pooled("mean").pow(2).sum() for layer in features.values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) > 0.8 * len(list(plain.parameters()))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_gradients_can_be_switched_off(model_of):
    model = model_of("beats")
    x = sound(model)
    assert model.extract_embeddings(x, layers=[1]).requires_grad
    assert not model.extract_embeddings(x, layers=[1], freeze_backbone=True).requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("family", "network", "chance"),
    [("beats", "encoder", "layerdrop"), ("hubert", "encoder.transformer", "layer_drop")],
)
def test_a_dropped_layer_gives_what_it_was_given(family, network, chance):
    model = tiny_model(family).train()
    encoder = model.backbone.get_submodule(network)
    setattr(encoder, chance, 1.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    with torch.no_grad():
        first, *others = model.extract_embeddings(sound(model), layers=["all"])
    assert all(torch.equal(first, other) for other in others)
    with pytest.raises(LayerError, match="layer drop"):
        model.extract_embeddings(sound(model), layers=[f"{model.get_model_layers()[1]}.final_layer_norm"])


# -- side by side ------------------------------------------------------------------------------------------


def test_taps_in_one_thread_do_not_hear_another(model_of):
    model = model_of("beats")
    quiet, loud = sound(model, seed=1), 5 * sound(model, seed=2)
    name = model.get_model_layers()[1]
    with torch.no_grad():
        alone = model.layer_features(quiet, [name])[name].values
        with tap_layers(model, [name]) as taps:
            model.forward_features(quiet)
            other = threading.Thread(target=lambda: model.forward_features(loud))
            other.start()
            other.join()
    assert torch.equal(taps[name], alone)


def test_many_threads_read_different_layers_of_one_model(model_of):
    model = model_of("beats")
    names = model.get_model_layers()
    jobs = [(names[i % len(names)], sound(model, seed=i)) for i in range(6)]
    with torch.no_grad():
        expected = [model.embed(x, [name]) for name, x in jobs]
    wrong = []

    def work(i):
        name, x = jobs[i]
        with torch.no_grad():
            same = [torch.allclose(model.embed(x, [name]), expected[i], atol=1e-6) for _ in range(10)]
        if not all(same):
            wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(module._forward_hooks for module in model.modules())


# -- torch.compile -----------------------------------------------------------------------------------------


def compiled(model, how):
    if how == "in place":
        model.backbone.compile(backend="eager")
    elif how == "wrapped part":
        model.backbone = torch.compile(model.backbone, backend="eager")
    elif how == "wrapped model":
        return torch.compile(model, backend="eager")
    return model


@pytest.mark.parametrize("how", ["in place", "wrapped part", "wrapped model"])
def test_layers_of_compiled_models(model_of, how):
    plain = model_of("hubert")
    x = sound(plain)
    model = compiled(copy.deepcopy(plain), how)
    with torch.no_grad():
        expected = plain.layer_features(x, ["all", "last_layer"])
        torch.testing.assert_close(model.embed(x), plain.embed(x))
        for _ in range(2):
            features = model.layer_features(x, ["all", "last_layer"])
            assert list(features) == list(expected)
            for name, layer in features.items():
                torch.testing.assert_close(layer.values, expected[name].values)
        torch.testing.assert_close(model.embed(x), plain.embed(x))
    if how == "in place":
        assert is_compiled(model.backbone)


def test_only_the_thread_that_taps_leaves_compiled_code():
    calls = []

    def backend(graph, inputs):
        def run(*args):
            calls.append(threading.current_thread().name)
            return graph(*args)

        return run

    class Part(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x):
            return self.linear(x).relu()

    net = nn.Sequential(Part())
    net[0].compile(backend=backend)
    x = torch.ones(2, 3)
    with torch.no_grad():
        net(x)
        assert len(calls) == 1
        before = net[0]._compiled_call_impl
        with tap_layers(net, ["0.linear"]) as taps:
            net(x)
            assert len(calls) == 1, "plain code in this thread"
            other = threading.Thread(target=net, args=(x,), name="other")
            other.start()
            other.join()
        assert "0.linear" in taps
        assert net[0]._compiled_call_impl is before
        net(x)
    assert calls == ["MainThread", "other", "MainThread"]


@pytest.mark.slow
def test_layers_of_a_model_compiled_by_inductor(model_of):
    plain = model_of("hubert")
    x = sound(plain)
    model = copy.deepcopy(plain)
    model.backbone.encoder.compile()
    with torch.no_grad():
        torch.testing.assert_close(model.embed(x), plain.embed(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.embed(x, ["layer_1"]), plain.embed(x, ["layer_1"]))
        torch.testing.assert_close(model.embed(x), plain.embed(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", TRAINABLE)
def test_any_module_puts_out_the_same_with_and_without_gradients(model_of, family):
    """What is fast without gradients (pieces, in-place, folded norms) may not show in a layer that is read."""
    model = model_of(family)
    names = [name for name, _ in model.named_modules() if name]
    read = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), tap_layers(model, names) as taps:
            model(sound(model))
        read.append({name: value.detach().clone() for name, value in taps.items() if torch.is_tensor(value)})
    assert read[0].keys() == read[1].keys() != set()
    for name, value in read[0].items():
        torch.testing.assert_close(
            read[1][name], value, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )
