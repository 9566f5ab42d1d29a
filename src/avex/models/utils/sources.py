"""Which weights and labels a card and a request mean, and what a weights file holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from avex._core.errors import ConfigError, OfflineError, WeightsError
from avex.configs import ModelCard
from avex.io import sha256_of
from avex.models.utils.families import weights_card
from avex.models.utils.registry import find_card
from avex.weights import LabelMap, WeightSource

if TYPE_CHECKING:
    from avex.weights.adapter import CheckpointAdapter

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChosenWeights:
    """Weights to load.

    Attributes:
        source: Where they are.
        card: The card that publishes this file; None for a file that the caller gave.
        likely_layout: Layout of the card's own file, which a file that the caller gave may have or not.
    """

    source: WeightSource
    card: ModelCard | None = None
    likely_layout: str | None = None

    @property
    def verified_sha256(self) -> str | None:
        """sha256 of the file if its card states one, and it is therefore verified on the way here."""
        if self.card is None or self.card.sha256 is None:
            return None
        return sha256_of(self.source.fetch())


@dataclass(frozen=True)
class FileContent:
    """A checkpoint that was read, under the names that its family uses.

    Attributes:
        path: The file.
        state: Tensors; for a class without adapters under the file's own names.
        metadata: What else the file holds.
        known_names: Whether `state` has the family's names already.
        owned: Whether a model may take over the tensors.
        ignored: Tensors of the file that the family leaves out on purpose.
        layout: Name of the layout; empty for a class without adapters.
        notes: What was done to the names.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, Any]
    known_names: bool
    owned: bool = False
    ignored: tuple[str, ...] = ()
    layout: str = ""
    notes: tuple[str, ...] = ()


def choose_weights(
    cls: type[nn.Module],
    card: ModelCard,
    checkpoint_path: str | Path | None,
    checkpoint_format: str | None,
    pretrained: bool | None,
) -> ChosenWeights | None:
    """Weights: the path that was given, else the card's, else those of the spec's variant if `pretrained`.

    Raises:
        WeightsError: Default weights are wanted and there are none.
    """
    if checkpoint_path is not None:
        layouts = {adapter.name for adapter in getattr(cls, "checkpoint_adapters", ())}
        if checkpoint_format is None and card.checkpoint_format in layouts:
            return ChosenWeights(WeightSource(str(checkpoint_path)), likely_layout=card.checkpoint_format)
        return ChosenWeights(WeightSource(str(checkpoint_path), checkpoint_format or card.checkpoint_format))
    if card.checkpoint_path is not None:
        return ChosenWeights(WeightSource(card.checkpoint_path, card.checkpoint_format, card.sha256), card)
    default = find_card(weights_card(card.model_spec) or "")
    wanted = card.model_spec.pretrained if pretrained is None else pretrained
    # A graph is its weights: without them there is nothing to build.
    if default and default.checkpoint_path and (wanted or getattr(cls, "reads_graph_file", False)):
        source = WeightSource(default.checkpoint_path, default.checkpoint_format, default.sha256)
        return ChosenWeights(source, default)
    if pretrained:
        options = ", ".join(f"{name}={value!r}" for name, value in card.model_spec.family_options().items())
        told = " ".join(default.description.split()).rstrip(".") if default else ""
        about = f" Card '{default.name}': {told}." if default and told else ""
        raise WeightsError(
            f"There are no default weights for '{card.name}'{f' with {options}' if options else ''}.{about} Give "
            "checkpoint_path=..., or pretrained=False."
        )
    return None


def class_for(cls: type[nn.Module], chosen: ChosenWeights | None) -> type[nn.Module]:
    """The class that takes these weights: a family may have another one for another kind of file."""
    choose = getattr(cls, "for_checkpoint", None)
    return choose(chosen.source) if choose is not None and chosen is not None else cls


def recognise_given(chosen: ChosenWeights, card: ModelCard) -> ChosenWeights:
    """The same weights, with their card if a file that the caller gave is the published one, by its sha256."""
    if chosen.card is not None:
        return chosen
    known = [card, find_card(weights_card(card.model_spec) or "")]
    published = {c.sha256: c for c in known if c is not None and c.sha256 is not None}
    actual = sha256_of(chosen.source.fetch()) if published else ""
    match = next((c for stated, c in published.items() if actual.startswith(stated)), None)
    return ChosenWeights(chosen.source, match)


def read_content(
    cls: type[nn.Module], name: str, source: WeightSource, likely_layout: str | None = None
) -> FileContent:
    """Read a checkpoint and give its tensors the names of a family.

    Args:
        cls: Class of the family.
        name: What the model is called, for messages.
        source: The file; its format, if any, is the layout whether the names say so or not.
        likely_layout: The layout that is tried before the others.

    Raises:
        WeightsError: It cannot be read, or has no layout that the family knows.
    """
    from avex.weights import KeyMapAdapter, choose_adapter, read_checkpoint

    path = source.fetch()
    checkpoint = read_checkpoint(path, source.format)
    adapters: list[CheckpointAdapter] = sorted(
        getattr(cls, "checkpoint_adapters", ()), key=lambda adapter: adapter.name != likely_layout
    )
    state, notes = _recognised(checkpoint.tensors, adapters, source.format)
    if checkpoint.others:
        notes = (*notes, f"not read: the state dicts {', '.join(map(repr, checkpoint.others))} of the file")
    if not adapters:
        return FileContent(path, state, checkpoint.metadata, False, checkpoint.owned, notes=notes)
    adapter = choose_adapter(adapters, set(state), str(path), name, source.format)
    dropped = tuple(adapter.dropped(state)) if isinstance(adapter, KeyMapAdapter) else ()
    try:
        converted = adapter.convert(state)
    except WeightsError as error:
        reason = str(error)
        raise WeightsError(
            f"Checkpoint '{path}' does not fit '{name}': its names look like the layout '{adapter.name}', but "
            f"{reason[:1].lower()}{reason[1:]} Pass the weights of this architecture, or checkpoint_format=... if "
            "it has another layout."
        ) from error
    return FileContent(
        path,
        converted,
        checkpoint.metadata,
        known_names=True,
        owned=checkpoint.owned,
        ignored=dropped,
        layout=adapter.name,
        notes=notes,
    )


def _recognised(
    tensors: dict[str, Tensor], adapters: list[CheckpointAdapter], checkpoint_format: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the first bare names that a layout fits, or only without wrappers if none does."""
    from avex.weights.wrappers import unwrappings

    named = [adapter for adapter in adapters if adapter.name == checkpoint_format]
    first = None
    for state, notes in unwrappings(tensors):
        first = first or (state, notes)
        if any(adapter.matches(set(state)) for adapter in named or adapters):
            return state, notes
    return first or (tensors, ())


def labels_for(card: ModelCard, chosen: ChosenWeights | None) -> LabelMap | None:
    """Labels that a card states: that of the weights, or the one that was named; None if neither has any.

    A family's default card has none to give to a file that it does not publish. Labels that would have to be
    downloaded and cannot be are left out with a warning: the weights are worth having without.
    """
    publisher = chosen.card if chosen is not None else None
    stating = next((c for c in (card, publisher) if c is not None and c.class_mapping_path), None)
    if stating is None or stating.class_mapping_path is None:
        return None
    try:
        return LabelMap.load(stating.class_mapping_path, column=stating.class_mapping_column)
    except OfflineError as error:
        logger.warning("Model '%s' is loaded without labels: %s", card.name, error)
        return None


def fitting_labels(
    labels: LabelMap | None, num_classes: int | None, name: str, *, given_file: bool
) -> LabelMap | None:
    """The labels if their number is that of the classes.

    Raises:
        ConfigError: It is not, and the card names both labels and weights. For a file that the caller gave, the
            labels are left out with a warning instead: it was trained on other classes.
    """
    if labels is None or num_classes is None or labels.num_classes == num_classes:
        return labels
    if given_file:
        logger.warning(
            "The checkpoint has %d classes, the card '%s' has labels for %d: the model gets no labels. Write a "
            "card with class_mapping_path for this checkpoint.",
            num_classes,
            name,
            labels.num_classes,
        )
        return None
    raise ConfigError(
        f"The labels of '{name}' name {labels.num_classes} classes, but its classifier has {num_classes}. "
        "Correct class_mapping_path in the card."
    )


def labels_in_file(metadata: dict[str, Any]) -> LabelMap | None:
    """Labels that a checkpoint itself holds: `label_dict` in the fine-tuned BEATs of its authors, else None."""
    table = metadata.get("label_dict")
    return LabelMap.from_mapping(table, "label_dict of the checkpoint") if isinstance(table, dict) else None
