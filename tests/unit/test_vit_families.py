"""EAT, Bird-MAE and ATST-Frame as models, in tiny sizes: what must hold for each of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from safetensors.torch import save_file

import avex
from avex._core.errors import ConfigError, UnknownNameError, WeightsError
from avex.models.atst_frame import checkpoint as atst_checkpoint
from avex.models.atst_frame.model import AtstFrame
from avex.models.birdmae import checkpoint as birdmae_checkpoint
from avex.models.birdmae.model import BirdMae
from avex.models.eat import checkpoint as eat_checkpoint
from avex.models.eat.model import Eat
from avex.models.layers import tap_layers

SIZES = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@dataclass
class Case:
    """A family in a tiny size, and what is peculiar to it."""

    name: str
    aliases: tuple[str, ...]
    cls: type
    checkpoint: object
    option: str  # how its sizes are given
    sizes: dict
    sample_rate: int
    shape: tuple[int, ...]  # of forward_features().values, one second
    output: tuple[int, ...]  # of forward() without classifier
    unused: set[str] = field(default_factory=set)  # parameters that an embedding does not depend on
    headless: tuple[str, ...] = ()  # layouts without a place for a classifier
    min_samples: int = 1
    other_id: str = ""  # a model_id whose sizes do not fit

    def options(self, **more):
        return {self.option: {**self.sizes, **more}}

    def build(self, seed=0, **options):
        torch.manual_seed(seed)
        model = self.cls(**{**self.options(), **options})
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases that do nothing would hide mistakes
                torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    def wave(self, batch=2, seconds=1.0):
        generator = torch.Generator().manual_seed(1)
        return 0.1 * torch.randn(batch, round(seconds * self.sample_rate), generator=generator)


CASES = [
    Case(
        "eat_hf",
        ("eat",),
        Eat,
        eat_checkpoint,
        "eat_cfg",
        {**SIZES, "target_length": 128, "max_length": 16},
        16000,
        (2, 65, 16),
        (2, 65, 16),
        headless=("fairseq",),
        min_samples=400,
        other_id="worstchan/EAT-base_epoch30_pretrain",
    ),
    Case(
        "birdmae",
        (),
        BirdMae,
        birdmae_checkpoint,
        "config",
        SIZES,
        32000,
        (2, 16),
        (2, 16),
        unused={"backbone.norm.weight", "backbone.norm.bias"},
        headless=("huggingface", "pretraining"),
        other_id="DBD-research-group/Bird-MAE-Base",
    ),
    Case(
        "atst_frame",
        ("atst",),
        AtstFrame,
        atst_checkpoint,
        "config",
        {**SIZES, "drop_path_rate": 0.0},
        16000,
        (2, 25, 32),
        (2, 32),
        unused={"backbone.mask_embed"},
        headless=("encoder", "lightning"),
        min_samples=513,
        other_id="atst_frame_base",
    ),
]
# Layouts whose tensors are not all of ours.
PARTIAL = {"pretraining": "backbone.fc_norm."}

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def layouts(case):
    return [adapter.name for adapter in case.cls.checkpoint_adapters]


each_layout = pytest.mark.parametrize(
    ("case", "layout"), [pytest.param(c, n, id=f"{c.name}-{n}") for c in CASES for n in layouts(c)]
)


@each
def test_names(case):
    for name in (case.name, *case.aliases):
        model = avex.build_model(name, device="cpu", num_classes=3, **case.options())
        assert type(model) is case.cls
        assert model.classifier.out_features == 3
        assert model.sample_rate == model.frontend.sample_rate == case.sample_rate


@each
@torch.no_grad()
def test_shapes(case):
    features_only, classifier = case.build(return_features_only=True), case.build(num_classes=5)
    wave = case.wave()
    assert features_only(wave).shape == case.output
    assert classifier(wave).shape == (2, 5)
    features = classifier.forward_features(wave)
    assert tuple(features.values.shape) == case.shape
    assert features.pooled().shape == (2, classifier.embedding_dim) == classifier.embed(wave).shape
    embedding, logits = classifier.embed_and_classify(wave)
    torch.testing.assert_close(embedding, features.pooled())
    torch.testing.assert_close(logits, classifier(wave))
    assert not hasattr(case.build(num_classes=5, return_features_only=True), "classifier")
    with pytest.raises(ValueError, match="no classifier"):
        case.build()(wave)


@each
@torch.no_grad()
def test_layers(case):
    model = case.build(return_features_only=True)
    names = model.get_model_layers()
    assert len(names) == 3
    assert names[1:] == ["backbone.blocks.0", "backbone.blocks.1"]
    wave = case.wave()
    with tap_layers(model, names) as outputs, tap_layers(model, names, inputs=True) as inputs:
        model(wave)
    assert torch.equal(outputs[names[0]], inputs[names[1]])
    assert torch.equal(outputs[names[1]], inputs[names[2]])
    last = outputs[names[2]]
    both = model.embed(wave, ["layer_0", "layer_2"])
    assert both.shape == (2, 32)
    if case.name == "atst_frame":  # which has no CLS token
        torch.testing.assert_close(both[:, 16:], last.mean(1))
    else:
        torch.testing.assert_close(both[:, 16:], last[:, 1:].mean(1))
        torch.testing.assert_close(model.embed(wave, ["layer_2"], aggregation="cls_token"), last[:, 0])
    assert model.embed(wave, ["backbone.blocks.1.attn.proj"]).shape == (2, 16)


@each
@torch.no_grad()
def test_a_clip_does_not_depend_on_its_neighbours(case):
    model = case.build(num_classes=3)
    wave = case.wave(batch=3)
    wave[1] *= 100
    together = model.embed(wave)
    for i in range(3):
        torch.testing.assert_close(model.embed(wave[i : i + 1])[0], together[i], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


@each
@torch.no_grad()
def test_padding_masks_are_ignored_as_in_the_reference(case):
    model = case.build(return_features_only=True)
    wave = case.wave()
    mask = torch.zeros_like(wave).bool()
    mask[1, 8000:] = True
    assert torch.equal(model(wave, mask), model(wave))
    assert model.forward_features(wave, mask).padding_mask is None


@each
@torch.no_grad()
def test_silence_and_short_clips(case):
    model = case.build(num_classes=3)
    assert model(torch.zeros(1, case.sample_rate)).isfinite().all()
    assert model(torch.zeros(1, case.min_samples)).isfinite().all()
    with pytest.raises(ValueError, match=f"at least {case.min_samples}"):
        model(torch.zeros(1, case.min_samples - 1))
    with pytest.raises(ValueError, match="batch"):
        model(torch.zeros(case.sample_rate))


@torch.no_grad()
def test_a_norm_that_is_not_trained_stays_out_of_files_of_the_pretraining(tmp_path):
    case = next(case for case in CASES if case.name == "birdmae")
    state = case.build(return_features_only=True).state_dict()
    published = {
        name.replace("backbone.", "encoder."): value for name, value in state.items() if "fc_norm" not in name
    }
    save_file(published, tmp_path / "file.safetensors")
    options = {case.option: heads_of(case), "checkpoint_path": tmp_path / "file.safetensors"}
    model = avex.load_model("birdmae", **options)
    assert case.checkpoint.export_state(model.state_dict(), "pretraining").keys() == published.keys()
    model.backbone.fc_norm.bias[3] = 0.5
    save_file(case.checkpoint.export_state(model.state_dict(), "pretraining"), options["checkpoint_path"])
    again = avex.load_model("birdmae", **options)
    assert torch.equal(again.embed(case.wave()), model.embed(case.wave()))


@each_layout
@torch.no_grad()
def test_every_layout_loads_and_comes_out_again(case, layout, tmp_path):
    headless = layout in case.headless
    original = case.build(return_features_only=headless, num_classes=None if headless else 4)
    state = original.state_dict()
    if head_norm := layout == "fairseq_finetuned":
        state = case.build(num_classes=4, eat_cfg={**case.sizes, "head_norm": True}).state_dict()
    left_out = PARTIAL.get(layout, "nothing")
    state = {name: tensor for name, tensor in state.items() if not name.startswith(left_out)}
    published = case.checkpoint.export_state(state, layout)
    assert len(published) == len(state)
    save_file(published, tmp_path / "file.safetensors")
    model = avex.load_model(
        case.name, checkpoint_path=tmp_path / "file.safetensors", **{case.option: heads_of(case)}
    )
    assert model.return_features_only == headless
    assert set(model.load_report.loaded) == set(state)
    loaded = {name: tensor for name, tensor in model.state_dict().items() if name in state}
    again = case.checkpoint.export_state(loaded, layout)
    assert again.keys() == published.keys()
    assert all(torch.equal(again[key], published[key]) for key in published)
    assert not model.training
    if left_out == "nothing" and not head_norm:
        assert torch.equal(model(case.wave()), original(case.wave()))


def heads_of(case):
    """What no checkpoint states."""
    return {name: case.sizes[name] for name in case.sizes if name not in ("embed_dim", "depth", "max_length")}


@each
def test_heads_are_those_of_the_published_model_of_that_width_or_have_to_be_given(case, tmp_path):
    for sizes in type(case.build().config).published.values():
        width = sizes["embed_dim"]
        state = {"backbone.blocks.0.mlp.fc1.weight": torch.empty(4 * width, width, device="meta")}
        assert (
            case.cls.options_from_checkpoint({}, state)["checkpoint_config"]["num_heads"]
            == sizes["num_heads"]
        )
    save_file(case.build().state_dict(), tmp_path / "file.safetensors")
    with pytest.raises(ConfigError, match=f"length 16 has is not clear.* {case.option}={{'num_heads'"):
        avex.load_model(case.name, checkpoint_path=tmp_path / "file.safetensors")


@each
def test_layouts_have_no_place_for_what_they_lack(case):
    state = case.build(num_classes=4).state_dict()
    for layout in case.headless:
        with pytest.raises(WeightsError, match="classifier"):
            case.checkpoint.export_state(state, layout)
    with pytest.raises(UnknownNameError, match="'huggingfce'"):
        case.checkpoint.export_state(state, "huggingfce")


@each
def test_checkpoints_that_do_not_fit(case, tmp_path):
    path = tmp_path / "file.safetensors"
    state = case.build(num_classes=4).state_dict()
    heads = {case.option: heads_of(case)}
    save_file({**state, "backbone.blocks.1.norm1.bias": torch.zeros(17)}, path)
    with pytest.raises(WeightsError, match=r"backbone\.blocks\.1\.norm1\.bias"):
        avex.load_model(case.name, checkpoint_path=path, **heads)
    save_file({**state, "backbone.blocks.1.surprise": torch.zeros(17)}, path)
    with pytest.raises(WeightsError, match="surprise"):
        avex.load_model(case.name, checkpoint_path=path, **heads)
    del state["backbone.blocks.0.attn.qkv.weight"]
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"backbone\.blocks\.0\.attn\.qkv\.weight"):
        avex.load_model(case.name, checkpoint_path=path, **heads)
    save_file({"net.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="Formats tried"):
        avex.load_model(case.name, checkpoint_path=path)


@each
def test_a_model_id_fixes_the_size(case, tmp_path):
    save_file(case.build(num_classes=4).state_dict(), tmp_path / "file.safetensors")
    with pytest.raises(WeightsError, match="another size|lacks"):
        avex.load_model(case.name, checkpoint_path=tmp_path / "file.safetensors", model_id=case.other_id)


@each
def test_wrong_settings(case):
    with pytest.raises(ConfigError, match="no setting 'embed_dims'"):
        case.cls(**{case.option: {"embed_dims": 8}})
    with pytest.raises(ConfigError, match="heads"):
        case.cls(**case.options(num_heads=3))
    with pytest.raises(ConfigError, match="Unknown .* model 'someone/else'"):
        case.cls(model_id="someone/else")
    with pytest.raises(ConfigError, match="44100"):
        case.cls(audio_config={"sample_rate": 44100}, **case.options())


@each
def test_a_new_classifier_leaves_the_encoder(case, tmp_path):
    original = case.build(num_classes=4)
    save_file(original.state_dict(), tmp_path / "file.safetensors")
    model = avex.load_model(
        case.name,
        checkpoint_path=tmp_path / "file.safetensors",
        num_classes=9,
        **{case.option: heads_of(case)},
    )
    assert set(model.load_report.reset) == {"classifier.weight", "classifier.bias"}
    assert model(case.wave()).shape == (2, 9)
    with torch.no_grad():
        torch.testing.assert_close(model.embed(case.wave()), original.embed(case.wave()))


@each
def test_gradients_reach_everything(case):
    model = case.build(num_classes=3).train()
    wave = case.wave().requires_grad_()
    model(wave).square().sum().backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == case.unused
    assert wave.grad.any()


@each
def test_gradient_checkpointing(case):
    gradients = []
    for recompute in (False, True):
        model = case.build(num_classes=3).train()
        if recompute:
            model.enable_gradient_checkpointing()
        model(case.wave()).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, recomputed = gradients
    assert plain.keys() == recomputed.keys()
    for name in plain:
        torch.testing.assert_close(plain[name], recomputed[name])


@each
@torch.no_grad()
def test_train_and_eval_mode(case):
    model = case.build(return_features_only=True)
    wave = case.wave()
    torch.testing.assert_close(model.train()(wave), model.eval()(wave))
    dropping = case.build(return_features_only=True, **case.options(drop_path_rate=0.9))
    torch.testing.assert_close(dropping(wave), model(wave))
    torch.manual_seed(0)
    assert not torch.allclose(dropping.train()(wave), model(wave))


@each
@torch.no_grad()
def test_bfloat16(case):
    model = case.build(return_features_only=True)
    wave = case.wave()
    with torch.autocast("cpu", torch.bfloat16):
        assert model.frontend(wave)[0].dtype == torch.float32
        half = model.embed(wave)
    cosine = torch.nn.functional.cosine_similarity(half.float(), model.embed(wave))
    assert cosine.min() > 0.999
    assert not torch.equal(half.float(), model.embed(wave))


@each
@torch.no_grad()
def test_bfloat16_weights(case):
    model, half = case.build(return_features_only=True), case.build(return_features_only=True)
    half.to(torch.bfloat16)
    wave = case.wave()
    assert torch.equal(half.frontend(wave)[0], model.frontend(wave)[0])
    embedding = half.embed(wave)
    assert embedding.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(embedding.float(), model.embed(wave))
    assert cosine.min() > 0.999


@each
@torch.no_grad()
def test_the_same_as_one_compiled_graph(case):
    model = case.build(return_features_only=True).backbone
    frames = case.build().frontend(case.wave())[0]
    graph = torch.export.export(model, (frames,)).module()
    torch.testing.assert_close(graph(frames), model(frames))
