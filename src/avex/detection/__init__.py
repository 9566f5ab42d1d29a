"""From scores to events to selection tables (Raven, Audacity, Kaleidoscope, BirdNET CSV, Parquet, JSON).

>>> from avex.detection import Detection, merge_consecutive
>>> windows = [Detection("a.wav", 0.0, 3.0, "wren", 0.4), Detection("a.wav", 3.0, 6.0, "wren", 0.9)]
>>> [(event.start_s, event.end_s) for event in merge_consecutive(windows)]
[(0.0, 6.0)]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.detection.events import merge_consecutive
    from avex.detection.read import read_audacity, read_raven, read_table, sniff_format
    from avex.detection.records import MIX_CHANNEL, Detection, RecordingDetections
    from avex.detection.scores import select, sigmoid, softmax
    from avex.detection.species import SpeciesFilter
    from avex.detection.summary import SpeciesSummary, summarise
    from avex.detection.tables import (
        FORMATS,
        Format,
        get_format,
        table_name,
        write_combined,
        write_recording_tables,
    )

__all__ = [
    "FORMATS",
    "MIX_CHANNEL",
    "Detection",
    "Format",
    "RecordingDetections",
    "SpeciesFilter",
    "SpeciesSummary",
    "get_format",
    "merge_consecutive",
    "read_audacity",
    "read_raven",
    "read_table",
    "select",
    "sigmoid",
    "sniff_format",
    "softmax",
    "summarise",
    "table_name",
    "write_combined",
    "write_recording_tables",
]

_HOMES = {
    "events": ("merge_consecutive",),
    "read": ("read_audacity", "read_raven", "read_table", "sniff_format"),
    "records": ("MIX_CHANNEL", "Detection", "RecordingDetections"),
    "scores": ("select", "sigmoid", "softmax"),
    "species": ("SpeciesFilter",),
    "summary": ("SpeciesSummary", "summarise"),
    "tables": ("FORMATS", "Format", "get_format", "table_name", "write_combined", "write_recording_tables"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


__getattr__ = lazy_names(__name__, _MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
