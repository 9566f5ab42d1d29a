"""Results: one JSON file per experiment, task, mode and settings, written in one step."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avex._core.errors import ConfigError
from avex._core.version import __version__
from avex.io.atomic import atomic_path, write_text
from avex.metrics import Score

SCHEMA = 1
FOLDER = "results"


@dataclass(frozen=True)
class Result:
    """What an experiment gave on a task in one mode.

    Attributes:
        benchmark: Name of the benchmark.
        task: Name of the task.
        task_version: Version of its definition.
        task_digest: sha256 of clips, labels and parts.
        experiment: Name of the experiment.
        mode: `probe`, `retrieval`, ...
        seed: Of everything random.
        model: Card, weights, layers, windows, sample rate, ...
        settings: All that determines the result; its sha256 is the identity of the result.
        main_metric: The one that counts.
        scores: Metric to value, lower and upper end of its interval (None for NaN).
        clips: Clips in each part.
        classes: Number of classes.
        details: Further findings: scores by fold, layer or number of shots, confusion matrix, ...
        seconds: Time by stage.
        environment: Versions and machine.
        finished_utc: When it was written, ISO 8601.
        schema: Of this file.
    """

    benchmark: str
    task: str
    task_version: str
    task_digest: str
    experiment: str
    mode: str
    seed: int
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    main_metric: str
    scores: Mapping[str, tuple[float | None, float | None, float | None]]
    clips: Mapping[str, int]
    classes: int
    details: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    finished_utc: str = ""
    schema: int = SCHEMA

    @property
    def main(self) -> tuple[float | None, float | None, float | None]:
        """The main metric with its interval."""
        return self.scores[self.main_metric]


@dataclass(frozen=True, eq=False)
class Saved:
    """Predictions beside a result, for scoring without running anything.

    Attributes:
        ids: (M) names of the clips.
        groups: (M) what is resampled as one.
        rounds: (M) round that each was tested in.
        targets: (M,) class indices, or (M, C) 0/1.
        probabilities: (M, C).
        classes: C names.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    rounds: tuple[str, ...]
    targets: npt.NDArray[Any]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]


def identity(settings: Mapping[str, Any]) -> str:
    """A sha256 of settings.

    Example:
        >>> identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def result_path(folder: Path, task: str, experiment: str, mode: str, digest: str) -> Path:
    """Where a result is: readable, with the first digits of its identity."""
    return folder / FOLDER / slug(task) / f"{slug(experiment)}--{mode}--{digest[:12]}.json"


def write_result(path: Path, result: Result, saved: Saved | None = None) -> None:
    """Write a result, and its predictions first: where there is a result, they are complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if saved is not None:
        arrays: dict[str, Any] = {name: np.asarray(values) for name, values in asdict(saved).items()}
        with atomic_path(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays)
    write_text(path, json.dumps(_plain(asdict(result)), indent=1, ensure_ascii=False) + "\n")


def read_result(path: Path) -> Result:
    """Read a result.

    Raises:
        ConfigError: The file is damaged, or of another schema.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise ConfigError(
                f"Result '{path}' has schema {data['schema']}; this release reads {SCHEMA}. Evaluate again."
            )
        data["scores"] = {name: tuple(values) for name, values in data["scores"].items()}
        return Result(**{item.name: data[item.name] for item in fields(Result)})
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"'{path}' is not a result of avex evaluate: {error!r}.") from error


def read_predictions(path: Path) -> Saved | None:
    """Predictions of the result at `path`; None if the mode has none."""
    beside = path.with_suffix(".npz")
    if not beside.is_file():
        return None
    with np.load(beside, allow_pickle=False) as arrays:
        texts = {name: tuple(map(str, arrays[name])) for name in ("ids", "groups", "rounds", "classes")}
        return Saved(targets=arrays["targets"], probabilities=arrays["probabilities"], **texts)


def find_results(folder: str | Path) -> Iterator[tuple[Path, Result]]:
    """All results below a folder, in the order of their paths.

    Raises:
        ConfigError: There is no such folder, or a file is damaged.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"There is no folder '{root}'. Give the save_dir of an evaluation.")
    for path in sorted(root.rglob("*.json")):
        if path.parent.parent.name == FOLDER:
            yield path, read_result(path)


def json_scores(scores: Mapping[str, Score]) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Scores as they are written: numbers, None for NaN."""
    return {name: (_number(s.value), _number(s.low), _number(s.high)) for name, s in scores.items()}


def environment(device: str) -> dict[str, Any]:
    """Versions and machine, as far as they matter for numbers and times."""
    import torch

    return {
        "avex": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "platform": f"{sys.platform} {platform.machine()}",
        "processors": os.cpu_count(),
        "device": device,
    }


def slug(name: str) -> str:
    """A name as part of a file name.

    Example:
        >>> slug("BEATs (all) / v2")
        'BEATs_all_v2'
    """
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("_.") or "_"


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """JSON values only: no NumPy numbers, no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, float)):
        return _number(float(value))
    return value.item() if isinstance(value, np.generic) else value
