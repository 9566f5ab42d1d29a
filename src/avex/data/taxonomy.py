"""eBird codes, scientific and common names of birds.

Each table belongs to a year: codes and names change. The eBird taxonomy may be downloaded as CSV from
https://www.birds.cornell.edu/clementschecklist/ and is not part of avex.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.data.columns import cell_text
from avex.data.rows import read_rows

# Spellings of the published tables of different years, in lower case without separators.
_COLUMNS = {
    "code": ("speciescode", "ebirdcode", "ebird2021", "primarylabel", "code"),
    "scientific_name": ("sciname", "scientificname"),
    "common_name": ("primarycomname", "primarycommonname", "comname", "commonname", "englishname"),
}


@dataclass(frozen=True, slots=True)
class Taxon:
    """A species (or another taxon) under its three names; what a table does not state is empty."""

    code: str
    scientific_name: str
    common_name: str


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """Names of taxa, found by any of them. Upper and lower case do not matter.

    Attributes:
        taxa: All taxa.

    Example:
        >>> names = Taxonomy([Taxon("eurrob1", "Erithacus rubecula", "European Robin")])
        >>> names["erithacus rubecula"].code
        'eurrob1'
    """

    taxa: tuple[Taxon, ...]
    _by_name: dict[str, Taxon] = field(init=False, repr=False)

    def __init__(self, taxa: Iterable[Taxon]) -> None:
        object.__setattr__(self, "taxa", tuple(taxa))
        table: dict[str, Taxon] = {}
        for taxon in self.taxa:
            for name in (taxon.code, taxon.scientific_name, taxon.common_name):
                if name:
                    table.setdefault(name.casefold(), taxon)
        object.__setattr__(self, "_by_name", table)

    def __len__(self) -> int:
        return len(self.taxa)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.strip().casefold() in self._by_name

    def __getitem__(self, name: str) -> Taxon:
        """The taxon of a code, scientific or common name, or of BirdNET's `Scientific_Common`.

        Raises:
            UnknownNameError: It is in no column of the table.
        """
        key = name.strip().casefold()
        for part in (key, *key.split("_", 1)):
            if part in self._by_name:
                return self._by_name[part]
        raise UnknownNameError(
            f"The taxonomy of {len(self.taxa)} taxa has no '{name}'.{did_you_mean(name, self._by_name)} It may be "
            "of another year: names change."
        )

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Taxonomy:
        """Read a taxonomy: the table of eBird of any year, or one with code, scientific and common names.

        Raises:
            ConfigError: The file cannot be read or has no column of codes or scientific names.
        """
        rows = read_rows(Path(path))
        columns = {_key(name): name for name in rows[0].values}
        found = {
            what: next((columns[name] for name in names if name in columns), None)
            for what, names in _COLUMNS.items()
        }
        if found["code"] is None or found["scientific_name"] is None:
            raise ConfigError(
                f"'{path}' is no taxonomy: expected columns such as SPECIES_CODE, SCI_NAME and PRIMARY_COM_NAME. "
                f"Its columns are: {', '.join(columns.values())}."
            )
        return cls(
            Taxon(**{what: cell_text(row.values.get(name)) if name else "" for what, name in found.items()})
            for row in rows
        )

    @classmethod
    def from_birdnet_labels(cls, labels: Iterable[str]) -> Taxonomy:
        """Names, without codes, of labels `Scientific name_Common name`.

        Raises:
            ConfigError: A label is not of this form.

        Example:
            >>> Taxonomy.from_birdnet_labels(["Turdus merula_Eurasian Blackbird"])["Turdus merula"].common_name
            'Eurasian Blackbird'
        """
        taxa = []
        for label in labels:
            scientific, separator, common = label.strip().partition("_")
            if not separator or not scientific:
                raise ConfigError(
                    f"'{label}' is no label of BirdNET. Expected 'Scientific name_Common name'."
                )
            taxa.append(Taxon("", scientific, common))
        return cls(taxa)

    def join(self, other: Taxonomy) -> Taxonomy:
        """This taxonomy, with names that only `other` has, and empty fields filled in from it."""
        merged = [_fill(taxon, other) for taxon in self.taxa]
        known = {taxon.scientific_name.casefold() for taxon in merged}
        return Taxonomy(
            [*merged, *(taxon for taxon in other.taxa if taxon.scientific_name.casefold() not in known)]
        )


def _fill(taxon: Taxon, other: Taxonomy) -> Taxon:
    if taxon.scientific_name not in other:
        return taxon
    more = other[taxon.scientific_name]
    return Taxon(taxon.code or more.code, taxon.scientific_name, taxon.common_name or more.common_name)


def _key(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())
