"""Selection tables: the formats, how their files are named, and writing one per recording or one for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex._core.registry import load_attribute
from avex.detection.formats.naming import table_stem
from avex.detection.records import Detection, RecordingDetections

Recordings = Iterable[RecordingDetections] | Callable[[], Iterable[RecordingDetections]]
Options = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Format:
    """A table format; its module is imported on first use.

    Attributes:
        name: Name in options and configurations.
        suffix: What a file name ends in, after `<recording>.<model>`.
        module: Where `write` and `read` are.
        combined: Whether one table can hold several recordings.
        keeps_run: Whether the table can carry the settings of the run.
    """

    name: str
    suffix: str
    module: str
    combined: bool = True
    keeps_run: bool = False

    def write(self, target: object, recordings: Iterable[RecordingDetections], **options: object) -> None:
        """Write a table; see the `write` of the format's module."""
        cast(Any, load_attribute(f"{self.module}:write"))(target, recordings, **options)

    def read(self, path: str | os.PathLike[str], **options: object) -> list[Detection]:
        """Read a table; see the `read` of the format's module."""
        return cast(list[Detection], cast(Any, load_attribute(f"{self.module}:read"))(path, **options))


_MODULES = "avex.detection.formats"

FORMATS: dict[str, Format] = {
    table.name: table
    for table in (
        Format("raven", ".selection.table.txt", f"{_MODULES}.raven"),
        Format("csv", ".results.csv", f"{_MODULES}.birdnet_csv"),
        Format("audacity", ".results.txt", f"{_MODULES}.audacity", combined=False),
        Format("kaleidoscope", ".results.kaleidoscope.csv", f"{_MODULES}.kaleidoscope"),
        Format("parquet", ".results.parquet", f"{_MODULES}.parquet", keeps_run=True),
        Format("json", ".results.json", f"{_MODULES}.json", keeps_run=True),
    )
}


def get_format(fmt: str | Format) -> Format:
    """Return a format by name.

    Raises:
        UnknownNameError: There is none of this name.

    Example:
        >>> get_format("raven").suffix
        '.selection.table.txt'
    """
    if isinstance(fmt, Format):
        return fmt
    try:
        return FORMATS[fmt]
    except KeyError:
        raise UnknownNameError(
            f"Unknown table format '{fmt}'.{did_you_mean(fmt, FORMATS)} Known: {', '.join(FORMATS)}."
        ) from None


def table_name(recording_stem: str, model_name: str, fmt: str | Format) -> str:
    """Return the file name of a table.

    Args:
        recording_stem: Name of the recording without its extension, with folders if they should be kept.
        model_name: Name of the card; `birdnet`, with or without a version, is written `BirdNET`.
        fmt: Format or its name.

    Raises:
        ConfigError: A name is empty or leads out of the output folder.
        UnknownNameError: There is no such format.

    Example:
        >>> table_name("XC123", "birdnet", "raven")
        'XC123.BirdNET.selection.table.txt'
    """
    return table_stem(recording_stem, model_name) + get_format(fmt).suffix


def write_recording_tables(
    rec: RecordingDetections,
    out_dir: str | os.PathLike[str],
    formats: Sequence[str | Format],
    model_name: str,
    stem: str,
    *,
    run: Mapping[str, object] | None = None,
    options: Options | None = None,
) -> list[Path]:
    """Write the tables of one recording, each of them atomically.

    Args:
        rec: The recording; without detections its tables have a header only.
        out_dir: Output folder, created if needed.
        formats: Which tables.
        model_name: For the file names, see `table_name`.
        stem: For the file names: the recording without extension. Two recordings need two stems.
        run: Settings of the run, for formats that can carry them.
        options: Per format name, further arguments of its `write`, such as `{"audacity": {"frequencies": True}}`.

    Returns:
        The files, in the order of `formats`.

    Raises:
        ConfigError: A name or an option is wrong.
        UnknownNameError: There is no such format.
        OSError: A file cannot be written.
    """
    chosen = _choose(formats, options)
    return _write_all((rec,), Path(out_dir), chosen, (model_name, stem), run, options)


def write_combined(
    recordings: Recordings,
    out_dir: str | os.PathLike[str],
    formats: Sequence[str | Format],
    model_name: str,
    stem: str = "combined",
    *,
    run: Mapping[str, object] | None = None,
    options: Options | None = None,
) -> list[Path]:
    """Write one table per format for many recordings, holding one recording in memory at a time.

    Args:
        recordings: In the order of the file list, those without detections included. Something that can be read
            several times (each format takes a pass): a list, or a function that returns a new stream each time.
        out_dir: Output folder, created if needed.
        formats: Which tables; those for single recordings (audacity) are refused before anything is written.
        model_name: For the file names, see `table_name`.
        stem: For the file names.
        run: Settings of the run, for formats that can carry them.
        options: Per format name, further arguments of its `write`.

    Returns:
        The files, in the order of `formats`.

    Raises:
        ConfigError: A name, option or format is wrong, or `recordings` can be read only once.
        UnknownNameError: There is no such format.
        OSError: A file cannot be written.
    """
    chosen = _choose(formats, options)
    for fmt in chosen:
        if not fmt.combined:
            raise ConfigError(
                f"Format '{fmt.name}' has no form for several recordings. Write one table per recording, or "
                f"choose from: {', '.join(name for name, other in FORMATS.items() if other.combined)}."
            )
    return _write_all(_Passes(recordings), Path(out_dir), chosen, (model_name, stem), run, options)


class _Passes:
    """Recordings that can be read again and again."""

    def __init__(self, recordings: Recordings) -> None:
        if not callable(recordings) and iter(recordings) is recordings:
            raise ConfigError(
                "The recordings of a combined table are read once per format, but a one-way iterator was given. "
                "Pass a list, or a function that returns a new iterator."
            )
        self._recordings = recordings

    def __iter__(self) -> Iterator[RecordingDetections]:
        return iter(self._recordings() if callable(self._recordings) else self._recordings)


def _choose(formats: Sequence[str | Format], options: Options | None) -> list[Format]:
    if isinstance(formats, str):
        raise ConfigError(f"formats is '{formats}'. Expected a list of names; write ['{formats}'].")
    chosen = [get_format(fmt) for fmt in formats]
    unused = [name for name in options or {} if name not in {fmt.name for fmt in chosen}]
    if unused:
        raise ConfigError(
            f"There are options for '{unused[0]}', which is not among the formats to write. "
            f"Expected some of: {', '.join(fmt.name for fmt in chosen)}."
        )
    return chosen


def _write_all(
    recordings: Iterable[RecordingDetections],
    out_dir: Path,
    formats: Sequence[Format],
    names: tuple[str, str],
    run: Mapping[str, object] | None,
    options: Options | None,
) -> list[Path]:
    model_name, stem = names
    paths = [out_dir / table_name(stem, model_name, fmt) for fmt in formats]
    for fmt, path in zip(formats, paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, object] = {"run": run} if fmt.keeps_run else {}
        fmt.write(path, recordings, **arguments, **(options or {}).get(fmt.name, {}))
    return paths
