"""What can be loaded by name: official cards, the user's cards, families and the user's classes.

Nothing here imports torch. Official cards are read from the package on first use; registering is
thread-safe, and what a caller gets is always a copy, so nobody changes the registry by accident.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from avex._core.errors import FamilyNotAvailableError, UnknownModelError, did_you_mean
from avex._core.registry import load_attribute
from avex.configs import ModelCard, ModelSpec
from avex.models.template.cards import TEMPLATE_MODEL, is_template_name, template_card
from avex.models.utils.cards import CardTable, load_model_card
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

_cards = CardTable()
_classes: dict[str, type[nn.Module]] = {}
_classes_lock = threading.RLock()


def register_model(name: str, model_spec: ModelSpec | ModelCard) -> None:
    """Make a spec or a card loadable by name; an existing entry of that name is replaced.

    Raises:
        TypeError: Neither a spec nor a card.

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
