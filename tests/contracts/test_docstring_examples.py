"""Every example in a docstring that can run, runs."""

import doctest
import importlib
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src"
MODULES = sorted(
    ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
    for path in (SRC / "avex").rglob("*.py")
    if path.name != "__main__.py" and ">>>" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.usefixtures("clean_registry")
def test_examples(name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module):
        # A line that cannot run here (`+SKIP`: it needs weights) takes those that build on it along.
        needed = [not example.options.get(doctest.SKIP) for example in test.examples]
        test.examples = test.examples[: needed.index(False) if False in needed else None]
        assert runner.run(test).failed == 0, test.name
