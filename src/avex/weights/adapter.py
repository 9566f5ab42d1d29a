"""Published checkpoint layouts: which one a file has, and how its tensors are called in the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from avex._core.errors import UnknownNameError, WeightsError, did_you_mean
from avex.weights.keymap import KeyMap, shown
from avex.weights.sniff import FILE_FORMATS
from avex.weights.wrappers import strip_wrappers

if TYPE_CHECKING:
    from torch import Tensor

_PREFIXES = ("model.", "backbone.")


@runtime_checkable
class CheckpointAdapter(Protocol):
    """One published layout of a model family's checkpoints.

    Attributes:
        name: What users call the layout (`checkpoint_format`).
    """

    @property
    def name(self) -> str:
        """What users call the layout."""
        ...

    def matches(self, keys: AbstractSet[str]) -> bool:
        """Tell whether a checkpoint with these keys has this layout."""
        ...

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors under the names that the model uses; the tensors are not copied."""
        ...


@dataclass(frozen=True)
class KeyMapAdapter:
    """A layout that a table of renamings describes.

    Attributes:
        name: What users call the layout.
        key_map: Its keys to the model's keys.
        requires: Keys that a file of this layout always has. If empty, the table must cover every key.

    Example:
        >>> adapter = KeyMapAdapter("flat", KeyMap([("{rest}", "backbone.{rest}")]), requires=("norm.bias",))
        >>> adapter.matches({"norm.bias", "norm.weight"})
        True
    """

    name: str
    key_map: KeyMap
    requires: tuple[str, ...] = ()

    def matches(self, keys: AbstractSet[str]) -> bool:
        """Tell whether a checkpoint with these keys has this layout."""
        return keys >= set(self.requires) if self.requires else self.key_map.covers(keys)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors.

        Raises:
            WeightsError: A key is not in the table, or two would get one name.
        """
        return self.key_map.rename(state)

    def dropped(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the keys that the table leaves out on purpose, each with the reason."""
        return self.key_map.dropped(keys)


@dataclass(frozen=True)
class StateDictAdapter:
    """The layout of a model's own `state_dict()`, as saved from a wrapper around it or from a part of it.

    A prefix that DistributedDataParallel or torch.compile put before all keys is removed. After that, one of
    `model.` and `backbone.` may be put before, or removed from, all keys (the classifier's may stay as they
    are), if more keys then bear exactly the names that the model uses; otherwise nothing is changed.

    Attributes:
        target_keys: The keys of the model's own state dict.
        name: What users call the layout.
        head_prefixes: How the keys of the classifier begin.
    """

    target_keys: AbstractSet[str]
    name: str = "state_dict"
    head_prefixes: tuple[str, ...] = ("classifier.",)

    def matches(self, keys: AbstractSet[str]) -> bool:
        """Tell whether at least one key bears, after the renaming, a name that the model uses."""
        return any(new in self.target_keys for new in self.renamed(keys).values())

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors, or return them as they are when no renaming fits better."""
        names = self.renamed(state)
        return {names[key]: tensor for key, tensor in state.items()}

    def renamed(self, keys: Iterable[str]) -> dict[str, str]:
        """Return the new name of every key."""
        old = list(keys)
        # max keeps the first of equals, so nothing is renamed without a gain.
        best: list[str] = max(self._candidates(old), key=self._fit)
        return dict(zip(old, best, strict=True))

    def _fit(self, names: list[str]) -> int:
        distinct = set(names)
        return len(self.target_keys & distinct) if len(distinct) == len(names) else -1

    def _candidates(self, keys: list[str]) -> Iterator[list[str]]:
        yield keys
        bare = list(strip_wrappers(keys)[0].values())
        yield bare
        for heads in ((), self.head_prefixes):
            body = [name for name in bare if not name.startswith(heads)]
            for prefix in _PREFIXES:
                if body and all(name.startswith(prefix) for name in body):
                    yield [name if name.startswith(heads) else name.removeprefix(prefix) for name in bare]
                yield [name if name.startswith(heads) else prefix + name for name in bare]


def rename_to_layout(
    adapters: Sequence[KeyMapAdapter],
    state: Mapping[str, Tensor],
    layout: str,
    family: str,
    headless: AbstractSet[str] = frozenset(),
) -> dict[str, Tensor]:
    """Give a model's state dict the names of a published layout; tensors are not copied.

    Args:
        adapters: The layouts of its family.
        state: `model.state_dict()`.
        layout: Name of one of them.
        family: What the architecture is called, for messages.
        headless: Layouts that have no place for a classifier of sounds: it is left out.

    Raises:
        UnknownNameError: There is no such layout.
        WeightsError: The layout has no place for a tensor.
    """
    tables = {adapter.name: adapter.key_map for adapter in adapters}
    if layout not in tables:
        raise UnknownNameError(
            f"{family} has no layout '{layout}'.{did_you_mean(layout, tables)} Known: {', '.join(tables)}."
        )
    if layout in headless:
        state = {key: tensor for key, tensor in state.items() if not key.startswith("classifier.")}
    return tables[layout].invert().rename(dict(state))


def choose_adapter(
    adapters: Sequence[CheckpointAdapter],
    keys: Iterable[str],
    path: str | Path,
    model_name: str,
    checkpoint_format: str | None = None,
    *,
    num_parameters: int | None = None,
) -> CheckpointAdapter:
    """Return the adapter whose layout a checkpoint has; the first one that matches wins.

    Args:
        adapters: The layouts that the model family knows, most specific first.
        keys: The checkpoint's keys.
        path: Its file, for messages.
        model_name: What the model is called, for messages.
        checkpoint_format: Name of the adapter to use, whether it recognises the keys or not; None to find
            out. A file format (`FILE_FORMATS`) that no adapter is named after says nothing about the layout.
        num_parameters: How many tensors the model has, for messages; None to speak of the file's.

    Raises:
        WeightsError: No layout fits.
        UnknownNameError: There is no adapter named `checkpoint_format`.
    """
    formats = [adapter.name for adapter in adapters]
    for adapter in adapters:
        if adapter.name == checkpoint_format:
            return adapter
    if checkpoint_format is not None and checkpoint_format not in FILE_FORMATS:
        known = (*formats, *FILE_FORMATS)
        raise UnknownNameError(
            f"Model '{model_name}' has no checkpoint format '{checkpoint_format}'."
            f"{did_you_mean(checkpoint_format, known)} Known: {', '.join(dict.fromkeys(known))}."
        )
    found = set(keys)
    for adapter in adapters:
        if adapter.matches(found):
            return adapter
    count = num_parameters if num_parameters is not None else len(found)
    raise WeightsError(
        f"Checkpoint '{Path(path).name}' does not fit '{model_name}': 0 of {count} parameters matched. Formats "
        f"tried: {', '.join(formats) or 'none'}. First unmatched keys: {shown(sorted(found))}. Pass "
        "checkpoint_format=... if it is one of these formats, or the checkpoint_path=... of another file."
    )
