"""Reading and checking JSON templates: nothing here executes one."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import deep_audio_embedding as dae
from deep_audio_embedding import _paths, _schema
from deep_audio_embedding._template import MAX_BYTES

VALID = {
    "authors": ["Jane Doe"],
    "references": ["https://arxiv.org/abs/1234.5678"],
    "downstream_tasks": ["audio_classification"],
    "model_init": ["model = abs"],
    "sample_rate": 16000,
    "in_shape": 2,
    "embed_fwd": ["y = model(x)"],
}
PACKAGED = "general_purpose/log_mel_statistics.json"


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(content, name="t.json") -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return name


def refused(content) -> dae.TemplateFormatError:
    name = save(content)
    with pytest.raises(dae.TemplateFormatError) as caught:
        dae.load_model_dict(name)
    assert caught.value.file == os.path.abspath(name)
    assert os.path.abspath(name) in str(caught.value)
    assert len(str(caught.value)) < 3000
    return caught.value


# ------------------------------------------------------------------------------------------------- finding


def test_a_template_is_a_dict_that_knows_its_file():
    template = dae.load_model_dict(save(VALID))
    assert template == VALID
    assert isinstance(template, dict)
    assert template.file == os.path.abspath("t.json")
    assert dae.load_model_dict(Path("t.json").absolute()) == VALID
    assert dae.load_model_dict("./t.json") == VALID


@pytest.mark.parametrize(
    "name", [PACKAGED, f"backbones/{PACKAGED}", "log_mel_statistics.json", Path(PACKAGED)]
)
def test_packaged_names(name):
    assert dae.load_model_dict(name).file == str(_paths.BACKBONES / PACKAGED)


def test_every_category_of_the_document_is_packaged():
    assert {path.name for path in _paths.BACKBONES.iterdir()} == {
        "general_purpose",
        "speech",
        "music",
        "encoding",
    }
    assert PACKAGED in dae.list_templates()


@pytest.mark.parametrize("name", dae.list_templates())
def test_every_packaged_template_is_valid_and_compiles(name):
    assert dae.describe_template(name).file.endswith(name)


def test_a_name_that_fits_two_files_is_not_guessed():
    save(VALID, PACKAGED)
    with pytest.raises(dae.TemplateNotFoundError, match=f"fits both.*'./{PACKAGED}'"):
        dae.load_model_dict(PACKAGED)
    assert dae.load_model_dict(f"./{PACKAGED}")["authors"] == ["Jane Doe"]


def test_the_same_file_found_twice_is_no_conflict(monkeypatch):
    monkeypatch.chdir(_paths.BACKBONES)
    assert dae.load_model_dict(PACKAGED).file == str(_paths.BACKBONES / PACKAGED)


@pytest.mark.parametrize("name", ["", ".", "no.json", "a\0b.json", "x" * 5000, "/no/such.json", "../no.json"])
def test_missing_files(name):
    with pytest.raises(dae.TemplateNotFoundError) as caught:
        dae.load_model_dict(name)
    assert isinstance(caught.value, (dae.TemplateError, FileNotFoundError))


def test_the_nearest_name_is_offered():
    with pytest.raises(FileNotFoundError, match=f"Did you mean '{PACKAGED}'"):
        dae.load_model_dict("general_purpose/logmel_statistics.json")


def test_a_name_like_no_other_gets_no_offer():
    with pytest.raises(FileNotFoundError) as caught:
        dae.load_model_dict("nosuch.json")
    assert "Did you mean" not in str(caught.value)


def test_keys_that_would_steer_a_terminal_are_escaped():
    assert "key '\\x1b[2Ja'" in str(refused({**VALID, "\x1b[2Ja": 1}))
    assert "key '\\x1b[2Ja'" in str(refused('{"\\u001b[2Ja": 1, "\\u001b[2Ja": 2}'))


def test_the_package_is_not_a_way_into_other_folders():
    assert (_paths.BACKBONES / "../template.schema.json").exists()
    with pytest.raises(dae.TemplateNotFoundError):
        dae.load_model_dict("speech/../../template.schema.json")


def test_a_pipe_is_not_waited_for():
    os.mkfifo("pipe.json")
    with pytest.raises(dae.TemplateNotFoundError, match="not a file"):
        dae.load_model_dict("pipe.json")


# ------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_nesting(opening):
    assert "nested too deeply" in str(refused(opening * 50_000))


def test_nesting_that_some_versions_of_python_read():
    refused('{"authors":' + "[" * 2_000 + "]" * 2_000 + "}")


def test_fifty_megabytes():
    error = refused('{"authors": ["' + "x" * 50_000_000 + '"]}')
    assert f"at most {MAX_BYTES} bytes, found 50000017 bytes" in str(error)


def test_a_file_that_is_just_too_large():
    assert len(json.dumps(VALID)) < MAX_BYTES
    dae.load_model_dict(save(json.dumps(VALID).ljust(MAX_BYTES)))
    refused(json.dumps(VALID).ljust(MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"authors": ["J\xf6rn"]}', "expected UTF-8 text, found byte 0xf6 at 15"),
        (b"\xff\xfe{\x00", "expected UTF-8"),
        ("", "expected JSON, found Expecting value at line 1"),
        ('{"authors": [,]}', "line 1, column 14"),
        ("[]", "expected a JSON object, found a list"),
        ("null", "expected a JSON object, found a NoneType"),
        ('{"sample_rate": 1, "sample_rate": 2}', "key 'sample_rate': expected each key once"),
        ('{"a": {"b": 1, "b": 1}}', "key 'b': expected each key once"),
        ('{"sample_rate": NaN}', "the constant NaN"),
        ('{"sample_rate": -Infinity}', "the constant -Infinity"),
        ('{"sample_rate": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_text_that_is_no_strict_json(content, message):
    assert message in str(refused(content))


def test_a_byte_order_mark_is_allowed():
    assert dae.load_model_dict(save(b"\xef\xbb\xbf" + json.dumps(VALID).encode())) == VALID


# ------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("key", VALID)
def test_required_keys(key):
    error = refused({name: value for name, value in VALID.items() if name != key})
    assert error.key == key
    assert error.faults[0].found == "no such key"


@pytest.mark.parametrize(
    "key",
    ["install_cmds", "import_context", "import_cmds", "model_init_context", "pre_proc", "pre_proc_context"],
)
def test_optional_keys_take_what_the_document_says(key):
    value = "." if key.endswith("context") else ["x = x"]
    assert dae.load_model_dict(save({**VALID, key: value}))[key] == value


@pytest.mark.parametrize(
    ("key", "value", "expected", "found"),
    [
        ("sample_rate", "16000", "an integer from 1", "'16000'"),
        ("sample_rate", 16000.0, "an integer from 1", "16000.0 (float)"),
        ("sample_rate", True, "an integer from 1", "True (bool)"),
        ("sample_rate", 0, "an integer from 1", "0 (int)"),
        ("sample_rate", 10**400, "an integer from 1", "an integer of 1329 bits"),
        ("sample_rate", None, "an integer from 1", "None (NoneType)"),
        ("in_shape", 1, "the integer 2 or 3", "1 (int)"),
        ("authors", "Jane Doe", "a list of 1 to 500 texts", "'Jane Doe'"),
        ("authors", [], "a list of 1 to 500 texts", "a list of 0 items"),
        ("authors", [""], "a text of 1 to", "''"),
        ("embed_fwd", ["y = x"] * 501, "a list of 1 to 500 texts", "a list of 501 items"),
        ("embed_fwd", "y = x", "a list of 1 to 500 texts", "'y = x'"),
        ("embed_fwd", [["y = x"]], "a text of 0 to 65536 characters", "a list of 1 items"),
        ("embed_fwd", ["y" * 65537], "a text of 0 to 65536 characters", "a text of 65537 characters, 'yyyy"),
        ("embed_fwd", ["y = x\0"], "without NUL", "'y = x\\x00'"),
        ("embed_fwd", ["y = '\ud800'"], "without NUL", "\\ud800"),
        ("import_context", ["a"], "a text of 1 to 4096", "a list of 1 items"),
        ("import_context", "../other", "a directory inside the working directory", "'../other'"),
        ("model_init_context", "a/../../b", "a directory inside the working directory", "'a/../../b'"),
        ("pre_proc_context", "..", "a directory inside the working directory", "'..'"),
        ("pre_proc_context", "a\\..\\..\\b", "a directory inside the working directory", "a\\\\..\\\\"),
        ("install_cmd", ["x"], "did you mean 'install_cmds'?", "an unknown key"),
    ],
)
def test_faults_name_the_key_what_was_expected_and_what_was_found(key, value, expected, found):
    error = refused({**VALID, key: value})
    assert error.key == key
    assert error.faults[0].key.startswith(key)
    assert expected in error.faults[0].expected
    assert found in error.faults[0].found


def test_all_faults_are_listed_at_once():
    error = refused({**VALID, "sample_rate": "x", "in_shape": 7, "embed_fwd": ["y = x", 3]})
    assert [fault.key for fault in error.faults] == ["sample_rate", "in_shape", "embed_fwd[2]"]


def test_many_faults_are_counted():
    assert "and 397 more" in str(refused({**VALID, **{f"key{i}": 1 for i in range(407)}}))


def test_a_plain_dict_is_checked_too():
    with pytest.raises(dae.TemplateFormatError, match="template '<dict>': key 'embed_fwd'"):
        dae.compute_embedding({**VALID, "embed_fwd": 1}, abs, 1, {})
    with pytest.raises(dae.TemplateFormatError, match="expected a dict"):
        dae.import_pkgs("x.json")
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(dae.TemplateFormatError, match=r"authors\[1\]"):
        dae.import_pkgs({**VALID, "authors": deep})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


DOCUMENT_KEYS = {
    *VALID, "$schema", "install_cmds", "import_context", "import_cmds", "model_init_context", "pre_proc",
    "pre_proc_context",
}  # fmt: skip


@given(st.sampled_from(sorted(DOCUMENT_KEYS)), JSON_VALUES)
def test_any_value_is_either_right_or_a_fault_of_its_key(key, value):
    faults = _schema.find_faults({**VALID, key: value})
    assert all(fault.key.partition("[")[0] == key for fault in faults)
    integers = key in ("sample_rate", "in_shape")
    texts = key == "$schema" or key.endswith("_context")
    right = int if integers else str if texts else list
    if isinstance(value, bool) or not isinstance(value, right):
        assert faults


def test_the_schema_names_the_keys_of_the_document():
    schema = _schema.schema()
    commands, declarative = schema["oneOf"]
    assert {*schema["required"], *commands["required"]} == set(VALID)
    assert declarative["required"] == ["entry"]
    assert set(schema["properties"]) - DOCUMENT_KEYS == {
        "entry", "entry_kwargs", "pre_processing", "output", "requires",
        "window_seconds", "frame_rate", "license", "tested", "notes",
    }  # fmt: skip
    assert all(rule["description"] for rule in schema["properties"].values())


# ------------------------------------------------------------------------------------------------- the package


def test_importing_loads_the_standard_library_only():
    code = (
        "import sys; before = set(sys.modules); import deep_audio_embedding\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names), sorted(new & {'json', 'subprocess', 'inspect', 'logging'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['deep_audio_embedding'] []"


def test_exported_names():
    assert set(dae.__all__) >= {
        "load_model_dict", "install_dependencies", "import_pkgs", "model_init", "pre_proc", "compute_embedding",
        "describe_template", "list_templates",
    }  # fmt: skip
    assert all(hasattr(dae, name) for name in dae.__all__)


@pytest.mark.parametrize("module", ["_commands", "_describe", "_paths", "_template"])
def test_the_examples_in_the_documentation_hold(module):
    result = doctest.testmod(importlib.import_module(f"deep_audio_embedding.{module}"))
    assert result.attempted >= 1
    assert result.failed == 0
