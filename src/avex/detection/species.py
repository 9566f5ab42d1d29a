"""Species lists: which classes of a model may be reported."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError, did_you_mean

_COMMENT = re.compile(r"(^|\s)#.*$")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class SpeciesFilter:
    """A list of species, to be matched against the labels of a model.

    An entry is `Scientific_Common` (as in the labels of BirdNET), a scientific name or a common name. Upper and
    lower case, runs of blanks and the Unicode form do not matter. A `Scientific_Common` entry also matches a
    label that is the scientific name alone, since that names the same species.

    Attributes:
        entries: Entries as written, without comments and blank lines.
        source: Where they come from, for messages.

    Raises:
        ConfigError: There is no entry.

    Example:
        >>> labels = ["Turdus merula_Eurasian Blackbird", "Parus major_Great Tit"]
        >>> SpeciesFilter(("great tit",)).mask(labels).tolist()
        [False, True]
    """

    entries: tuple[str, ...]
    source: str = "species list"

    def __post_init__(self) -> None:
        if not self.entries:
            raise ConfigError(
                f"'{self.source}' names no species. Expected one per line, such as "
                "'Turdus merula_Eurasian Blackbird', 'Turdus merula' or 'Eurasian Blackbird'."
            )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> SpeciesFilter:
        """Read a UTF-8 text file with one entry per line; `#` begins a comment.

        Raises:
            ConfigError: The file cannot be read, is not UTF-8, or holds no entry.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"Species list '{path}' is not UTF-8 (byte {error.start}). Save it as UTF-8 and try again."
            ) from error
        except (FileNotFoundError, IsADirectoryError) as error:
            raise ConfigError(
                f"There is no species list at '{path}'. Expected a text file with one species per line."
            ) from error
        return cls.from_entries(text.split("\n"), source=str(path))

    @classmethod
    def from_entries(cls, lines: Iterable[str], source: str = "species list") -> SpeciesFilter:
        """Build a filter from lines; comments and blank lines are dropped."""
        stripped = (_COMMENT.sub("", line).strip() for line in lines)
        return cls(tuple(line for line in stripped if line), source)

    def mask(self, labels: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Tell for each label whether it is on the list.

        Args:
            labels: Class names of the model, in class order.

        Returns:
            `(len(labels),)` bool mask, as `select(allowed=...)` takes it.

        Raises:
            ConfigError: An entry matches no label; the message names the first five with suggestions.
        """
        by_name = _names_of(labels)
        mask = np.zeros(len(labels), dtype=np.bool_)
        unknown = []
        for entry in self.entries:
            indices = _find(entry, by_name, labels)
            if indices:
                mask[indices] = True
            else:
                unknown.append(entry)
        if unknown:
            raise self._unknown(unknown, labels)
        return mask

    def _unknown(self, unknown: list[str], labels: Sequence[str]) -> ConfigError:
        names = [name for label in labels for name in (label, *label.split("_", 1)) if name]
        lines = [f"'{entry}'.{did_you_mean(entry, names)}" for entry in unknown[:_SHOWN]]
        if len(unknown) > _SHOWN:
            lines.append(f"And {len(unknown) - _SHOWN} more.")
        return ConfigError(
            f"{len(unknown)} of {len(self.entries)} entries of '{self.source}' match no class of the model. "
            "Expected 'Scientific_Common', a scientific or a common name, spelled as in the model's labels; "
            "correct or remove: " + " ".join(lines)
        )


def _key(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


def _names_of(labels: Sequence[str]) -> dict[str, list[int]]:
    """Map each way to write a label to the classes that it means."""
    by_name: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        for name in {_key(label), *(_key(part) for part in label.split("_", 1))}:
            if name:
                by_name.setdefault(name, []).append(index)
    return by_name


def _find(entry: str, by_name: dict[str, list[int]], labels: Sequence[str]) -> list[int]:
    found = by_name.get(_key(entry), [])
    scientific, separator, _ = entry.partition("_")
    if found or not separator:
        return found
    return [index for index in by_name.get(_key(scientific), []) if "_" not in labels[index]]
