"""Listing and describing what can be loaded. No torch, no network."""

from __future__ import annotations

import shutil
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
_TITLES = ("Model Name", "Description", "Trained Classifier")
_LEAST_DESCRIPTION = 20
_NOTEBOOK_WIDTH = 100


def model_table() -> dict[str, dict[str, Any]]:
    """Facts about every card, by name: see `list_models`."""
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
    """Print a table of all models, as wide as the terminal, and return what it says in full.

    Returns:
        `{name: {description, has_trained_classifier, num_classes, checkpoint_path, model_type, sample_rate,
        embedding_dim, license, aliases, available}}`; `available` tells whether this release implements it.

    Example:
        >>> models = list_models()                                          # doctest: +SKIP
        >>> models["birdnet"]["num_classes"]                                # doctest: +SKIP
        6522
    """
    table = model_table()
    sys.stdout.write(format_models(table, terminal_width() or _NOTEBOOK_WIDTH))
    return table


def terminal_width() -> int | None:
    """Columns of the terminal, or None if standard output is none (a pipe, a file, a notebook)."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def format_models(table: dict[str, dict[str, Any]], width: int | None = None) -> str:
    """The table as text.

    Args:
        table: See `list_models`.
        width: Columns to fit into, by shortening descriptions; None for whole ones.
    """
    rows = [
        (name, _planned(facts) + facts["description"], _classifier(facts, brief=True))
        for name, facts in table.items()
    ]
    names, descriptions, classifiers = (max(map(len, column)) for column in zip(_TITLES, *rows, strict=True))
    if width is not None:
        descriptions = min(descriptions, max(_LEAST_DESCRIPTION, width - names - classifiers - 4))
    lines = [
        f"{name:<{names}}  {_shortened(description, descriptions):<{descriptions}}  {classifier}".rstrip()
        for name, description, classifier in [_TITLES, *rows]
    ]
    rule = "=" * (names + descriptions + classifiers + 4)
    footer = f"{len(table)} models. Details: avex describe NAME"
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, footer, ""])


def _planned(facts: dict[str, Any]) -> str:
    return "" if facts["available"] else "(planned) "


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip(" .,;:-(") + "…"


def _classifier(facts: dict[str, Any], brief: bool = False) -> str:
    classes = facts["num_classes"]
    if facts["has_trained_classifier"]:
        return f"Yes ({classes} classes)" if classes else "Yes"
    if not classes:
        return "No"
    # Its labels are in the weights file, or nowhere.
    return f"Yes ({classes}, unnamed)" if brief else f"Yes ({classes} classes, labels not in the card)"


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
        ("Device", spec.device if spec.device == "cpu" else f"{spec.device}, else the CPU"),
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
        lines.append(
            f'\n  from avex import load_model\n  model = load_model("{source or card.name}", {_options(card)})\n'
        )
    return "\n".join(lines)


def _options(card: ModelCard) -> str:
    """What to give `load_model` besides the name."""
    if card.model_spec.name == TEMPLATE_MODEL:
        return "trust=True"
    return 'device="cpu"' if card.checkpoint_path else 'device="cpu", checkpoint_path="/path/to/weights"'


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
