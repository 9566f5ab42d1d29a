"""Datasets of the Hugging Face package `datasets` as clips. Duck-typed: the package is not imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avex._core.errors import ConfigError
from avex.data.clips import Clip, check_unique
from avex.data.columns import cell_labels, cell_text

_LABELS = ("labels", "label")


def clips_from_hf(
    dataset: Any,
    *,
    audio_column: str = "audio",
    label_column: str | None = None,
    audio_folder: str | Path | None = None,
    sample_rate: int | None = None,
    split: str | None = None,
) -> list[Clip]:
    """Clips of a `datasets.Dataset`, or of any sequence of rows.

    A row's audio is a path, a mapping with `path`, `bytes`, or `array` and `sampling_rate`, or the samples. Numbers
    that the dataset's features name (`ClassLabel`) become names, -1 becomes no label. Pass
    `dataset.cast_column("audio", Audio(decode=False))` so that nothing is decoded.

    Args:
        dataset: The dataset; `features` is used if it has them.
        audio_column: Column of the audio.
        label_column: Column of the labels; None takes `labels` or `label` if there is one.
        audio_folder: Where audio that is in no file is written (as it is, or as 32-bit WAV).
        sample_rate: Rate of audio that is given as samples only, Hz.
        split: Split of the clips; None leaves it open.

    Raises:
        ConfigError: A row has no audio, or audio that is in no file and there is no `audio_folder`.

    Example:
        >>> clips_from_hf([{"audio": {"path": "a.wav"}, "label": "frog"}])[0].labels
        ('frog',)
    """
    features = getattr(dataset, "features", None) or {}
    clips = []
    for number, row in enumerate(dataset):
        labels = label_column or next((name for name in _LABELS if name in row), None)
        if audio_column not in row or (labels is not None and labels not in row):
            raise ConfigError(
                f"Row {number} has no column '{audio_column if audio_column not in row else labels}'. Its columns: "
                f"{', '.join(row)}."
            )
        path = _path(_with_rate(row[audio_column], sample_rate), number, audio_folder)
        taken = {audio_column, labels}
        clips.append(
            Clip(
                path,
                labels=() if labels is None else _names(row[labels], features.get(labels)),
                split=split,
                id=f"{number}:{path.name}",
                extra={key: value for key, value in row.items() if key not in taken},
            )
        )
    check_unique(clips, "The dataset")
    return clips


def _names(value: Any, feature: Any) -> tuple[str, ...]:
    names = getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)
    if names is None:
        return cell_labels(value)
    numbers = value if isinstance(value, (list, tuple)) else [value]
    # -1 is how the package writes that a label is not known.
    known = [int(item) for item in numbers if item is not None and int(item) >= 0]
    return tuple(dict.fromkeys(str(names[number]) for number in known))


def _with_rate(audio: Any, sample_rate: int | None) -> Any:
    if sample_rate is None or not isinstance(audio, (list, tuple, np.ndarray)):
        return audio
    return {"array": audio, "sampling_rate": sample_rate}


def _path(audio: Any, number: int, folder: str | Path | None) -> Path:
    if isinstance(audio, (str, Path)):
        return Path(audio)
    if not isinstance(audio, Mapping):
        raise ConfigError(
            f"Row {number}: the audio is a {type(audio).__name__}. Expected a path, a mapping with path, bytes or "
            "array (cast the column with Audio(decode=False)), or samples and sample_rate."
        )
    name = cell_text(audio.get("path"))
    if name and Path(name).is_file():
        return Path(name)
    if audio.get("bytes") is None and audio.get("array") is None:
        if name:
            return Path(name)
        raise ConfigError(f"Row {number}: the audio has neither path nor bytes nor array.")
    if folder is None:
        raise ConfigError(
            f"Row {number}: the audio is in no file of this machine. Give audio_folder, where it can be written to."
        )
    return _write(audio, Path(folder), number, Path(name).name)


def _write(audio: Mapping[str, Any], folder: Path, number: int, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if audio.get("bytes") is not None:
        target = folder / f"{number:08d}_{name or 'audio'}"
        target.write_bytes(audio["bytes"])
        return target
    import soundfile

    target = folder / f"{number:08d}_{Path(name).stem or 'audio'}.wav"
    samples = np.asarray(audio["array"], np.float32)
    soundfile.write(target, samples, int(audio["sampling_rate"]), subtype="FLOAT")
    return target
