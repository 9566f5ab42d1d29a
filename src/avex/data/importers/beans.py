"""BEANS (Hagiwara et al. 2022, arXiv:2210.12300): folders as its download script makes them, or JSON lines.

The folder is the one that holds `data/`. A split is `dogs_train`, `hiceas_test` and so on. Detection sets list
recordings with events; they become windows of the lengths that the benchmark states. A folder that holds
`dogs_train.jsonl` instead (as the package alp-data distributes the sets) is read as such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.configs.data import DatasetConfig
from avex.data.clips import Clip
from avex.data.columns import cell_text
from avex.data.manifest import clips_from_rows
from avex.data.rows import Row, read_rows
from avex.data.windows import LabelledEvent, windows_from_events

_PARTS = {"train": "train", "validation": "valid", "val": "valid", "valid": "valid", "test": "test"}


@dataclass(frozen=True)
class _Set:
    """Tables of a set; for detection also the window and its hop in seconds, and what other labels count as."""

    table: str
    window_s: float = 0.0
    hop_s: float = 0.0
    labels: frozenset[str] = frozenset()
    unknown: str = ""


_ENABIRDS = frozenset(
    "AMCR AMGO AMRE AMRO BAWW BCCH BGGN BHCO BHVI BLJA BTNW BWWA CARW COYE EATO HETH HOWA "  # noqa: SIM905
    "KEWA LOWA NOCA NOFL OVEN RBGR RBWO RCKI REVI SCTA SWTH TUTI WBNU WITU WOTH YBCU OTHR".split()
)

# Places, windows and labels as in `datasets.yml` of https://github.com/earthspecies/beans.
SETS = {
    "esc50": _Set("data/esc50/meta/esc50.{part}.csv"),
    "watkins": _Set("data/watkins/annotations.{part}.csv"),
    "egyptian_fruit_bats": _Set("data/egyptian_fruit_bats/annotations.{part}.csv"),
    "cbi": _Set("data/cbi/annotations.{part}.csv"),
    "dogs": _Set("data/dogs/annotations.{part}.csv"),
    "humbugdb": _Set("data/HumBugDB/data/metadata/{part}.csv"),
    "speech_commands": _Set("data/speech_commands/{part}.csv"),
    "dcase": _Set("data/dcase/{part}.jsonl", 2, 1),
    "enabirds": _Set("data/enabirds/{part}.jsonl", 2, 1, _ENABIRDS, "OTHR"),
    "hiceas": _Set("data/hiceas/{part}.jsonl", 10, 5),
    "rfcx": _Set("data/rfcx/{part}.jsonl", 10, 5),
    "hainan_gibbons": _Set("data/hainan_gibbons/{part}.jsonl", 4, 2, frozenset("123"), "1"),
}


def import_beans(root: Path, config: DatasetConfig) -> list[Clip]:
    """Clips of a BEANS set.

    Raises:
        UnknownNameError: The split is none of BEANS.
        ConfigError: The files are missing or are not laid out so.
    """
    name, part = _split(config.split)
    prepared = root / f"{config.split}.jsonl"
    if prepared.is_file():
        return _prepared(prepared, root, config)
    described = SETS[name]
    table = root / described.table.format(part=part)
    if not table.is_file():
        raise ConfigError(
            f"BEANS has no '{table.relative_to(root)}' in '{root}'. Expected the folder in which its "
            "scripts/download_data.sh was run (it holds 'data/'), or one with "
            f"'{prepared.name}'."
        )
    if described.window_s:
        return _detection(table, root, described)
    return clips_from_rows(
        read_rows(table),
        root,
        f"'{table}'",
        label_column=config.label_column or "label",
        path_column=config.audio_path_col,
    )


def _split(split: str) -> tuple[str, str]:
    name, _, part = split.rpartition("_")
    if name not in SETS or part not in _PARTS:
        known = [f"{known}_{part}" for known in SETS for part in ("train", "validation", "test")]
        raise UnknownNameError(
            f"BEANS has no split '{split}'.{did_you_mean(split, known)} Expected for instance 'dogs_train'."
        )
    return name, _PARTS[part]


def _prepared(table: Path, root: Path, config: DatasetConfig) -> list[Clip]:
    rows = read_rows(table)
    labels = "labels_as_list" if "labels_as_list" in rows[0].values else "label"
    return clips_from_rows(
        rows,
        root,
        f"'{table}'",
        label_column=config.label_column or labels,
        path_column=config.audio_path_col or "local_path",
    )


def _detection(table: Path, root: Path, described: _Set) -> list[Clip]:
    events: list[LabelledEvent] = []
    durations: dict[str, float] = {}
    for row in read_rows(table):
        name, duration, found = _recording(row, described)
        if duration <= described.window_s - described.hop_s:
            continue  # the rest of a long recording: BEANS counts no window in it
        durations[name] = duration
        events += found
    clips = windows_from_events(
        events, durations, window_s=described.window_s, hop_s=described.hop_s, root=root
    )
    return [replace(clip, id=_relative_id(clip, root)) for clip in clips]


def _recording(row: Row, described: _Set) -> tuple[str, float, list[LabelledEvent]]:
    try:
        name, duration = str(row.values["path"]), float(row.values["length"])
        found: list[Any] = list(row.values["annotations"])
        events = [
            LabelledEvent(name, float(item["st"]), float(item["ed"]), _label(item["label"], described))
            for item in found
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{row.place}: not a recording of BEANS ({error!r}). Expected path, length, and annotations with st, "
            "ed and label."
        ) from error
    # Some annotations lie after the end of their recording or last for no time; BEANS has no window for them.
    kept = [event for event in events if event.start_s <= duration and event.start_s < event.end_s]
    return name, duration, kept


def _label(value: Any, described: _Set) -> str:
    label = cell_text(value)
    return label if not described.labels or label in described.labels else described.unknown


def _relative_id(clip: Clip, root: Path) -> str:
    return clip.id.removeprefix(f"{root.as_posix()}/")
