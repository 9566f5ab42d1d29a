"""The example family in CONTRIBUTING.md is a family: it loads published weights and keeps every rule."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import avex
import avex.models
from avex._core.errors import WeightsError
from avex.models.utils import families
from avex.models.utils.registry import register_model, resolve
from avex.testing import check_model

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Add a family\n")[2]
BLOCKS = re.findall(r"^```(python|yaml)\n(.*?)^```", TEXT.partition("\n## ")[0], re.DOTALL | re.MULTILINE)


@pytest.fixture
def pondnet(tmp_path, monkeypatch, clean_registry):
    """The folder, the line and the card, as the page says; returns the card's file."""
    (language, module), (_, line), (card_language, card), _ = BLOCKS
    assert (language, card_language) == ("python", "yaml")
    assert module.splitlines()[0] == "# src/avex/models/pondnet/model.py"
    folder = tmp_path / "models" / "pondnet"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""PondNet."""\n')
    (folder / "model.py").write_text(module)
    monkeypatch.setattr(avex.models, "__path__", [*avex.models.__path__, str(folder.parent)])
    entry = eval(f"{{{line}}}", vars(families))
    monkeypatch.setitem(families.FAMILIES, *next(iter(entry.items())))
    file = tmp_path / "pondnet_base.yml"
    file.write_text(card)
    register_model("pondnet_base", resolve(file))
    yield file
    for name in [name for name in sys.modules if name.startswith("avex.models.pondnet")]:
        del sys.modules[name]


def test_the_example_is_a_family(pondnet, tmp_path):
    weight, bias = torch.randn(64, 400), torch.randn(64)
    save_file({"encoder.weight": weight, "encoder.bias": bias}, tmp_path / "pondnet.safetensors")
    model = avex.load_model("pondnet_base", checkpoint_path=tmp_path / "pondnet.safetensors")
    x = torch.randn(2, 16000)
    expected = x.reshape(2, 40, 400) @ weight.T + bias
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.embed(x), expected.mean(1), rtol=1e-4, atol=1e-4)
    check_model(model)
    save_file({"encoder.weight": weight}, tmp_path / "short.safetensors")
    with pytest.raises(WeightsError, match=r"backbone\.bias"):
        avex.load_model("pondnet_base", checkpoint_path=tmp_path / "short.safetensors")


def test_its_check_runs(pondnet):
    code = BLOCKS[-1][1]
    assert "check_model(" in code
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})


def test_its_card_is_complete(pondnet):
    card = resolve(pondnet)
    assert resolve("pondnet_base").license == card.license == "MIT"
    assert card.citation
    assert card.paper
    check_model(avex.load_model("pondnet", num_classes=2), rules=["facts", "card", "embed"])
