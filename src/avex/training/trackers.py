"""Where metrics go: always a file in the run's folder, and MLflow or Weights & Biases if wanted."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import socket
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from avex._core.errors import ConfigError
from avex._core.optional import require
from avex.configs.training import RunConfig
from avex.io import write_text

METRICS, TABLE = "metrics.jsonl", "metrics.csv"
_SECONDS_TO_CONNECT = 3.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


class FileLogger(Logger):
    """Writes every metric to `metrics.jsonl`, a line per step, and all of them to `metrics.csv` at the end.

    A training that goes on from a checkpoint first removes the lines of steps after it, so that the file reads as
    if there had been no stop.

    Args:
        folder: Folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.path = folder / METRICS

    @property
    def name(self) -> str:
        """`files`."""
        return "files"

    @property
    def version(self) -> str:
        """Name of the run."""
        return self.folder.name

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration is a file of its own."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a line."""
        line = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Remove what was written after a step, and a line that a killed process left half written."""
        if self.path.is_file():
            kept = [row for row in read_metrics(self.path) if row["step"] < step or _is_validation(row, step)]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table."""
        if self.path.is_file():
            write_text(self.folder / TABLE, _table(read_metrics(self.path)))


def _is_validation(row: Mapping[str, Any], step: int) -> bool:
    # The line of training step `step` is written before the step is made, that of a validation after it.
    return row["step"] == step and not any(name.startswith("train/") for name in row)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Lines of a `metrics.jsonl`; a last line that is not whole is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if _missing(v) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def build_loggers(config: RunConfig, folder: Path) -> list[Logger]:
    """The loggers of a run; the file is the first.

    Raises:
        MissingExtraError: The package of a tracker is not installed.
    """
    loggers: list[Logger] = [FileLogger(folder)]
    if config.logging == "mlflow":
        require("mlflow", "train", "Logging to MLflow")
        from lightning.pytorch.loggers import MLFlowLogger

        loggers.append(
            MLFlowLogger(
                experiment_name=Path(config.output_dir).name or "avex",
                run_name=folder.name,
                tracking_uri=config.logging_uri,
            )
        )
    if config.logging == "wandb":
        require("wandb", "train", "Logging to Weights & Biases")
        from lightning.pytorch.loggers import WandbLogger

        loggers.append(WandbLogger(name=folder.name, project=config.wandb_project, save_dir=folder))
    for logger in loggers[1:]:
        logger.log_hyperparams(config.model_dump(mode="json"))
    return loggers


def check_tracker(config: RunConfig) -> None:
    """Check that a tracking server answers, before a training waits for it in vain.

    Raises:
        ConfigError: It does not.
    """
    address = urlparse(config.logging_uri or "")
    if config.logging != "mlflow":
        return
    if address.scheme in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise ConfigError(
            f"logging_uri is '{config.logging_uri}', but MLflow no longer keeps runs in folders. Give a file, "
            "sqlite:///runs/mlflow.db, or a server."
        )
    if address.scheme not in _DEFAULT_PORTS:
        return
    port = address.port or _DEFAULT_PORTS[address.scheme]
    try:
        with socket.create_connection((address.hostname or "", port), timeout=_SECONDS_TO_CONNECT):
            return
    except OSError as error:
        raise ConfigError(
            f"No MLflow server answers at '{config.logging_uri}' ({error}). Start one, set logging_uri to a file "
            "(sqlite:///runs/mlflow.db), or set logging: none; metrics are always written to the run's folder."
        ) from error
