"""Which commands are Python, which are shell, and which lines belong together."""

from __future__ import annotations

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from deep_audio_embedding import CommandError
from deep_audio_embedding._commands import directory_of_cd, locate, mixed_blocks
from deep_audio_embedding._syntax import program


def kinds(*items):
    return [(block.kind, block.text) for block in mixed_blocks(items, file="t.json", key="import_cmds")]


@pytest.mark.parametrize(
    "command",
    [
        "pip install torch==2.5.1",
        "git clone https://github.com/janedoe/audio-embed",
        "GIT_LFS_SKIP_SMUDGE=1 git clone https://github.com/a/b.git",
        "wget -O ./assets/a.gz https://host/a.gz",
        "patch -p1 < patch_main.diff",
        "curl -O https://host/a.py",
        "for f in *.zip; do unzip $f; done",
        "if [ ! -d a ]; then mkdir a; fi",
        "[ -d a ] || mkdir a",
        "cd a && pip install .",
        "mv a.py b",
        "sh -c 'ls -la'",
        "echo it's",
        "tar xzf a.tar.gz",
        "python setup.py develop",
        "test -f a = b",
        "ls",
        "ls -la",
        "make -j4",
        "make -j",
        "cat <<EOF",
    ],
)
def test_shell(command):
    assert kinds(command) == [("shell", command)]


@pytest.mark.parametrize(
    "command",
    [
        "import sys",
        "from a.b import *",
        "sys.path.insert(0, os.getcwd())",
        "with open('a') as f: text = f.read()",
        "x = 1; y = 2",
        "def f(x):\n    return x",
        "# a remark",
        "'a text'",
        "torch.manual_seed(0)",
        "a - f(b)",
        "",
    ],
)
def test_python(command):
    assert kinds(command) == [("python", command)]


@pytest.mark.parametrize(
    "command", ["cd a", "cd ../", 'cd "my folder"', "cd 'my folder'", "  cd ~/a  ", "cd $HOME"]
)
def test_plain_cd(command):
    assert kinds(command) == [("cd", command)]


@pytest.mark.parametrize("command", ["cd", "cd a && ls", "cd a; ls", "cd $(pwd)", "cd a b", "cda", "cd `x`"])
def test_other_commands_are_no_plain_cd(command):
    assert directory_of_cd(command) is None


@pytest.mark.parametrize(
    "items",
    [
        ["for i in range(3):", "    a = i"],
        ["for i in range(3):", "    if i:", "        a = i", "    b = i"],
        ["with open('a') as f:", "", "    # read", "    a = f.read()"],
        [
            "try:",
            "    import a",
            "except ImportError:",
            "    a = None",
            "else:",
            "    b = 1",
            "finally:",
            "    c = 1",
        ],
        ["if a:", "    b = 1", "elif c:", "    b = 2", "else:", "    b = 3"],
        ["class A:", "    def f(self):", "        return 1", "", "    def g(self):", "        return 2"],
        ["@decorate", "def f():", "    return 1"],
        ["a = [", "1,", "2,", "]"],
        ["a = f(", "    1", ")"],
        ["a = '''", "pip install x", "'''"],
        ["a = 1 + \\", "2"],
        ["@decorate", "", "@again(1)", "# why", "def f():", "    return 1"],
        ["if f(", "1", "):", "    a = [", "1,", "    ]", "    b = 1"],
        ["match a:", "    case 1:", "        b = 1"],
        ["async def f():", "    await g()"],
        ["try:\n    import a", "except ImportError:\n    a = None"],
    ],
)
def test_python_over_several_items_is_one_block(items):
    expected = [("shell", "pip install a"), ("python", "\n".join(items)), ("shell", "pip install b")]
    assert kinds("pip install a", *items, "pip install b") == expected
    assert kinds(*items, "import b")[-1] == ("python", "import b")


def test_python_and_shell_in_turns():
    items = ["cd a", "import os", "pip install x", "import x", "cd .."]
    assert kinds(*items) == list(zip(["cd", "python", "shell", "python", "cd"], items, strict=True))


@pytest.mark.parametrize(
    ("items", "item", "reason"),
    [
        (["import os", "import foo bar"], 2, "invalid syntax"),
        (["from a import"], 1, ""),
        (["y = = 1"], 1, "invalid syntax"),
        (["a.b[0] += )"], 1, ""),
        (["def f(:"], 1, ""),
        (["a = f(", "import b"], 1, "never closed"),
        (["print('a'"], 1, "never closed"),
        (["for i in x:", "pip install a"], 1, "expected an indented block"),
        (["for i in x:"], 1, "expected an indented block"),
        (["import a", "    import b"], 2, "unexpected indent"),
        (["wget a \\", "-O b"], 1, ""),
        (["else:"], 1, ""),
    ],
)
def test_mistakes_in_python_are_not_given_to_the_shell(items, item, reason):
    with pytest.raises(CommandError, match="is not valid Python") as caught:
        kinds(*items)
    assert reason in str(caught.value)
    assert caught.value.item == item
    assert caught.value.key == "import_cmds"
    assert "template 't.json', key 'import_cmds'" in str(caught.value)


@pytest.mark.parametrize("text", ["(" * 300 + "1" + ")" * 300, "-" * 60_000 + "1", "x" + ".a" * 30_000])
def test_code_nested_beyond_the_compiler(text):
    """How deep is too deep depends on the version of Python; in no case is it a crash or a shell command."""
    refused = ""
    try:
        found = kinds(f"y = {text}")
    except CommandError as error:
        found, refused = [], str(error)
    assert found == [("python", f"y = {text}")] or "is not valid Python" in refused
    assert len(refused) < 1000


@pytest.mark.parametrize(
    ("first", "others"),
    [("a = f(", "x, # )"), ("@a", "@a(1)"), ("a = [", "b = [1]"), ("a = '''b", "c"), ("if x:", "c")],
)
def test_the_work_does_not_grow_with_the_square(first, others, monkeypatch):
    """Counted, not timed: the compiler sees every character a few times only."""
    from deep_audio_embedding import _syntax

    seen = []

    def counting(text, *args, **kwargs):
        seen.append(len(text))
        return compile(text, *args, **kwargs)

    monkeypatch.setattr(_syntax, "compile", counting, raising=False)
    items = [first] + [others] * 400
    with pytest.raises(CommandError):
        kinds(*items)
    assert sum(seen) < 10 * len("\n".join(items))


def test_warnings_of_the_compiler_do_not_decide():
    assert kinds("a = 1 is 1", "b = '\\d'") == [("python", "a = 1 is 1"), ("python", "b = '\\d'")]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), max_size=6))
@example(["\r\x80"])  # the tokenizer of Python 3.12 decodes half a character of it
def test_any_text_is_sorted_or_refused(items):
    try:
        blocks = mixed_blocks(items, file="f", key="k")
    except CommandError as error:
        event(f"refused: item {error.item} of {len(items)}")
        return
    assert [item for block in blocks for item in block.items] == items
    assert [block.first for block in blocks] == [
        sum(len(b.items) for b in blocks[:number]) for number in range(len(blocks))
    ]


@given(
    st.lists(st.lists(st.sampled_from(["a", "b = 1", ""]), min_size=1, max_size=3), min_size=1, max_size=5)
)
def test_lines_are_found_again(lines):
    items = ["\r\n".join(item) for item in lines]
    number = 0
    for position, item in enumerate(lines, start=1):
        for line in item:
            number += 1
            assert locate(items, number) == (position, line)
    assert program(items).count("\n") + 1 == number
