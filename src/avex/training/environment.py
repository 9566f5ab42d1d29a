"""What a result depends on beside its configuration: versions, machine, and the state of the code."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from avex._core.version import __version__
from avex.configs.training import RunConfig
from avex.data.encoder import LabelEncoder
from avex.io import write_text

_PACKAGES = ("numpy", "lightning", "soundfile", "soxr", "safetensors", "pyarrow")


def describe_environment() -> dict[str, Any]:
    """Versions, machine and git state, as plain data."""
    return {
        "avex": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        # torch alone knows which build it is (`+cu130`).
        "packages": {"torch": torch.__version__, **{name: _version(name) for name in _PACKAGES}},
        "threads": torch.get_num_threads(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "git": git_state(),
    }


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """Commit of the working directory and whether it has changes; None if it is not under git."""
    commit = _git(["rev-parse", "HEAD"], folder)
    if commit is None:
        return None
    changes = _git(["status", "--porcelain", "--untracked-files=no"], folder)
    return {"commit": commit, "changed": sorted((changes or "").splitlines())}


def plain_config(config: RunConfig) -> dict[str, Any]:
    """What a configuration file of this run holds."""
    return config.model_dump(mode="json", exclude_unset=True)


def save_run_facts(folder: Path, config: RunConfig, encoder: LabelEncoder | None) -> None:
    """Write `config.yml`, `environment.json` and, for classifiers, `label_map.json`."""
    write_text(
        folder / "config.yml", yaml.safe_dump(plain_config(config), sort_keys=False, allow_unicode=True)
    )
    write_text(folder / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")
    if encoder is not None:
        write_text(
            folder / "label_map.json", json.dumps(encoder.label_to_index, indent=2, ensure_ascii=False) + "\n"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(arguments: list[str], folder: Path | None) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
