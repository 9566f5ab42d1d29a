"""Listing and describing what can be loaded. No torch, no network."""

from __future__ import annotations

import sys
from typing import Any

from avex.configs import AudioConfig, ModelCard
from avex.models.template.cards import TEMPLATE_MODEL
from avex.models.utils.families import FAMILIES, canonical_family
from avex.models.utils.registry import (
    card_names,
    find_card,
    get_model_class,
    list_model_classes,
    resolve,
)

_PADDING = {
    "masked": "left out where a mask marks it",
    "leaks": "masked, but it still changes the embedding: give clips of one length",
    "none": "heard as silence",
}
_TITLES = ("Model Name", "Description", "Trained Classifier", "Loads")


def model_table() -> dict[str, dict[str, Any]]:
    """Facts about every card, by name.

    Returns:
        `{name: {description, has_trained_classifier, num_classes, checkpoint_path, model_type, sample_rate,
        embedding_dim, license, aliases, available}}`; `available` tells whether this release implements it.
    """
    classes = set(list_model_classes())
    table = {}
    for name in card_names():
        card = find_card(name)
        assert card is not None
        family = canonical_family(card.model_spec.name) or card.model_spec.name
        table[name] = {
            "description": card.description or f"{card.model_spec.name} model",
            "has_trained_classifier": card.has_trained_classifier,
            "num_classes": card.num_classes,
            "checkpoint_path": card.checkpoint_path,
            "model_type": card.model_spec.name,
            "sample_rate": (card.model_spec.audio_config or AudioConfig()).sample_rate,
            "embedding_dim": card.embedding_dim,
            "license": card.license,
            "aliases": card.aliases,
            "available": family in classes,
        }
    return table


def list_models() -> dict[str, dict[str, Any]]:
    """Print a table of all models and return what it says.

    Returns:
        See `model_table`.

    Example:
        >>> models = list_models()                                          # doctest: +SKIP
        >>> models["birdnet"]["num_classes"]                                # doctest: +SKIP
        6522
    """
    table = model_table()
    sys.stdout.write(format_models(table))
    return table


def format_models(table: dict[str, dict[str, Any]]) -> str:
    """The table as text."""
    rows = [
        (name, facts["description"], _classifier(facts), "yes" if facts["available"] else "planned")
        for name, facts in table.items()
    ]
    widths = [max(len(row[column]) for row in [_TITLES, *rows]) + 2 for column in range(len(_TITLES))]
    rule = "=" * sum(widths)
    body = ["".join(map(str.ljust, row, widths)).rstrip() for row in [_TITLES, *rows]]
    footer = f"{len(table)} models. Details: avex describe NAME"
    return "\n".join([rule, body[0], rule, *body[1:], rule, footer, ""])


def _classifier(facts: dict[str, Any]) -> str:
    if not facts["has_trained_classifier"]:
        unnamed = facts["num_classes"]  # a classifier whose labels are in the weights file, or nowhere
        return f"Yes ({unnamed} classes, labels not in the card)" if unnamed else "No"
    return f"Yes ({facts['num_classes']} classes)" if facts["num_classes"] else "Yes"


def describe_model(name: str, verbose: bool = False) -> dict[str, Any]:
    """Everything known about a model without loading it.

    Args:
        name: A card's name or alias, a family, a registered class, or a card file.
        verbose: Also print a summary.

    Returns:
        The fields of its `ModelSpec`, and under `_metadata` those of its card.

    Raises:
        UnknownModelError: No such model.

    Example:
        >>> describe_model("birdnet")["audio_config"]["sample_rate"]
        48000
    """
    card = resolve(name)
    spec = card.model_spec
    family = canonical_family(spec.name) or spec.name
    info = spec.model_dump()
    info["_metadata"] = {
        "name": card.name,
        "model_type": spec.name,
        "pretrained": spec.pretrained,
        "device": spec.device,
        "has_audio_config": spec.audio_config is not None,
        "has_trained_classifier": card.has_trained_classifier,
        "available": family == TEMPLATE_MODEL or family in list_model_classes(),
        "padding_rule": padding_rule(card),
        **card.model_dump(exclude={"name", "model_spec"}),
    }
    if verbose:
        sys.stdout.write(format_description(card, _file(name)) + "\n")
    return info


def format_description(card: ModelCard, source: str | None = None) -> str:
    """A readable summary of a card.

    Args:
        card: The card.
        source: What to write in the example of loading it, if that is not its name (a file).
    """
    spec = card.model_spec
    audio = spec.audio_config or AudioConfig()
    family = canonical_family(spec.name)
    planned = family is not None and FAMILIES[family].reference is None
    rows = [
        ("Model", card.name),
        ("Description", card.description),
        ("Also called", ", ".join(card.aliases)),
        ("Architecture", spec.name + (" (not implemented in this release)" if planned else "")),
        ("Sample rate", f"{audio.sample_rate} Hz"),
        ("Window", f"{audio.target_length_seconds:g} s" if audio.target_length_seconds else "any length"),
        ("Input", audio.representation),
        ("Resampler", card.resampler),
        ("Padding", _PADDING.get(padding_rule(card) or "", "")),
        ("Embedding", f"{card.embedding_dim} values" if card.embedding_dim else ""),
        (
            "Classifier",
            _classifier({**card.model_dump(), "has_trained_classifier": card.has_trained_classifier}),
        ),
        (
            "Options",
            ", ".join(f"{k}={v}" for k, v in sorted(spec.family_options().items()) if k != "init_config"),
        ),
        ("Weights", card.checkpoint_path or _no_weights(card)),
        ("sha256", card.sha256 or ("not published" if card.checkpoint_path else "")),
        ("Labels", card.class_mapping_path or ""),
        ("Licence", card.license or "unknown"),
        ("", card.license_note or ""),
        ("Paper", card.paper or ""),
    ]
    lines = [f"{title:<14}{' '.join(text.split())}" for title, text in rows if text]
    if not planned:
        option = "trust=True" if spec.name == TEMPLATE_MODEL else 'device="cpu"'
        lines.append(
            f'\n  from avex import load_model\n  model = load_model("{source or card.name}", {option})\n'
        )
    return "\n".join(lines)


def _no_weights(card: ModelCard) -> str:
    if card.model_spec.name == TEMPLATE_MODEL:
        return "whatever the template loads: `avex template validate` shows it"
    return "none: give checkpoint_path"


def padding_rule(card: ModelCard) -> str | None:
    """What a padding mask does in the model of a card (`ModelBase.padding_rule`), or None if it is not known."""
    family = canonical_family(card.model_spec.name)
    if family is not None:
        return FAMILIES[family].padding_rule(card.model_spec)
    if card.model_spec.name == TEMPLATE_MODEL:
        return "none"  # without importing torch
    return getattr(get_model_class(card.model_spec.name), "padding_rule", None)


def _file(model: str) -> str | None:
    """The name itself if it is that of a card file or a template."""
    return model if model.lower().endswith((".yml", ".yaml", ".json")) else None


def cite_model(name: str) -> str:
    """How to cite a model, with its licence.

    Raises:
        UnknownModelError: No such model.
    """
    card = resolve(name)
    citation = " ".join((card.citation or "no citation is known").split())
    lines = [f"{card.name}: {citation}", f"Paper: {card.paper}" if card.paper else ""]
    note = " ".join((card.license_note or "").split())
    lines.append(f"Licence of the weights: {card.license or 'unknown'}. {note}".strip())
    return "\n".join(line for line in lines if line)
