"""docs/reference/datasets.md is what the cards say."""

import importlib.util
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "reference" / "datasets.md"
CARDS = sorted((REPO / "src/avex/api/configs/datasets").glob("*.yml"))


def test_the_page_is_up_to_date():
    path = REPO / "docs" / "make_datasets_reference.py"
    spec = importlib.util.spec_from_file_location("make_datasets_reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.render() == PAGE.read_text(encoding="utf-8"), "run: python docs/make_datasets_reference.py"


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_has_a_row_and_its_citation(path):
    """An independent look: the file itself, not the schema."""
    card = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert card["name"] == path.stem
    text = PAGE.read_text(encoding="utf-8")
    (row,) = (line for line in text.splitlines() if line.startswith(f"| [`{card['name']}`]"))
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert cells[2] == str(card.get("num_classes", "from data"))
    assert f"**{card['main_metric']}**" in cells[5]
    assert cells[6] == card["license"]
    section = text.partition(f"\n### {card['name']}\n")[2].partition("\n###")[0]
    assert card["citation"] in section
