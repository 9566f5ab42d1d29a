"""From what a user has (arrays or a store; labels or a table) to examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.data import LabelTable
from avex.embedding.stores import EmbeddingStore, StoreHeader, decode_name, open_store
from avex.training.probes.examples import Examples, Unit, from_arrays
from avex.training.probes.matching import base_name
from avex.training.probes.options import ProbeChoice, make_config
from avex.training.probes.store_examples import MIN_OVERLAP, from_store
from avex.training.probes.targets import encode_labels


@dataclass(frozen=True)
class LabelOptions:
    """How labels are read.

    Attributes:
        classes: Names in the order of the logits; None takes those that occur.
        multilabel: Whether examples may be of several classes or none; None sees whether any is.
        unit: What an example is, with a label table: a `recording` or a `window`; None sees what the table
            has.
        label_column: Column of the label table that holds the labels.
        min_overlap: Share of the shorter of window and annotation from which on the window has the label.
        groups: (N) what must not be in two parts of a split, or a column of the label table; None takes
        recordings.
    """

    classes: Sequence[str] | None = None
    multilabel: bool | None = None
    unit: Unit | None = None
    label_column: str | None = None
    min_overlap: float = MIN_OVERLAP
    groups: Sequence[Any] | str | None = None


def gather(
    embeddings: Any, labels: Any, choice: ProbeChoice, options: LabelOptions
) -> tuple[Examples, ProbeConfig]:
    """Bring embeddings and labels together, and complete the config of the probe.

    Raises:
        ConfigError: They do not fit each other, or the probe does not fit the store.
    """
    store = as_store(embeddings)
    if store is None:
        if _is_table(labels):
            raise ConfigError(
                "A label table needs the names of recordings, which an array of embeddings does not have. "
                "Pass the embedding store, or one label per embedding."
            )
        groups = None if isinstance(options.groups, str) else options.groups
        examples = from_arrays(embeddings, encode_labels(labels, options.classes, options.multilabel), groups)
        return _with_groups(examples, options.groups), make_config(choice, ["last_layer"], "mean")
    config = make_config(choice, store.header.layers, store.header.pooling)
    check_store(config, store.header)
    if not _is_table(labels):
        files = [
            base_name(decode_name(name))
            for batch in store.scan(["recording"])
            for name in batch.column(0).to_pylist()
        ]
        targets = encode_labels(labels, options.classes, options.multilabel)
        examples = from_arrays(store.to_numpy(), targets, files if options.groups is None else None)
        return _with_groups(_of_store(examples, store.header), options.groups), config
    examples = from_store(
        store,
        LabelTable.read(labels, label_column=options.label_column),
        classes=options.classes,
        multilabel=options.multilabel,
        unit=options.unit,
        sequences=config.reads_sequences,
        min_overlap=options.min_overlap,
    )
    return _with_groups(examples, options.groups), config


def as_store(embeddings: Any) -> EmbeddingStore | None:
    """The store behind a path or a store, None for anything else."""
    if isinstance(embeddings, (str, os.PathLike)):
        return open_store(embeddings)
    return embeddings if hasattr(embeddings, "scan") and hasattr(embeddings, "header") else None


def check_store(config: ProbeConfig, header: StoreHeader) -> None:
    """Check that a probe reads what a store holds.

    Raises:
        ConfigError: Other layers, or another pooling.
    """
    wanted, stored = [str(layer) for layer in config.target_layers], list(header.layers)
    if wanted != stored:
        raise ConfigError(
            f"The probe reads the layers {', '.join(wanted)}, but the store holds {', '.join(stored)}. "
            f"Embed again with --layers {','.join(wanted)}, or set target_layers to {stored}."
        )
    # A head for vectors takes means of what is not pooled; one for sequences takes windows as they are.
    unpooled = config.aggregation in ("none", "concat")
    expected = "mean" if unpooled else config.aggregation
    if header.pooling != expected and not config.reads_sequences:
        raise ConfigError(
            f"The probe has aggregation='{config.aggregation}', but the store was pooled by '{header.pooling}'. "
            f"Embed again with --aggregation {expected}, or set aggregation to '{header.pooling}'."
        )


def _is_table(labels: Any) -> bool:
    is_frame = hasattr(labels, "to_dict") and hasattr(labels, "columns")
    return isinstance(labels, (str, os.PathLike, Mapping, LabelTable)) or is_frame


def _of_store(examples: Examples, header: StoreHeader) -> Examples:
    return replace(examples, header=header)


def _with_groups(examples: Examples, groups: Sequence[Any] | str | None) -> Examples:
    """Examples with the groups that were asked for."""
    if groups is None:
        return examples
    values = examples.column(groups) if isinstance(groups, str) else tuple(groups)
    if len(values) != len(examples):
        raise ConfigError(
            f"There are {len(values)} groups for {len(examples)} examples. Expected one for each."
        )
    files: dict[Any, Any] = {}
    for file, group in zip(examples.groups, values, strict=True):
        if examples.table is not None and files.setdefault(file, group) != group:
            raise ConfigError(f"The recording '{file}' is in two groups, '{files[file]}' and '{group}'.")
    return replace(examples, groups=values)
