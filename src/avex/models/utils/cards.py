"""Model cards: reading one from a file, and the table of those that can be named. No torch."""

from __future__ import annotations

import importlib.resources
import threading
from pathlib import Path

from pydantic import ValidationError

from avex._core.errors import ConfigError
from avex.configs import ModelCard, read_yaml
from avex.configs.yaml_files import parse_yaml

OFFICIAL_CARDS_PACKAGE = "avex.api.configs"
OFFICIAL_CARDS_FOLDER = "official_models"


class CardTable:
    """Cards by name and alias; the official ones are read once, on first use. What it gives are copies."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._cards: dict[str, ModelCard] | None = None
        self._aliases: dict[str, str] = {}

    def _table(self) -> dict[str, ModelCard]:
        with self._lock:
            if self._cards is None:
                self._cards = {}
                folder = importlib.resources.files(OFFICIAL_CARDS_PACKAGE) / OFFICIAL_CARDS_FOLDER
                for entry in sorted(folder.iterdir(), key=lambda item: item.name):
                    if entry.name.endswith(".yml"):
                        text = entry.read_text(encoding="utf-8")
                        self._add(card_from_mapping(parse_yaml(text, entry.name), entry.name))
            return self._cards

    def _add(self, card: ModelCard) -> None:
        assert self._cards is not None
        self._cards[card.name] = card
        for alias in card.aliases:
            # A changed copy of a card, under another name, does not take over what the original is called.
            self._aliases.setdefault(alias, card.name)

    def add(self, card: ModelCard) -> None:
        """Keep a copy of a card; one of the same name is replaced."""
        with self._lock:
            self._table()
            self._add(card.model_copy(deep=True))

    def remove(self, name: str) -> None:
        """Forget a card and its aliases; an unknown name is not an error."""
        with self._lock:
            self._table().pop(name, None)
            self._aliases = {alias: owner for alias, owner in self._aliases.items() if owner != name}

    def find(self, name: str) -> ModelCard | None:
        """The card of that name or alias, or None."""
        with self._lock:
            table = self._table()
            card = table.get(name) or table.get(self._aliases.get(name, ""))
            return card.model_copy(deep=True) if card else None

    def names(self) -> list[str]:
        """Names of all cards, sorted."""
        with self._lock:
            return sorted(self._table())

    def all_names(self) -> list[str]:
        """Names and aliases."""
        with self._lock:
            return [*self._table(), *self._aliases]


def card_from_mapping(data: dict[str, object], source: str) -> ModelCard:
    """Validate the content of a card file.

    Args:
        data: Parsed YAML, with the spec under `model_spec` or at the root.
        source: File name, for messages; its stem is the card's name if the card states none.

    Raises:
        ConfigError: A field is unknown, missing or has a wrong value.
    """
    if "model_spec" in data and "name" not in data:
        data = {"name": Path(source).stem, **data}
    try:
        return ModelCard.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"Model card '{source}' is not valid: {describe_problems(error)}.") from error


def describe_problems(error: ValidationError) -> str:
    """Each field that is wrong, and why, in one line."""
    return "; ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'card'}: {item['msg']}" for item in error.errors()
    )


def load_model_card(path: str | Path) -> ModelCard:
    """Read a card from a YAML file; relative paths in it are taken relative to the file.

    Raises:
        ConfigError: The file cannot be read or is not a card.

    Example:
        >>> load_model_card("my_model.yml").model_spec.name  # doctest: +SKIP
        'efficientnet'
    """
    card = card_from_mapping(read_yaml(path), str(path))
    folder = Path(path).parent
    for field in ("checkpoint_path", "class_mapping_path"):
        value = getattr(card, field)
        if value and "://" not in value and not Path(value).is_absolute() and (folder / value).exists():
            setattr(card, field, str(folder / value))
    return card
