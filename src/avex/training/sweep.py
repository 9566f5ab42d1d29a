"""Sweeps: many trainings with settings that Optuna chooses, in a study that can be stopped and resumed."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from avex._core.errors import ConfigError, TrainingDivergedError
from avex._core.optional import require
from avex.configs.base import validated
from avex.configs.sweep import Choices, Dimension, SweepConfig
from avex.configs.training import RunConfig
from avex.configs.yaml_files import apply_patches
from avex.io import write_text
from avex.training.checkpoint import monitored
from avex.training.environment import plain_config
from avex.training.metrics import better_is_more

logger = logging.getLogger(__name__)

DATABASE, BEST, BEST_RUN = "study.db", "best.json", "best.yml"
_DIVERGED = "diverged"


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        folder: Folder of the study: its database, its best settings (`best.json`, and `best.yml` to train with),
            and a folder for each training.
        metric: What was judged by.
        best: Best value; None if no training came to an end.
        settings: Settings that gave it, by their places.
        finished: Trainings that came to an end.
        failed: Trainings that diverged.
    """

    folder: Path
    metric: str
    best: float | None
    settings: dict[str, Any]
    finished: int
    failed: int


def sweep(config: SweepConfig, objective: Callable[[RunConfig], float | None] | None = None) -> SweepResult:
    """Search for good settings; what an earlier call of the same study finished counts.

    Args:
        config: What to vary, and how often.
        objective: Value of a run; None trains it and takes the best value of the metric.

    Raises:
        ConfigError: A setting does not fit the run, or the study was made with another search space or metric.
        MissingExtraError: Optuna is not installed.

    Example:
        >>> sweep(SweepConfig.from_sources("sweep.yml")).settings        # doctest: +SKIP
        {'training_params.lr': 0.00042}
    """
    optuna = require("optuna", "train", "A sweep")
    base: RunConfig = validated(RunConfig, config.run_config, "run_config")
    metric = config.metric or monitored(base)
    folder = Path(base.output_dir).expanduser() / config.study
    folder.mkdir(parents=True, exist_ok=True)
    maximize = _is_maximized(config, base, metric)
    study = _study(optuna, config, metric, maximize, folder)
    value_of = objective or _best_value
    states = optuna.trial.TrialState

    def run(trial: Any) -> float:
        run_config = settings_of(config, trial, metric, maximize, folder)
        try:
            value = value_of(run_config)
        except TrainingDivergedError:
            trial.set_user_attr(_DIVERGED, True)
            raise
        if value is None:
            raise ConfigError(f"The run measured no '{metric}'. Give val_datasets, or another metric.")
        return value

    # A training that was interrupted says nothing about its settings and does not count.
    done = sum(trial.state == states.COMPLETE or _DIVERGED in trial.user_attrs for trial in study.trials)
    study.optimize(run, n_trials=max(0, config.trials - done), catch=(TrainingDivergedError,))
    return _result(study, states, metric, folder, base)


def settings_of(config: SweepConfig, trial: Any, metric: str, maximize: bool, folder: Path) -> RunConfig:
    """The run of a trial: the base with the trial's values, judged by the metric of the sweep.

    Raises:
        ConfigError: A place that the run does not have, or a value that it refuses.
    """
    values = {place: _suggest(trial, place, dimension) for place, dimension in config.search_space.items()}
    patches = [f"{place}={json.dumps(value)}" for place, value in values.items()]
    data = apply_patches(config.run_config, patches)
    data |= {"output_dir": str(folder), "run_name": f"trial-{trial.number:04d}"}
    judged_by = {"monitor": metric, "mode": "max" if maximize else "min"}
    data["checkpoints"] = {**data.get("checkpoints", {}), **judged_by}
    run: RunConfig = validated(RunConfig, data, f"trial {trial.number}")
    return run


def _suggest(trial: Any, place: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choices):
        # Lists and mappings are no choices of Optuna's; their text is.
        return json.loads(trial.suggest_categorical(place, [json.dumps(value) for value in dimension.values]))
    suggest = trial.suggest_float if dimension.type == "float" else trial.suggest_int
    return suggest(place, dimension.low, dimension.high, log=dimension.log)


def _is_maximized(config: SweepConfig, base: RunConfig, metric: str) -> bool:
    """As the sweep says, else as the run says of the same metric, else by the metric's name."""
    if config.direction is not None:
        return config.direction == "maximize"
    mode = base.checkpoints.mode if metric == monitored(base) else None
    return better_is_more(metric) if mode is None else mode == "max"


def _study(optuna: Any, config: SweepConfig, metric: str, maximize: bool, folder: Path) -> Any:
    direction = "maximize" if maximize else "minimize"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            study_name=config.study,
            storage=f"sqlite:///{folder / DATABASE}",
            direction=direction,
            # Other numbers after a restart, else the first trials would come again.
            sampler=optuna.samplers.TPESampler(seed=config.seed + _trials_in(folder)),
            load_if_exists=True,
        )
    except sqlite3.Error as error:
        raise ConfigError(f"The study in '{folder / DATABASE}' cannot be opened: {error}") from error
    space = json.dumps({k: v.model_dump() for k, v in sorted(config.search_space.items())}, sort_keys=True)
    for name, what, value in (
        ("space", "search space", space),
        ("judged", "metric or direction", f"{direction} {metric}"),
    ):
        if study.user_attrs.get(name, value) != value:
            raise ConfigError(f"The study in '{folder}' has another {what}. Choose another study name.")
        study.set_user_attr(name, value)
    return study


def _trials_in(folder: Path) -> int:
    return len(list(folder.glob("trial-*")))


def _best_value(config: RunConfig) -> float | None:
    from avex.training.run import train

    return train(config, resume=True).best


def _result(study: Any, states: Any, metric: str, folder: Path, base: RunConfig) -> SweepResult:
    complete = [trial for trial in study.trials if trial.state == states.COMPLETE]
    failed = sum(_DIVERGED in trial.user_attrs for trial in study.trials)
    if not complete:
        return SweepResult(folder, metric, None, {}, 0, failed)
    best = study.best_trial
    settings = {
        place: json.loads(value) if isinstance(value, str) else value for place, value in best.params.items()
    }
    write_text(
        folder / BEST,
        json.dumps(
            {"metric": metric, "value": best.value, "trial": best.number, "settings": settings}, indent=2
        )
        + "\n",
    )
    write_text(folder / BEST_RUN, _best_run(settings, metric, best.number, base))
    return SweepResult(folder, metric, float(best.value), settings, len(complete), failed)


def _best_run(settings: dict[str, Any], metric: str, trial: int, base: RunConfig) -> str:
    """The configuration of the best trial as a file: the base with its settings."""
    patches = [f"{place}={json.dumps(value)}" for place, value in settings.items()]
    run = validated(RunConfig, apply_patches(plain_config(base), patches), f"trial {trial}")
    return f"# The best of a sweep by {metric}: trial {trial}\n" + yaml.safe_dump(
        plain_config(run), sort_keys=False, allow_unicode=True
    )
