"""JSON templates as models of avex: trust, shapes, layers, and the same numbers as the template alone."""

from __future__ import annotations

import copy
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import avex
from avex._core.errors import ConfigError, UnknownModelError
from avex.models.template import trust
from avex.models.template.cards import TemplateRunError, template_card
from avex.models.template.catalogue import skeleton, template_faults, write_skeleton
from avex.models.template.model import TemplateModel
from avex.models.template.trust import TemplateTrustError, trust_template
from avex.models.utils.describe import describe_model
from avex.models.utils.registry import resolve
from avex.testing import check_model

PACKAGED = "general_purpose/log_mel_statistics.json"
COMMANDS = {
    "authors": ["Jane Doe", "John Smith"],
    "references": ["https://arxiv.org/abs/1234.5678"],
    "downstream_tasks": ["audio_representation"],
    "license": "MIT",
    "import_cmds": ["import torch"],
    "model_init": [
        "model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))"
    ],
    "sample_rate": 800,
    "in_shape": 2,
    "window_seconds": 0.5,
    "pre_proc": ["x = 2 * x"],
    "embed_fwd": ["y = model(x.unfold(1, 8, 8))"],
    "frame_rate": 100,
}
DECLARED = {
    **{
        key: COMMANDS[key] for key in ("authors", "references", "downstream_tasks", "sample_rate", "in_shape")
    },
    "entry": "torch.nn:Linear",
    "entry_kwargs": {"in_features": 400, "out_features": 3},
    "pre_processing": ["pad_to:0.5", "crop_to:0.5"],
}


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trust, "_trusted", set())
    return tmp_path


def save(content, name="t.json", **changes) -> str:
    content = {key: value for key, value in {**content, **changes}.items() if value is not None}
    Path(name).write_text(json.dumps(content))
    return name


# ------------------------------------------------------------------------------------------------- trust


def test_without_trust_nothing_runs_and_everything_is_shown():
    name = save(COMMANDS, install_cmds=["touch installed"], import_cmds=["touch imported", "import torch"])
    with pytest.raises(TemplateTrustError) as caught:
        avex.load_model(name)
    message = str(caught.value)
    for text in (
        "touch installed",
        "touch imported",
        "torch.nn.Sequential",
        "x = 2 * x",
        "y = model",
        "trust=True",
    ):
        assert text in message
    assert isinstance(caught.value, ConfigError)
    assert os.listdir() == ["t.json"]


def test_trust_runs_all_but_the_installation():
    name = save(COMMANDS, install_cmds=["touch installed"], import_cmds=["touch imported", "import torch"])
    avex.load_model(name, trust=True)
    assert sorted(os.listdir()) == ["imported", "t.json"]


def test_trust_is_given_to_a_content_not_to_a_file():
    name = save(COMMANDS)
    avex.load_model(name, trust=True)
    avex.load_model(save(COMMANDS, "copy.json"))  # the same content
    save(COMMANDS, embed_fwd=["y = x"])
    with pytest.raises(TemplateTrustError, match="y = x"):
        avex.load_model(name)


def test_a_card_cannot_trust_its_template():
    save(COMMANDS)
    for extra in ("{template: t.json, trust: true}", "{template: t.json}"):
        Path("card.yml").write_text(
            f"name: c\nmodel_spec: {{name: json_template, device: cpu, pretrained: false, extra_config: {extra}}}\n"
        )
        with pytest.raises(ConfigError, match="trust"):
            avex.load_model("card.yml")
    assert avex.load_model("card.yml", trust=True).embed(torch.zeros(1, 400)).shape == (1, 4)


def test_a_card_that_names_no_template():
    Path("c.yml").write_text("name: c\nmodel_spec: {name: json_template, device: cpu}\n")
    with pytest.raises(ConfigError, match="'c'.*must name the JSON file in extra_config"):
        avex.load_model("c.yml", trust=True)


def test_trust_of_a_model_that_is_no_template_changes_nothing():
    assert (
        avex.load_model("resnet18", trust=True, num_classes=2, audio_config={"sample_rate": 16000})
        is not None
    )


def test_a_declarative_template_needs_no_trust():
    model = avex.load_model(save(DECLARED))
    x = torch.randn(2, 250)
    expected = nn.functional.linear(
        nn.functional.pad(x, (0, 150)), model.backbone.weight, model.backbone.bias
    )
    torch.testing.assert_close(model.embed(x), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"entry": "os:system", "entry_kwargs": {"command": "touch hacked"}}, "standard library"),
        ({"entry": "subprocess:Popen", "entry_kwargs": {"args": "ls"}}, "standard library"),
        ({"entry": "builtins:exec", "entry_kwargs": {}}, "standard library"),
        ({"entry": "torch:load", "entry_kwargs": {"f": "t.json"}}, "may name a file"),
        (
            {"entry": "torch.hub:load", "entry_kwargs": {"repo_or_dir": "a/b", "model": "c"}},
            "may name a file",
        ),
        ({"entry_kwargs": {"x": "https://example.org"}}, "may name a file"),
        ({"entry_kwargs": {"trust_remote_code": True}}, "lets a model bring code"),
        ({"entry": "torch:zeros", "entry_kwargs": {"size": 3}}, "neither a class derived from"),
        ({"entry": "numpy:zeros", "entry_kwargs": {"shape": 3}}, "neither a class derived from"),
        ({"entry": "pytest:main", "entry_kwargs": {}}, "neither a class derived from"),
    ],
)
def test_callables_that_make_no_network_need_trust(change, reason):
    with pytest.raises(TemplateTrustError, match=reason):
        avex.load_model(save(DECLARED, **change))
    assert not Path("hacked").exists()


def test_a_package_that_came_with_the_template_is_not_imported():
    Path("dae_evil.py").write_text(
        "import pathlib, torch\npathlib.Path('imported').touch()\nclass Net(torch.nn.Identity): pass\n"
    )
    sys.path.insert(0, os.getcwd())
    try:
        with pytest.raises(TemplateTrustError, match="'dae_evil' lies in"):
            avex.load_model(save(DECLARED, entry="dae_evil:Net", entry_kwargs={}))
        assert not Path("imported").exists()
        assert avex.load_model("t.json", trust=True).embed(torch.zeros(1, 400)).shape == (1, 400)
    finally:
        sys.path.remove(os.getcwd())
        sys.modules.pop("dae_evil", None)


def test_an_annotated_factory_of_another_folder_needs_no_trust(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "dae_zoo.py").write_text(
        "from __future__ import annotations\nfrom torch import nn\n"
        "def build(width: int) -> nn.Module:\n    return nn.Linear(400, width)\n"
        "def other(width):\n    return nn.Linear(400, width)\n"
    )
    monkeypatch.syspath_prepend(folder)
    model = avex.load_model(save(DECLARED, entry="dae_zoo:build", entry_kwargs={"width": 5}))
    assert model.embedding_dim == 5
    with pytest.raises(TemplateTrustError, match="return annotation"):
        avex.load_model(save(DECLARED, entry="dae_zoo:other", entry_kwargs={"width": 5}))
    del sys.modules["dae_zoo"]


# ------------------------------------------------------------------------------------------------- the model


def test_steps_in_time():
    model = avex.load_model(save(COMMANDS), trust=True)
    assert isinstance(model, TemplateModel)
    assert (model.sample_rate, model.window_seconds, model.embedding_dim) == (800, 0.5, 4)
    x = torch.randn(3, 400)
    features = model.forward_features(x)
    expected = model.backbone(2 * x.reshape(3, 50, 8))
    torch.testing.assert_close(features.values, expected)
    assert features.layout.kind == "tokens"
    assert features.frame_times()[1] == 0.01
    torch.testing.assert_close(model.embed(x), expected.mean(1))
    torch.testing.assert_close(model(x), expected)  # load_model gives features where there is no classifier


def test_layers():
    model = avex.load_model(save(COMMANDS), trust=True)
    assert model.get_model_layers() == ["backbone.0", "backbone.2"]
    x = torch.randn(2, 400)
    hidden = model.extract_embeddings(x, layers=["backbone.0"], aggregation="mean")
    torch.testing.assert_close(hidden, model.backbone[0](2 * x.reshape(2, 50, 8)).mean(1))
    assert model.embed(x, layers=["layer_0", "last_layer"]).shape == (2, 6 + 4)


def test_a_model_that_is_no_module():
    name = save(
        COMMANDS, model_init=["model = abs"], embed_fwd=["y = model(x).numpy()[:, :3].astype('float64')"]
    )
    model = avex.load_model(name, trust=True)
    y = model.embed(torch.full((2, 400), -1.0))
    assert y.tolist() == [[2.0] * 3] * 2
    assert y.dtype == torch.float32
    assert model.get_model_layers() == []
    assert model.load_report.loaded == ()


def test_three_dimensions_of_input():
    name = save(
        COMMANDS,
        in_shape=3,
        pre_proc=["assert x.shape == (2, 1, 400), x.shape"],
        embed_fwd=["y = x[:, 0, :5]"],
    )
    x = torch.randn(2, 400)
    torch.testing.assert_close(avex.load_model(name, trust=True).embed(x), x[:, :5])


def test_a_classifier_on_top_can_be_trained():
    model = avex.load_model(PACKAGED, trust=True, num_classes=3)
    logits = model(torch.randn(2, 16000))
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert model.classifier.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("y = x[0]", r"expected `y` as \(B, D\).*found the shape \(400,\)"),
        ("y = x[:, None, None]", r"found the shape \(2, 1, 1, 400\)"),
        ("y = x.T", r"for 2 clips with the batch first, found the shape \(400, 2\)"),
        ("y = x[:, :0]", r"found the shape \(2, 0\)"),
        ("y = 'text'", "as a tensor or an array, found a str"),
        ("y = {'a': x}", "found a dict"),
        ("y = x * 1j", "real numbers in a dense tensor, found a complex tensor"),
        ("y = x.to_sparse()", "found a sparse tensor"),
        ("y = x.to('meta')", "found a meta tensor"),
        ("y = __import__('numpy').array([['a'], ['b']])", "found a ndarray"),
        ("z = x", "expected the commands to define 'y'"),
        ("y = nothing", "NameError"),
    ],
)
def test_what_is_no_embedding_is_refused(forward, message):
    model = avex.load_model(save(COMMANDS, embed_fwd=[forward]), trust=True)
    with pytest.raises(TemplateRunError, match=message):
        model.embed(torch.zeros(2, 400))


@pytest.mark.parametrize("change", ["[:, ::-1]", ".astype('>f4')[:, ::-1]", ".astype('f2')[:, ::-1]"])
def test_arrays_that_torch_does_not_take_as_they_are(change):
    forward = ["y = x.numpy()" + change, "y.flags.writeable = False"]
    model = avex.load_model(save(COMMANDS, pre_proc=[], embed_fwd=forward), trust=True)
    x = torch.arange(800.0).reshape(2, 400)
    assert model.embed(x).equal(x.flip(1))


def test_the_first_batch_tells_the_length():
    model = avex.load_model(save(COMMANDS, embed_fwd=["y = x"]), trust=True)
    assert model.embed(torch.zeros(1, 300)).shape == (1, 300)
    assert model.embedding_dim == 300
    with pytest.raises(TemplateRunError, match="has 400 values, but those of the first batch had 300"):
        model.embed(torch.zeros(1, 400))


def test_the_process_is_put_back():
    name = save(
        COMMANDS,
        import_cmds=[
            "import os, sys, torch",
            "os.mkdir('sub')",
            "os.chdir('sub')",
            "sys.path.insert(0, 'x')",
        ],
        embed_fwd=["import os", "os.chdir('sub')", "y = x[:, :2]"],
    )
    before = os.getcwd(), list(sys.path)
    avex.load_model(name, trust=True).embed(torch.zeros(1, 400))
    assert (os.getcwd(), list(sys.path)) == before


def test_a_missing_package_and_what_to_do():
    with pytest.raises(TemplateRunError, match="no_such_package_y.*--trust --install"):
        avex.load_model(save(COMMANDS, import_cmds=["import no_such_package_y"]), trust=True)


def test_two_loads_compute_the_same_under_one_name():
    from avex.weights.fingerprint import weights_identity

    save(COMMANDS, model_init=["torch.manual_seed(0)", *COMMANDS["model_init"]])
    one, two = (avex.load_model("t.json", trust=True) for _ in range(2))
    assert weights_identity(one) == weights_identity(two)
    three = avex.load_model(
        save(COMMANDS, model_init=["torch.manual_seed(1)", *COMMANDS["model_init"]]), trust=True
    )
    assert weights_identity(three) != weights_identity(one)


def test_a_copy_has_weights_of_its_own():
    model = avex.load_model(save(COMMANDS, pre_proc=["x = x * model[2].bias.numel()"]), trust=True)
    x = torch.randn(2, 400)
    before = model.embed(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.backbone[2].weight.zero_()
    torch.testing.assert_close(model.embed(x), before)
    torch.testing.assert_close(twin.embed(x), twin.backbone[2].bias.expand(2, 4))


def test_the_rules_that_pipelines_rely_on():
    model = avex.load_model(save(COMMANDS), trust=True)
    # What a template says to a clip of one sample is its own affair, and modules that it imported have no copies.
    check_model(model, skip=["short", "copies"])
    with pytest.raises(TypeError, match="cannot be pickled.*Load the template again"):
        pickle.dumps(model)


def test_another_sample_rate_is_refused():
    save(COMMANDS)
    with pytest.raises(ConfigError, match="takes audio at 800 Hz, but audio_config says 16000 Hz"):
        avex.load_model("t.json", trust=True, audio_config={"sample_rate": 16000})


# --------------------------------------------------------------------------------------------- cards and commands


def test_the_card():
    card = resolve(save(COMMANDS))
    assert (card.name, card.license, card.paper) == ("t", "MIT", "https://arxiv.org/abs/1234.5678")
    assert card.citation.startswith("Jane Doe, John Smith.")
    assert card.model_spec.audio_config.target_length_seconds == 0.5
    assert card == template_card("t.json")
    info = describe_model("t.json")
    assert info["audio_config"]["sample_rate"] == 800
    assert info["_metadata"]["available"]


def test_faults_of_a_file_are_errors_of_avex():
    with pytest.raises(ConfigError, match="no such file"):
        avex.load_model("nowhere.json")
    with pytest.raises(ConfigError, match="key 'sample_rate': expected an integer"):
        avex.load_model(save(COMMANDS, sample_rate="x"))
    with pytest.raises(UnknownModelError, match="ending in .json"):
        avex.load_model("nowhere")
    with pytest.raises(TemplateRunError, match="is not valid Python"):
        avex.load_model(save(COMMANDS, embed_fwd=["y ="]), trust=True)


def test_embed_uses_rate_and_window():
    soundfile.write("a.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 1600).astype(np.float32), 800)
    save(COMMANDS)
    trust_template("t.json")
    store = avex.embed("a.wav", "t.json")
    assert store.to_numpy().shape == (4, 4)  # windows of 0.5 s
    assert store.header.card == "t"
    assert store.header.sample_rate == 800


@pytest.mark.parametrize("declarative", [False, True])
def test_a_skeleton_is_valid_and_runs(declarative):
    write_skeleton(Path("new.json"), 8000, declarative)
    assert template_faults("new.json") == []
    assert json.loads(Path("new.json").read_text()) == skeleton(8000, declarative)
    model = avex.load_model("new.json", trust=not declarative)
    assert model.embed(torch.rand(2, 8000)).shape[0] == 2
    with pytest.raises(ConfigError, match="exists already"):
        write_skeleton(Path("new.json"))
    with pytest.raises(ConfigError, match=r"should end in \.json"):
        write_skeleton(Path("new.yml"))
