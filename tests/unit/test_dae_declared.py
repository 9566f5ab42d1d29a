"""Declarative templates in the stand-alone package: a callable and named steps in place of commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import deep_audio_embedding as dae
from deep_audio_embedding._declared import pre_processed

VALID = {
    "authors": ["Jane Doe"],
    "references": ["https://arxiv.org/abs/1234.5678"],
    "downstream_tasks": ["audio_classification"],
    "sample_rate": 16000,
    "in_shape": 2,
    "entry": "torch.nn:Linear",
    "entry_kwargs": {"in_features": 4, "out_features": 3, "bias": False},
    "pre_processing": ["scale:2", "pad_to:0.00025"],
}


def run(template, x):
    namespace = dae.import_pkgs(template)
    model = dae.model_init(template, namespace)
    return model, dae.compute_embedding(template, model, dae.pre_proc(template, x, namespace), namespace)


def faults(template) -> dict[str, str]:
    with pytest.raises(dae.TemplateFormatError) as caught:
        dae.describe_template(template)
    return {fault.key: str(fault) for fault in caught.value.faults}


def test_the_six_functions_run_it():
    dae.install_dependencies(VALID)  # there is nothing to install
    model, y = run(VALID, torch.tensor([[1.0, 2.0, 3.0]]))
    assert not model.training
    torch.testing.assert_close(y, torch.tensor([[2.0, 4.0, 6.0, 0.0]]) @ model.weight.T)


def test_the_dry_run_shows_the_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = dae.describe_template({**VALID, "output": "hidden"})
    assert [text for step in plan.steps for _, text in step.commands] == [
        "import torch.nn",
        "model = torch.nn.Linear(in_features=4, out_features=3, bias=False)",
        "scale:2",
        "pad_to:0.00025",
        "y = model(x).hidden",
    ]
    assert "import torch.nn" in str(plan)


def test_commands_and_an_entry_exclude_each_other():
    found = faults({**VALID, "model_init": ["model = 1"], "install_cmds": ["rm -rf /"]})
    assert set(found) == {"model_init", "install_cmds"}
    assert "no commands beside 'entry'" in found["install_cmds"]
    commands = {key: VALID[key] for key in list(VALID)[:5]} | {
        "model_init": ["model = abs"],
        "embed_fwd": ["y = x"],
    }
    assert set(faults({**commands, "pre_processing": ["mono"], "output": "0"})) == {
        "pre_processing",
        "output",
    }


def test_neither_commands_nor_an_entry():
    found = faults({key: VALID[key] for key in list(VALID)[:5]})
    assert set(found) == {"model_init", "embed_fwd"}


@pytest.mark.parametrize(
    "entry",
    ["torch.nn", "torch.nn:", ":Linear", "os; import os:x", "torch.nn:Linear()", "a b:c", "..torch:nn",
     "torch.nn:_C", "torch.__builtins__:x", "torch/nn:Linear", "torch.nn:Linear\n", "torch.nn:Linear.__init__",
     "x" * 500 + ":y"],
)  # fmt: skip
def test_only_dotted_names_are_entries(entry):
    assert "entry" in faults({**VALID, "entry": entry})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("entry_kwargs", {"a": [1]}),
        ("entry_kwargs", {"a": None}),
        ("entry_kwargs", {"a b": 1}),
        ("entry_kwargs", {"__class__": 1}),
        ("entry_kwargs", {"a": {"b": 1}}),
        ("entry_kwargs", {"a": float("inf")}),
        ("entry_kwargs", {f"a{i}": 1 for i in range(101)}),
        ("entry_kwargs", [1]),
        ("pre_processing", ["peak_normalise"]),
        ("pre_processing", ["pad_to"]),
        ("pre_processing", ["pad_to:-1"]),
        ("pre_processing", ["scale:1e9"]),
        ("pre_processing", ["mono; import os"]),
        ("pre_processing", "mono"),
        ("output", "a.b"),
        ("requires", ["torch; rm -rf /"]),
        ("requires", ["--index-url=http://x"]),
        ("requires", ["git+https://example.org/x"]),
        ("window_seconds", 0),
        ("window_seconds", "3"),
        ("window_seconds", True),
        ("frame_rate", float("nan")),
        ("tested", "yes"),
        ("notes", "text"),
    ],
)
def test_wrong_values(key, value):
    found = faults({**VALID, key: value})
    assert all(name.startswith(key) for name in found)
    assert all(len(text) < 600 for text in found.values())


def test_requirements_are_named_when_the_package_is_missing():
    template = {**VALID, "entry": "no_such_package_x.nets:Net", "requires": ["nets-x>=1.2", "torch[extra]"]}
    with pytest.raises(
        dae.EntryError, match=r"No module named 'no_such_package_x'.*pip install nets-x>=1.2 torch"
    ) as caught:
        dae.import_pkgs(template)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"entry": "torch.nn:Linnear"}, "there is no 'Linnear'"),
        ({"entry": "torch.nn:functional"}, "expected a callable, found a module"),
        ({"entry_kwargs": {"width": 1}}, "calling it raised TypeError.*width"),
        ({"entry": "gc:enable", "entry_kwargs": {}}, "returned None"),
        ({"pre_processing": []}, "the model raised RuntimeError"),
        ({"output": "hidden"}, "expected 'hidden' in what the model returns, found a Tensor"),
        ({"output": "7"}, "expected '7'"),
    ],
)
def test_what_goes_wrong_is_named(change, message):
    with pytest.raises(dae.EntryError, match=message) as caught:
        run({**VALID, **change}, torch.zeros(1, 3))
    assert caught.value.key in ("entry", "output")


def test_an_entry_cannot_end_the_program(tmp_path, monkeypatch):
    (tmp_path / "dae_ends.py").write_text("raise SystemExit('at import')\n")
    (tmp_path / "dae_ends_later.py").write_text(
        "import sys\ndef at_call(): sys.exit('at call')\ndef at_run(): return lambda x: sys.exit('at run')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    kwargs = {"entry_kwargs": {}, "pre_processing": []}
    for entry, when in (
        ("dae_ends:f", "at import"),
        ("dae_ends_later:at_call", "at call"),
        ("dae_ends_later:at_run", "at run"),
    ):
        with pytest.raises(dae.EntryError, match=f"raised SystemExit: {when}"):
            run({**VALID, **kwargs, "entry": entry}, torch.zeros(1, 2))
    del sys.modules["dae_ends_later"]


def test_output_selects_by_position_key_and_attribute(tmp_path, monkeypatch):
    (tmp_path / "dae_nets.py").write_text(
        "import types\n"
        "def pair(): return lambda x: (x, x + 1)\n"
        "def table(): return lambda x: {'a': x, 'b': x + 2}\n"
        "def thing(): return lambda x: types.SimpleNamespace(hidden=x + 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    x = torch.zeros(1, 2)
    for entry, output, added in (("pair", "1", 1), ("table", "b", 2), ("thing", "hidden", 3)):
        template = {
            **VALID,
            "entry": f"dae_nets:{entry}",
            "entry_kwargs": {},
            "pre_processing": [],
            "output": output,
        }
        assert (run(template, x)[1] == added).all()
    del sys.modules["dae_nets"]


# ------------------------------------------------------------------------------------------------- named steps


def test_steps_by_hand():
    x = torch.tensor([[1.0, -4.0, 2.0], [0.0, 0.0, 0.0]])
    assert pre_processed(x, ["peak_normalize"], 1).tolist() == [[0.25, -1.0, 0.5], [0.0, 0.0, 0.0]]
    assert pre_processed(x, ["scale:0.5"], 1).tolist() == [[0.5, -2.0, 1.0], [0.0, 0.0, 0.0]]
    assert pre_processed(x, ["pad_to:2.5"], 2)[0].tolist() == [1.0, -4.0, 2.0, 0.0, 0.0]
    assert pre_processed(x, ["pad_to:1"], 2).shape == (2, 3)
    assert pre_processed(x, ["crop_to:1"], 2)[0].tolist() == [1.0, -4.0]
    assert pre_processed(x[None], ["mono"], 1).tolist() == [[[0.5, -2.0, 1.0]]]
    assert pre_processed(x, ["mono"], 1) is x
    assert type(pre_processed(x, ["to_numpy"], 1)).__name__ == "ndarray"
    standard = pre_processed(x, ["standardize"], 1)
    assert standard[0].mean().abs() < 1e-6
    assert standard[0].var(unbiased=False) == pytest.approx(1, abs=1e-4)
    assert standard[1].tolist() == [0.0, 0.0, 0.0]


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20), st.integers(1, 20), st.integers(1, 20)
)
def test_pad_and_crop_keep_what_was_there(samples, target, rate):
    x = torch.tensor([samples])
    padded = pre_processed(x, [f"pad_to:{target}"], rate)
    assert padded.shape[-1] == max(len(samples), target * rate)
    assert padded[:, : len(samples)].equal(x)
    assert not padded[:, len(samples) :].any()
    assert pre_processed(padded, [f"crop_to:{target}"], rate).shape[-1] == target * rate
    assert x.tolist() == torch.tensor([samples]).tolist()


def test_a_file_is_read_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("d.json").write_text(json.dumps(VALID))
    assert dae.load_model_dict("d.json") == VALID
