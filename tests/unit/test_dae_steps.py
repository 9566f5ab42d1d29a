"""Running templates: what the steps hand on, what they put back, and how they fail."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest

from deep_audio_embedding import (
    CommandError,
    InputShapeError,
    MissingResultError,
    ModelDict,
    Namespace,
    ShellCommandError,
    TemplateFormatError,
    compute_embedding,
    describe_template,
    import_pkgs,
    install_dependencies,
    model_init,
    pre_proc,
)


@pytest.fixture(autouse=True)
def everything_is_put_back(tmp_path, monkeypatch):
    """Every test here also checks that the process is as it was."""
    monkeypatch.chdir(tmp_path)
    path, entries, modules = sys.path, list(sys.path), set(sys.modules)
    yield
    assert os.getcwd() == str(tmp_path)
    assert sys.path is path
    assert sys.path == entries
    for name in set(sys.modules) - modules:
        if name.startswith("dae_test_"):
            del sys.modules[name]


def template(**keys) -> ModelDict:
    values = {
        "authors": ["A"], "references": ["B"], "downstream_tasks": ["C"], "model_init": ["model = abs"],
        "sample_rate": 16000, "in_shape": 2, "embed_fwd": ["y = model(x)"],
    }  # fmt: skip
    return ModelDict({**values, **keys}, "folder/t.json")


# ------------------------------------------------------------------------------------------------- the way through


def test_all_steps_without_any_third_party_package():
    t = template(
        import_cmds=["import math"],
        model_init=[
            "scale = 10",
            "class Model:",
            "    def __call__(self, x):",
            "        return math.sqrt(x) * scale",
            "model = Model()",
        ],
        pre_proc=["x = x + 1"],
    )
    assert install_dependencies(t) is None
    namespace = import_pkgs(t)
    model = model_init(t, namespace)
    x_pre = pre_proc(t, 3, namespace)
    assert x_pre == 4
    assert compute_embedding(t, model, x_pre, namespace) == 20.0


def test_a_template_that_imports_nothing_has_an_empty_namespace():
    namespace = import_pkgs(template())
    assert isinstance(namespace, dict)
    assert [name for name in namespace if not name.startswith("__")] == []
    assert model_init(template(), namespace) is abs
    assert compute_embedding(template(), abs, -2, {}) == 2


def test_model_init_hands_all_its_names_on_and_the_batches_nothing():
    t = template(
        model_init=["scale = 10", "model = abs"],
        pre_proc=["offset = 1", "x = scale * x + offset"],
        embed_fwd=["y = model(x) + scale", "offset = 2"],
    )
    namespace = import_pkgs(t)
    model = model_init(t, namespace)
    assert (namespace["scale"], namespace["model"]) == (10, abs)
    before = dict(namespace)
    assert compute_embedding(t, model, pre_proc(t, 1, namespace), namespace) == 21
    assert namespace == before


def test_functions_of_import_cmds_see_what_model_init_defines_later():
    t = template(
        import_cmds=["def scaled(x):", "    return scale * x"], model_init=["scale = 3", "model = scaled"]
    )
    namespace = import_pkgs(t)
    assert compute_embedding(t, model_init(t, namespace), 5, namespace) == 15


def test_a_failed_model_init_leaves_the_namespace_alone():
    t = template(model_init=["scale = 3", "model = missing"])
    namespace = import_pkgs(t)
    before = dict(namespace)
    with pytest.raises(CommandError):
        model_init(t, namespace)
    assert namespace == before


def test_future_imports_of_this_library_are_not_the_templates():
    t = template(model_init=["def model(x: int): pass", "model = model.__annotations__"])
    assert model_init(t, {}) == {"x": int}


def test_tuples_may_be_unpacked_into_y():
    assert compute_embedding(template(embed_fwd=["y, times = model(x)"]), lambda x: (x, 0), 7, {}) == 7


def test_x_without_pre_proc_is_the_same_object():
    x = object()
    assert pre_proc(template(), x, {}) is x
    assert pre_proc(template(pre_proc=[]), x, {}) is x


@pytest.mark.parametrize(("in_shape", "ndim"), [(2, 1), (2, 3), (3, 2)])
def test_in_shape_is_checked(in_shape, ndim):
    x = SimpleNamespace(ndim=ndim, shape=(4,) * ndim)
    with pytest.raises(
        InputShapeError, match=f"key 'in_shape': expected an input of {in_shape} dimensions"
    ) as caught:
        pre_proc(template(in_shape=in_shape), x, {})
    assert f"found {ndim} {(4,) * ndim}" in str(caught.value)
    assert pre_proc(template(in_shape=ndim if ndim > 1 else 2), SimpleNamespace(ndim=max(ndim, 2)), {})


def test_a_namespace_that_is_none():
    with pytest.raises(TypeError, match="the dict that import_pkgs returned, not list"):
        model_init(template(), [])


# ------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: model_init(template(model_init=["net = abs"]), {"model": "of another template"}), "model"),
        (lambda: model_init(template(model_init=["model = None"]), {}), "model"),
        (lambda: compute_embedding(template(embed_fwd=["z = x"]), abs, 1, {"y": "of another batch"}), "y"),
        (lambda: compute_embedding(template(embed_fwd=["y = None"]), abs, 1, {}), "y"),
        (lambda: pre_proc(template(pre_proc=["del x"]), 1, {}), "x"),
    ],
)
def test_a_missing_result_is_an_error(call, name):
    with pytest.raises(MissingResultError, match=f"expected the commands to define '{name}'") as caught:
        call()
    assert caught.value.file == "folder/t.json"


# ------------------------------------------------------------------------------------------------- errors inside


def test_an_error_names_file_key_item_and_line_and_keeps_the_traceback():
    t = template(
        model_init=[
            "import json",
            "def load(text):\n    value = 1\n    return json.loads(text)",
            "",
            "model = load('{')",
        ]
    )
    with pytest.raises(CommandError) as caught:
        model_init(t, {})
    error = caught.value
    assert (error.file, error.key, error.item) == ("folder/t.json", "model_init", 2)
    assert error.line == "    return json.loads(text)"
    assert isinstance(error, RuntimeError)
    assert type(error.__cause__).__name__ == "JSONDecodeError"
    shown = "".join(traceback.format_exception(error))
    assert "File \"<model_init of folder/t.json>\", line 6, in <module>\n    model = load('{')" in shown
    assert "line 4, in load\n    return json.loads(text)" in shown
    assert "template 'folder/t.json', key 'model_init': item 2, `    return json.loads(text)` raised" in shown


def test_the_line_of_the_key_that_ran_is_named_even_if_another_key_defined_the_function():
    t = template(import_cmds=["def fail(x):", "    return x / 0"], embed_fwd=["z = 1", "y = fail(x)"])
    with pytest.raises(
        CommandError, match=r"key 'embed_fwd': item 2, `y = fail\(x\)` raised ZeroDivisionError"
    ) as caught:
        compute_embedding(t, abs, 1, import_pkgs(t))
    linecache.checkcache()
    assert "    return x / 0" in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("key", ["model_init", "pre_proc", "embed_fwd"])
def test_syntax_errors_are_found_before_anything_runs(key):
    t = template(**{key: ["open('ran', 'w').close()", "", "y = = 1"]})
    namespace: dict = {}
    step = {
        "model_init": lambda: model_init(t, namespace),
        "pre_proc": lambda: pre_proc(t, 1, namespace),
        "embed_fwd": lambda: compute_embedding(t, abs, 1, namespace),
    }[key]
    with pytest.raises(CommandError, match=f"key '{key}': item 3, `y = = 1` is not valid Python") as caught:
        step()
    assert isinstance(caught.value.__cause__, SyntaxError)
    assert not Path("ran").exists()
    with pytest.raises(CommandError, match="item 3"):
        describe_template(t)


def test_shell_is_no_python_outside_of_import_cmds():
    with pytest.raises(CommandError, match="is not valid Python"):
        model_init(template(model_init=["wget https://host/weights.pt", "model = 1"]), {})


@pytest.mark.parametrize("line", ["import sys; sys.exit(3)", "raise SystemExit", "exit()"])
def test_a_template_cannot_end_the_program(line):
    with pytest.raises(CommandError, match="raised SystemExit"):
        model_init(template(model_init=[line, "model = 1"]), {})


def test_what_ends_generators_is_an_error_like_others():
    with pytest.raises(CommandError, match="`raise GeneratorExit` raised GeneratorExit$"):
        model_init(template(model_init=["raise GeneratorExit"]), {})


def test_messages_cannot_steer_a_terminal():
    with pytest.raises(CommandError) as caught:
        model_init(template(model_init=[r"raise ValueError('\x1b[2K\rdone')"]), {})
    assert str(caught.value).isprintable()
    assert r"raised ValueError: \x1b[2K\rdone" in str(caught.value)


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        model_init(template(model_init=["raise KeyboardInterrupt"]), {})


def test_endless_recursion():
    with pytest.raises(CommandError, match="RecursionError"):
        model_init(template(model_init=["def f(): f()", "f()"]), {})


# ------------------------------------------------------------------------------------------------- contexts


def test_contexts_and_the_search_path(tmp_path):
    """A clone whose modules import each other late, as many do."""
    clone = tmp_path / "audio-embed"
    clone.mkdir()
    (clone / "dae_test_model.py").write_text(
        "def make():\n    import dae_test_late\n    return dae_test_late.name\n"
    )
    (clone / "dae_test_late.py").write_text("name = 'late'\n")
    (clone / "weights.txt").write_text("42")
    t = template(
        import_context="./audio-embed/",
        import_cmds=[
            "import sys",
            "import os",
            "sys.path.insert(0, os.getcwd())",
            "from pathlib import Path",
            "import dae_test_model",
        ],
        model_init_context="audio-embed",
        model_init=["model = dae_test_model.make() + Path('weights.txt').read_text()"],
        pre_proc_context=str(clone),
        pre_proc=["x = Path('weights.txt').read_text()"],
        embed_fwd=["import os, sys", "y = (os.getcwd(), sys.path[0], model, x)"],
    )
    namespace = import_pkgs(t)
    assert namespace.search_path == (str(clone),)
    model = model_init(t, namespace)
    x = pre_proc(t, 0, namespace)
    assert compute_embedding(t, model, x, namespace) == (str(tmp_path), str(clone), "late42", "42")


def test_relative_entries_of_the_search_path_mean_the_context(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    t = template(import_context="a", import_cmds=["import sys", "sys.path.append('b')"])
    assert import_pkgs(t).search_path == (str(tmp_path / "a/b"),)


def test_directories_that_model_init_adds_hold_for_the_later_steps(tmp_path):
    t = template(
        import_cmds=["import sys", "sys.path.append('a')"],
        model_init=["sys.path.append('b')", "model = 1"],
        embed_fwd=["y = sys.path[:2]"],
    )
    namespace = import_pkgs(t)
    model = model_init(t, namespace)
    assert compute_embedding(t, model, 1, namespace) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert model_init(t, dict(namespace)) == 1


@pytest.mark.parametrize(
    "commands",
    [
        ["import os, sys", "os.chdir('a')", "sys.path.insert(0, 'x')"],
        ["import sys", "sys.path = ['nothing']"],
        ["import sys", "sys.path.clear()"],
        ["import os, sys", "os.chdir('/')", "sys.path.insert(0, 'x')", "1 / 0"],
        ["import os", "os.chdir('/')", "raise SystemExit"],
    ],
)
def test_directory_and_search_path_are_put_back(commands):
    Path("a").mkdir()
    for t in (template(import_cmds=commands), template(import_cmds=commands, import_context="a")):
        with contextlib.suppress(CommandError):
            import_pkgs(t)
    with pytest.raises((CommandError, MissingResultError)):
        compute_embedding(template(embed_fwd=commands), abs, 1, {})


@pytest.mark.parametrize("context", ["no", "file", "/", "/etc", "link", "a/link"])
def test_contexts_that_are_refused(tmp_path, context):
    (tmp_path / "a").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/")
    (tmp_path / "a/link").symlink_to("../..")
    for key, step in (
        ("import_context", lambda t: import_pkgs(t)),
        ("model_init_context", lambda t: model_init(t, {})),
        ("pre_proc_context", lambda t: pre_proc(t, 1, {})),
    ):
        with pytest.raises(TemplateFormatError, match=f"key '{key}': expected a directory") as caught:
            step(template(pre_proc=["x = 1"], **{key: context}))
        assert caught.value.key == key
        assert repr(context) in str(caught.value)


def test_a_link_to_itself_is_no_context(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(TemplateFormatError, match="key 'import_context': expected a directory"):
        import_pkgs(template(import_context="loop"))


def test_links_inside_the_working_directory_are_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    t = template(import_context="link", import_cmds=["import os", "where = os.getcwd()"])
    assert import_pkgs(t)["where"] == str(tmp_path / "a")


def test_threads_do_not_mix_their_directories_up(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
    seen = []

    def work(name):
        t = template(
            model_init_context=name,
            model_init=[
                "import os, time",
                "a = os.getcwd()",
                "time.sleep(0.002)",
                "model = (a, os.getcwd())",
            ],
        )
        seen.extend((name, model_init(t, {})) for _ in range(10))

    threads = [threading.Thread(target=work, args=name) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40
    assert all(model == (str(tmp_path / name),) * 2 for name, model in seen)


# ------------------------------------------------------------------------------------------------- shell


def test_install_runs_in_order_and_a_plain_cd_holds(tmp_path):
    t = template(
        install_cmds=[
            "mkdir -p a/b",
            "cd a/b",
            "echo one > f",
            "cd ../",
            "pwd > g",
            "cd .. && echo no > /dev/null",
            "pwd > h",
        ]
    )
    install_dependencies(t)
    assert (tmp_path / "a/b/f").read_text() == "one\n"
    assert (tmp_path / "a/g").read_text() == f"{tmp_path}/a\n"
    assert (tmp_path / "a/h").read_text() == f"{tmp_path}/a\n"


def test_install_stops_at_the_first_failure():
    t = template(install_cmds=["echo fine", "", "echo about; echo to fail >&2; exit 7", "echo never > ran"])
    with pytest.raises(ShellCommandError) as caught:
        install_dependencies(t)
    error = caught.value
    assert (error.key, error.item, error.exit_code, error.output) == ("install_cmds", 3, 7, "about\nto fail")
    assert error.line == "echo about; echo to fail >&2; exit 7"
    assert "folder/t.json" in str(error)
    assert "exit code 7; its output ends with:\nabout\nto fail" in str(error)
    assert not Path("ran").exists()


def test_only_the_end_of_a_long_output_is_kept():
    with pytest.raises(ShellCommandError) as caught:
        install_dependencies(
            template(install_cmds=["i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; false"])
        )
    assert caught.value.output.endswith("line 2999")
    assert len(caught.value.output) <= 4000


def test_output_that_is_no_text_and_no_output():
    with pytest.raises(ShellCommandError, match="exit code 1; its output") as caught:
        install_dependencies(template(install_cmds=[r"printf '\377'; false"]))
    assert caught.value.output == "\ufffd"
    with pytest.raises(ShellCommandError, match="exit code 1 and wrote nothing"):
        install_dependencies(template(install_cmds=["false"]))


def test_a_command_that_asks_gets_no_answer():
    with pytest.raises(ShellCommandError):
        install_dependencies(template(install_cmds=["read answer"]))


def test_a_cd_to_nowhere():
    with pytest.raises(
        CommandError, match="key 'install_cmds': item 2, `cd no` failed in '.*': No such file"
    ):
        install_dependencies(template(install_cmds=["true", "cd no"]))


def test_python_and_pip_are_those_of_this_interpreter(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.defpath)
    name = Path(sys.executable).name
    install_dependencies(template(install_cmds=[f"command -v {name} > which"]))
    assert (tmp_path / "which").read_text().strip() == sys.executable


def test_imports_may_be_python_and_shell_in_turns(tmp_path):
    t = template(
        import_cmds=[
            "mkdir clone",
            "cd clone",
            "echo 'name = 5' > dae_test_mixed.py",
            "import os, sys",
            "for entry in [os.getcwd()]:",
            "    sys.path.insert(0, entry)",
            "from dae_test_mixed import name",
            "cd ..",
            "ls -la > listing",
            "where = os.getcwd()",
        ]
    )
    namespace = import_pkgs(t)
    assert (namespace["name"], namespace["where"]) == (5, str(tmp_path))
    assert namespace.search_path == (str(tmp_path / "clone"),)
    assert "clone" in (tmp_path / "listing").read_text()


def test_a_mistake_in_the_last_import_runs_nothing():
    with pytest.raises(CommandError, match="item 3"):
        import_pkgs(template(import_cmds=["echo a > ran", "open('ran', 'w')", "import = 3"]))
    assert not Path("ran").exists()


def test_import_errors_are_located():
    with pytest.raises(
        CommandError, match="item 3, `import dae_test_missing` raised ModuleNotFoundError"
    ) as caught:
        import_pkgs(template(import_cmds=["import os", "true", "import dae_test_missing"]))
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    with pytest.raises(
        ShellCommandError, match=r"exit code 127 \(it ran in the shell, since as Python: invalid syntax\)"
    ):
        import_pkgs(template(import_cmds=["no-such-program --now 3"]))
    with pytest.raises(ShellCommandError, match="a bare expression without effect"):
        import_pkgs(template(import_cmds=["no_such_program"]))


def test_a_namespace_is_a_plain_dict_for_everyone_else():
    assert Namespace(a=1) == {"a": 1}
    assert Namespace().search_path == ()
