"""Every code block of the Py-Torch-DAE document, as printed; what needs a network is replaced by local files."""
# ruff: noqa: E501

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

USAGE = """
from deep_audio_embedding import (load_model_dict,
                                  install_dependencies,
                                  import_pkgs,
                                  model_init,
                                  pre_proc,
                                  compute_embedding)

# Load the model JSON template
model_dict = load_model_dict("general_purpose/[model_name].json")

# Install dependencies
install_dependencies(model_dict)

# Set up imports and environment
namespace = import_pkgs(model_dict)

# Init model
model = model_init(model_dict, namespace)                   # returns a Pytorch nn.Module, or an abstract Class containing it

# Pre-process input
x_pre = pre_proc(model_dict, x, namespace)                  # x should be a torch.Tensor (see TorchAudio.IO documentations)

# Compute embedding
y = compute_embedding(model_dict, model, x_pre, namespace)
"""

EXAMPLE = """{
  "authors": ["Jane Doe", "John Smith"],
  "references": ["https://arxiv.org/abs/1234.5678", "https://github.com/janedoe/audio-embed"],
  "downstream_tasks": ["audio_classification"],
  "install_cmds": ["git clone https://github.com/janedoe/audio-embed", "pip install torch"],
  "import_context": "./audio-embed/",
  "import_cmds": [
    "import sys",
    "import os",
    "sys.path.insert(0, os.getcwd())",
    "from model import MyDAE"
  ],
  "model_init": ["model = MyDAE(pretrained=True)"],
  "sample_rate": 16000,
  "in_shape": 2,
  "pre_proc": ["x = preprocess_audio(x)"],
  "embed_fwd": ["y = model(x)"]
}
"""

MODEL_PY = """
import torch


class MyDAE(torch.nn.Module):
    def __init__(self, pretrained):
        super().__init__()
        self.factor = 2.0 if pretrained else 0.0

    def forward(self, x):
        return self.factor * x.mean(-1, keepdim=True)


def preprocess_audio(x):
    return x + 1
"""


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    """A working directory next to a local repository that stands for the one to clone."""
    origin = tmp_path / "origin" / "audio-embed"
    origin.mkdir(parents=True)
    (origin / "model.py").write_text(MODEL_PY)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    yield work
    sys.modules.pop("model", None)


def offline(text: str) -> str:
    """The example with its two downloads replaced by a copy and by asking pip's interpreter for torch."""
    text = text.replace("git clone https://github.com/janedoe/audio-embed", "cp -R ../origin/audio-embed .")
    return text.replace("pip install torch", "python -c 'import sys'")


def run_usage(name: str, x):
    scope = {"x": x}
    exec(USAGE.replace("general_purpose/[model_name].json", name), scope)
    return scope


def test_the_usage_with_a_packaged_template():
    import torch

    scope = run_usage("general_purpose/log_mel_statistics.json", torch.zeros(2, 16000))
    assert isinstance(scope["model"], torch.nn.Module)
    assert scope["y"].shape == (2, 128)


def test_the_usage_needs_no_third_party_package(tmp_path):
    """`-S` leaves site-packages out, so any import beyond the standard library would fail."""
    template = {**json.loads(EXAMPLE), "install_cmds": [], "import_cmds": [], "pre_proc": ["x = -x"]}
    template.update(model_init=["model = abs"])
    del template["import_context"]
    (tmp_path / "t.json").write_text(json.dumps(template))
    source = str(Path(__file__).resolve().parents[2] / "src")
    code = f"import sys; sys.path.insert(0, {source!r}); x = 3\n{USAGE}\nprint(x_pre, y)"
    code = code.replace("general_purpose/[model_name].json", "t.json")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "-3 3\n"


def test_the_example_structure_is_valid_as_printed(working_directory):
    from deep_audio_embedding import describe_template, load_model_dict

    Path("example.json").write_text(EXAMPLE)
    assert load_model_dict("example.json") == json.loads(EXAMPLE)
    steps = {step.function: step for step in describe_template("example.json").steps}
    assert steps["install_dependencies"].commands == (
        ("shell", "git clone https://github.com/janedoe/audio-embed"),
        ("shell", "pip install torch"),
    )
    assert steps["import_pkgs"].directory == str(working_directory / "audio-embed")
    assert {kind for kind, _ in steps["import_pkgs"].commands} == {"python"}


def test_the_example_structure_runs(working_directory):
    """The printed example uses `preprocess_audio` and imports it nowhere: here it does."""
    import torch

    text = offline(EXAMPLE).replace("import MyDAE", "import MyDAE, preprocess_audio")
    Path("example.json").write_text(text)
    search_path = list(sys.path)
    scope = run_usage("example.json", torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    assert scope["x_pre"].tolist() == [[2.0, 4.0], [6.0, 6.0]]
    assert scope["y"].tolist() == [[6.0], [12.0]]
    assert Path.cwd() == working_directory
    assert sys.path == search_path


def test_what_the_printed_example_forgets_is_named(working_directory):
    import torch

    from deep_audio_embedding import CommandError

    Path("example.json").write_text(offline(EXAMPLE))
    with pytest.raises(CommandError) as caught:
        run_usage("example.json", torch.zeros(1, 2))
    message = str(caught.value)
    assert f"template '{working_directory / 'example.json'}', key 'pre_proc': item 1" in message
    assert "`x = preprocess_audio(x)` raised NameError: name 'preprocess_audio' is not defined" in message


def test_the_clone_must_be_there_before_the_import(working_directory):
    from deep_audio_embedding import TemplateFormatError, import_pkgs, load_model_dict

    Path("example.json").write_text(EXAMPLE)
    with pytest.raises(
        TemplateFormatError, match=r"key 'import_context'.*does install_dependencies.*'./audio-embed/'"
    ):
        import_pkgs(load_model_dict("example.json"))


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("authors", list), ("references", list), ("downstream_tasks", list), ("model_init", list),
        ("sample_rate", int), ("in_shape", int), ("embed_fwd", list),
    ],
)  # fmt: skip
def test_the_tables_of_required_keys(key, kind):
    from deep_audio_embedding import TemplateFormatError, describe_template

    template = json.loads(EXAMPLE)
    template["install_cmds"] = []
    assert isinstance(template[key], kind)
    del template[key]
    with pytest.raises(TemplateFormatError, match=f"key '{key}'"):
        describe_template(template)


@pytest.mark.parametrize("key", ["install_cmds", "import_context", "import_cmds", "pre_proc"])
def test_the_table_of_optional_keys(key):
    """`import_cmds` is required by one table of the document and optional by the other: it is optional."""
    from deep_audio_embedding import describe_template

    template = json.loads(EXAMPLE)
    del template[key]
    describe_template(template)
