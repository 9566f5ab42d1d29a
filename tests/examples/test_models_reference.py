"""docs/reference/models.md is what the cards and classes say."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "reference" / "models.md"
CARDS = sorted((REPO / "src/avex/api/configs/official_models").glob("*.yml"))


def make_reference():
    path = REPO / "docs" / "make_models_reference.py"
    spec = importlib.util.spec_from_file_location("make_models_reference", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    committed = PAGE.read_text(encoding="utf-8")
    assert make_reference().render() == committed, "run: python docs/make_models_reference.py"


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_every_card_has_a_row_with_its_facts(path):
    """An independent look: the file itself, not the registry."""
    card = yaml.safe_load(path.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    (row,) = (line for line in text.splitlines() if line.startswith(f"| `{card['name']}`"))
    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert len(cells) == 10
    for alias in card.get("aliases", []):
        assert f"`{alias}`" in cells[0]
    audio = card["model_spec"]["audio_config"]
    assert cells[2] == f"{audio['sample_rate']} Hz, {audio['target_length_seconds']:g} s"
    assert cells[3] == str(card["embedding_dim"])
    if card.get("num_classes"):
        assert cells[6] == f"{card['num_classes']:,}"
    assert cells[7] == card["license"]
    assert (cells[8] == "file") == (card.get("checkpoint_path") is None)
    assert card["paper"] in cells[9]


def test_numbers_that_are_known_from_elsewhere():
    """Millions of parameters and layers, from the papers and torchvision's documentation."""
    text = PAGE.read_text(encoding="utf-8")
    for name, layers, millions in (
        ("beats_iter3_plus_as2m", 12 + 1, 90),
        ("birdmae_huge", 32 + 1, 630),
        ("birdaves_biox_large", 24 + 1, 315),
        ("resnet18_imagenet", 8 + 1, 11),
        ("resnet50_imagenet", 16 + 1, 24),
        ("efficientnet_b0_imagenet", 16 + 2, 4),
    ):
        assert re.search(rf"^\| `{name}`.*\| {layers} \| {millions} \|", text, re.MULTILINE), name
