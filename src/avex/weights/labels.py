"""Label maps: which class index means which label, read from the files that models are published with."""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
from avex.io import fetch

_TABLES = ("label_to_index", "index_to_label")
_SHAPES = (
    'a JSON list of labels, {"label": index}, {"index": "label"}, '
    '{"label_to_index": {...}, "index_to_label": {...}}, or a text file with one label per line'
)
# Genus and species (and subspecies), as in "Turdus merula" or "Motacilla alba yarrellii".
_BINOMIAL = re.compile(r"[A-Z][a-z]+(-[a-z]+)?( [a-z]{2,}(-[a-z]+)?){1,2}")


class LabelMap(dict[str, Any]):
    """Labels of a classifier in index order.

    A dict with two tables, `"label_to_index"` (label to int) and `"index_to_label"` (int to label), that also
    answers to an index, as a number or as text: `labels[3]`, `labels.get("3")`. As for any dict, `len()` and
    iteration are about its two keys; the number of classes is `num_classes`. It pickles, and `load` reads
    what `json.dumps` makes of it.

    Args:
        labels: The labels, index 0 first.

    Raises:
        ConfigError: There is no label, a label is not text or is empty, or two are equal.

    Example:
        >>> labels = LabelMap.from_labels(["Turdus merula", "Fringilla coelebs"])
        >>> labels["label_to_index"]["Fringilla coelebs"], labels["index_to_label"][0], labels.get("1")
        (1, 'Turdus merula', 'Fringilla coelebs')
    """

    def __init__(self, labels: Iterable[str]) -> None:
        ordered = _checked(labels, "label list")
        super().__init__(
            label_to_index={label: index for index, label in enumerate(ordered)},
            index_to_label=dict(enumerate(ordered)),
        )

    @classmethod
    def from_labels(cls, labels: Iterable[str]) -> LabelMap:
        """Make a label map of labels in index order."""
        return cls(labels)

    @classmethod
    def from_mapping(cls, value: object, source: str = "label map") -> LabelMap:
        """Make a label map from any of the shapes that label files have, already parsed.

        Args:
            value: A list of labels; `{label: index}`; `{index: label}` (indices as int or text); or a mapping
                that holds one or both under `"label_to_index"` and `"index_to_label"`.
            source: What to call it in messages.

        Raises:
            ConfigError: Another shape; indices that are not whole numbers, have gaps or repeat; labels that
                repeat; or two tables that disagree.
        """
        return cls(_ordered_labels(value, source))

    @classmethod
    def load(cls, path: str | Path, *, column: str | None = None, offline: bool | None = None) -> LabelMap:
        """Read a label file in UTF-8: JSON, text with one label per line, or a column of a table.

        Args:
            path: Local path or any URI that `avex.io.fetch` understands. `.txt` is read as text; otherwise a
                file that begins with `{` or `[`, or that is named `.json`, is read as JSON.
            column: Column of labels of a CSV file whose first line names its columns. Such a file is never read
                without: a header would be taken for a label, and all others would be off by one.
            offline: As for `avex.io.fetch`.

        Raises:
            ConfigError: The file is not a label file; the message says what is wrong with it.
            FileNotFoundError: There is no such file.
            OfflineError: The file is remote, not in the cache, and cannot be downloaded.
        """
        file, source = fetch(path, offline=offline), f"label file '{path}'"
        suffix = file.suffix.lower()
        if column is None and suffix in (".csv", ".tsv"):
            raise ConfigError(
                f"The {source} is a table. Expected {_SHAPES}. Say which column holds the labels "
                "(class_mapping_column in a card, column=... here), or keep only that one, without a header, in a "
                ".txt file."
            )
        text = _text(file, source)
        if column is not None:
            return cls(_checked(_column(text, column, "\t" if suffix == ".tsv" else ",", source), source))
        if suffix == ".json" or (suffix != ".txt" and text.lstrip()[:1] in ("{", "[")):
            return cls.from_mapping(_parse_json(text, source), source)
        # Not splitlines: it also splits at rare characters (form feed, U+2028) that a label might hold.
        lines = text.rstrip().split("\n") if text.strip() else []
        return cls(_checked((line.strip() for line in lines), source))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in index order."""
        return tuple(self["index_to_label"].values())

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self["index_to_label"])

    def __missing__(self, key: object) -> str:
        index = int(key) if isinstance(key, str) and key.isdecimal() else key
        return str(self["index_to_label"][index])

    def get(self, key: Any, default: Any = None) -> Any:
        """Return a table by its name or a label by its index (int, or text such as `"3"`), else `default`."""
        try:
            return self[key]
        except KeyError:
            return default

    def __reduce__(self) -> tuple[type[LabelMap], tuple[tuple[str, ...]]]:
        return type(self), (self.labels,)

    def __repr__(self) -> str:
        shown = ", ".join(repr(label) for label in self.labels[:3])
        return f"{type(self).__name__}({self.num_classes} labels: {shown}{', ...' * (self.num_classes > 3)})"


def split_label(label: str) -> tuple[str, str]:
    """Split a BirdNET-style label into scientific and common name.

    Such a label does not begin with a small letter. Anything else, such as "chirping_birds", is one name: the
    scientific one if it is spelled like a Latin binomial, which can be wrong ("Power tools"), or else the common
    one; the other is empty.

    Example:
        >>> split_label("Turdus merula_Eurasian Blackbird")
        ('Turdus merula', 'Eurasian Blackbird')
        >>> split_label("Turdus merula"), split_label("Rain")
        (('Turdus merula', ''), ('', 'Rain'))
    """
    scientific, underscore, common = label.partition("_")
    scientific, common = scientific.strip(), common.strip()
    if underscore and not scientific[:1].islower():
        return scientific, common
    return (label.strip(), "") if _BINOMIAL.fullmatch(label.strip()) else ("", label.strip())


def _ordered_labels(value: object, source: str) -> list[str]:
    if isinstance(value, (list, tuple)):
        return _checked(value, source)
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"The {source} holds {_what(value)}. Expected {_SHAPES}.")
    tables = [value[name] for name in _TABLES if name in value]
    if not tables:
        return _from_table(value, source)
    orders = [_ordered_labels(table, source) for table in tables]
    if orders[0] != orders[-1]:
        raise ConfigError(
            f"The {source} contradicts itself: 'label_to_index' and 'index_to_label' differ. "
            "Remove the wrong one."
        )
    return orders[0]


def _from_table(table: Mapping[Any, Any], source: str) -> list[str]:
    if all(isinstance(value, str) for value in table.values()):
        pairs = [(_index(key, source), label) for key, label in table.items()]
    else:
        pairs = [(_index(value, source), label) for label, value in table.items()]
    indices = sorted(index for index, _ in pairs)
    for expected, index in enumerate(indices):
        if index != expected:
            problem = f"index {index} twice" if expected and index == indices[expected - 1] else None
            raise ConfigError(
                f"The {source} has {problem or f'no label for index {expected}'}. Expected the indices "
                f"0 to {len(indices) - 1}, each once."
            )
    return _checked((label for _, label in sorted(pairs, key=lambda pair: pair[0])), source)


def _index(value: object, source: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ConfigError(
        f"The {source} has {reprlib.repr(value)} where an index was expected. Indices are whole numbers. "
        f"Expected {_SHAPES}."
    )


def _checked(labels: Iterable[object], source: str) -> list[str]:
    ordered: list[str] = []
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            raise ConfigError(
                f"The {source} has {reprlib.repr(label)} as label {index}. Labels are text. "
                f"Expected {_SHAPES}."
            )
        if not label.strip():
            raise ConfigError(f"The {source} has an empty label at index {index}. Name it or remove it.")
        if label in seen:
            raise ConfigError(
                f"The {source} has the label '{label}' twice, at index {seen[label]} and at index {index}. "
                "Labels must differ."
            )
        seen[label] = index
        ordered.append(label)
    if not ordered:
        raise ConfigError(f"The {source} is empty. Expected {_SHAPES}.")
    return ordered


def _text(file: Path, source: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The {source} is not UTF-8 text (byte {error.start}). Save it as UTF-8 and try again."
        ) from error


def _column(text: str, column: str, delimiter: str, source: str) -> list[str]:
    """Return the cells below a column's name, in the order of the rows; empty lines count for nothing."""
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    header = [name.strip() for name in rows[0]] if rows else []
    if header.count(column) != 1:
        raise ConfigError(
            f"The {source} has no column '{column}'.{did_you_mean(column, header)} Its first line names "
            f"{', '.join(map(repr, header[:8])) or 'none'}{', ...' * (len(header) > 8)}."
        )
    place = header.index(column)
    short = next((number for number, row in enumerate(rows, start=1) if len(row) <= place), None)
    if short is not None:
        raise ConfigError(
            f"The {source} has no value for '{column}' in row {short}. Add it, or remove the row."
        )
    return [row[place].strip() for row in rows[1:]]


def _parse_json(text: str, source: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ConfigError(f"The {source} has the key '{key}' twice. Keys must differ.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"The {source} is not valid JSON: {error}. Expected {_SHAPES}.") from error


def _what(value: object) -> str:
    return f"a value of type '{type(value).__name__}'" if value else "nothing"
