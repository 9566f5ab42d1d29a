"""What counts as a detection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avex._core.errors import ConfigError
from avex.detection.species import SpeciesFilter
from avex.weights.labels import split_label


@dataclass(frozen=True)
class DetectionOptions:
    """What counts as a detection.

    Attributes:
        min_conf: Smallest confidence, 0 to 1.
        top_n: At most so many species per window, of those above `min_conf`.
        sensitivity: BirdNET's sensitivity, 0.5 to 1.5; higher finds more weak calls.
        lat: Latitude; with `lon`, only species expected at that place are reported.
        lon: Longitude.
        week: Week 1 to 48 (four a month), or None for the whole year.
        sf_thresh: Smallest probability of occurrence of an expected species.
        species_list: Text file of species, one per line.
        merge_consecutive: Join detections in neighbouring windows: True, or the largest number of windows.
    """

    min_conf: float = 0.25
    top_n: int | None = None
    sensitivity: float = 1.0
    lat: float | None = None
    lon: float | None = None
    week: int | None = None
    sf_thresh: float = 0.03
    species_list: str | Path | None = None
    merge_consecutive: bool | int = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_conf <= 1:
            raise ConfigError(f"The minimum confidence must lie between 0 and 1, not {self.min_conf}.")
        if (self.lat is None) != (self.lon is None):
            raise ConfigError("A place needs both a latitude and a longitude.")
        if self.week is not None and self.lat is None:
            raise ConfigError("A week narrows the species of a place: give --lat and --lon too.")
        if self.sf_thresh != DetectionOptions.sf_thresh and self.lat is None:
            raise ConfigError("sf_thresh narrows the species of a place: give --lat and --lon too.")
        if self.species_list is not None and self.lat is not None:
            raise ConfigError("Give either a place or a species list, not both.")

    def allowed(self, labels: Sequence[str]) -> np.ndarray | None:
        """Mask of the classes that may be reported, or None for all.

        Raises:
            ConfigError: The list or the place names no class of the model.
        """
        if self.species_list is not None:
            return SpeciesFilter.from_file(self.species_list).mask(labels)
        if self.lat is None or self.lon is None:
            return None
        return _expected(labels, self.lat, self.lon, self.week, self.sf_thresh)


def _expected(
    labels: Sequence[str], lat: float, lon: float, week: int | None, threshold: float
) -> np.ndarray:
    """Classes of any model whose species BirdNET's geographic model expects at a place."""
    from avex.models.birdnet.geo import expected_species
    from avex.models.utils.registry import load_label_mapping

    known = load_label_mapping("birdnet")
    assert known is not None
    present = expected_species(lat, lon, week, threshold)
    names = {split_label(label)[0] for label, here in zip(known.labels, present, strict=True) if here}
    mask = np.array([split_label(label)[0] in names or label in names for label in labels])
    if not mask.any():
        raise ConfigError(
            "No class of this model is a species expected at that place. The geographic model knows scientific "
            "names; use --species-list for a model with other labels."
        )
    return mask
