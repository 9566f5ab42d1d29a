"""What can be loaded by name: official cards, the user's cards, families and the user's classes.

Nothing here imports torch. Official cards are read from the package on first use; registering is
thread-safe, and what a caller gets is always a copy, so nobody changes the registry by accident.
"""

from __future__ import annotations

import importlib.resources
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from avex._core.errors import ConfigError, FamilyNotAvailableError, UnknownModelError, did_you_mean
from avex._core.registry import load_attribute
from avex.configs import ModelCard, ModelSpec, read_yaml
from avex.configs.yaml_files import parse_yaml
from avex.models.template.cards import TEMPLATE_MODEL, is_template_name, template_card
from avex.models.utils.families import (
    FAMILIES,
    canonical_family,
    default_card,
    family_names,
    implemented_families,
)

if TYPE_CHECKING:
    from torch import nn

    from avex.weights.labels import LabelMap

ClassT = TypeVar("ClassT", bound="type[nn.Module]")

OFFICIAL_CARDS_PACKAGE = "avex.api.configs"
OFFICIAL_CARDS_FOLDER = "official_models"


class _Cards:
    """Cards by name and alias; the official ones are read once, on first use."""

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
        self._aliases.update(dict.fromkeys(card.aliases, card.name))

    def add(self, card: ModelCard) -> None:
        with self._lock:
            self._table()
            self._add(card.model_copy(deep=True))

    def remove(self, name: str) -> None:
        with self._lock:
            card = self._table().pop(name, None)
            for alias in card.aliases if card else ():
                self._aliases.pop(alias, None)

    def find(self, name: str) -> ModelCard | None:
        with self._lock:
            table = self._table()
            card = table.get(name) or table.get(self._aliases.get(name, ""))
            return card.model_copy(deep=True) if card else None

    def names(self) -> list[str]:
        with self._lock:
            return sorted(self._table())

    def all_names(self) -> list[str]:
        with self._lock:
            return [*self._table(), *self._aliases]


_cards = _Cards()
_classes: dict[str, type[nn.Module]] = {}
_classes_lock = threading.RLock()


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
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc']) or 'card'}: {item['msg']}"
            for item in error.errors()
        )
        raise ConfigError(f"Model card '{source}' is not valid: {problems}.") from error


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


def register_model(name: str, model_spec: ModelSpec | ModelCard) -> None:
    """Make a spec or a card loadable by name; an existing entry of that name is replaced.

    Example:
        >>> register_model("my_model", ModelSpec(name="birdnet", device="cpu"))
    """
    if isinstance(model_spec, ModelCard):
        _cards.add(model_spec.model_copy(update={"name": name}))
    elif isinstance(model_spec, ModelSpec):
        _cards.add(ModelCard(name=name, model_spec=model_spec))
    else:
        raise TypeError(f"register_model takes a ModelSpec or a ModelCard, not {type(model_spec).__name__}.")


def unregister_model(name: str) -> None:
    """Forget a registered model; an unknown name is not an error."""
    _cards.remove(name)


def card_names() -> list[str]:
    """Names of all cards, sorted, without aliases."""
    return _cards.names()


def find_card(name: str) -> ModelCard | None:
    """Return a copy of the card of that name or alias, or None."""
    return _cards.find(name)


def resolve(model: str | Path | ModelSpec | ModelCard) -> ModelCard:
    """Turn whatever names a model into its card.

    Tried in this order: a card or spec object, a card's name or alias, a YAML file, a JSON template, a family, a
    class.

    Raises:
        UnknownModelError: Nothing fits; the message suggests what might.
        ConfigError: The YAML file is not a valid card.
        TypeError: `model` is something else.

    Example:
        >>> resolve("birdnet").model_spec.audio_config.sample_rate
        48000
    """
    if isinstance(model, ModelCard):
        return model.model_copy(deep=True)
    if isinstance(model, ModelSpec):
        return ModelCard(name=model.name, model_spec=model.model_copy(deep=True))
    if not isinstance(model, (str, Path)):
        raise TypeError(f"A model is named by str, Path, ModelSpec or ModelCard, not {type(model).__name__}.")
    name = str(model)
    if card := find_card(name):
        return card
    if name.lower().endswith((".yml", ".yaml")):
        return load_model_card(name)
    if is_template_name(name):
        return template_card(name)
    if canonical_family(name):
        return default_card(name)
    if name in _classes:
        return ModelCard(name=name, model_spec=ModelSpec(name=name, pretrained=False, device="cpu"))
    known = {*_cards.all_names(), *family_names(), *_classes}
    raise UnknownModelError(
        f"Unknown model '{name}'.{did_you_mean(name, known)} List all with `avex list-models`, "
        "or give the path of a model card ending in .yml, or of a template ending in .json."
    )


def get_model_spec(name: str) -> ModelSpec | None:
    """Return a copy of the spec behind a name, or None when the name is unknown.

    Example:
        >>> get_model_spec("beats_naturelm").audio_config.sample_rate
        16000
    """
    try:
        return resolve(name).model_spec
    except UnknownModelError:
        return None


def get_checkpoint_path(name: str) -> str | None:
    """Return the path or URI of a model's default weights, or None if it has none.

    Raises:
        UnknownModelError: The name is unknown.

    Example:
        >>> get_checkpoint_path("esp_aves2_effnetb0_bio")
        'hf://EarthSpeciesProject/esp-aves2-effnetb0-bio/esp-aves2-effnetb0-bio.safetensors'
    """
    return resolve(name).checkpoint_path


def load_label_mapping(model_or_path: str | Path, column: str | None = None) -> LabelMap | None:
    """Load the labels of a model, or of a label file.

    Args:
        model_or_path: A model's name, or a path or URI of a `.json`, `.csv` or `.txt` label file.
        column: Column of labels of a `.csv` file; of a model its card says it.

    Returns:
        A `LabelMap` (`["label_to_index"]`, `["index_to_label"]`, `.labels`), or None if it has no labels.

    Raises:
        UnknownModelError: Neither a file nor a model's name.
        OfflineError: The labels are remote, not cached, and there is no network.

    Example:
        >>> load_label_mapping("birdnet")["index_to_label"][0]  # doctest: +SKIP
        'Abroscopus albogularis_Rufous-faced Warbler'
    """
    from avex.weights.labels import LabelMap

    text = str(model_or_path)
    if "://" in text or text.lower().endswith((".json", ".txt", ".csv")):
        return LabelMap.load(text, column=column)
    card = resolve(text)
    if card.class_mapping_path is None:
        return None
    return LabelMap.load(card.class_mapping_path, column=column or card.class_mapping_column)


def register_model_class(cls: ClassT) -> ClassT:
    """Class decorator that makes a model class usable as `model_spec.name`.

    The name is the class attribute `name`, or the class's own name in lower case.

    Raises:
        TypeError: Not an `nn.Module` class.

    Example:
        >>> @register_model_class                      # doctest: +SKIP
        ... class MyAudioCNN(ModelBase):
        ...     name = "my_audio_cnn"
    """
    from torch import nn

    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"register_model_class takes a class derived from torch.nn.Module, not {cls!r}.")
    own = cls.__dict__.get("name")
    name = own if isinstance(own, str) and own else cls.__name__.lower()
    with _classes_lock:
        _classes[name] = cls
    return cls


def unregister_model_class(name: str) -> None:
    """Forget a registered class; an unknown name is not an error."""
    with _classes_lock:
        _classes.pop(name, None)


def get_model_class(name: str) -> type[nn.Module] | None:
    """Return the class behind a family or a registered name, or None when it is unknown.

    Raises:
        FamilyNotAvailableError: The family is planned, but this release does not implement it.
    """
    with _classes_lock:
        if name in _classes:
            return _classes[name]
    if name == TEMPLATE_MODEL:
        return load_attribute("avex.models.template.model:TemplateModel")  # type: ignore[return-value]
    family = canonical_family(name)
    if family is None:
        return None
    reference = FAMILIES[family].reference
    if reference is None:
        raise FamilyNotAvailableError(
            f"The architecture '{family}' is not implemented in this release of avex. "
            f"Implemented: {', '.join(list_model_classes())}. "
            "Its cards can be listed and described, but not loaded yet."
        )
    return load_attribute(reference)  # type: ignore[return-value]


def list_model_classes() -> list[str]:
    """Names that `model_spec.name` may have: implemented families and registered classes."""
    return sorted({*implemented_families(), *_classes})
