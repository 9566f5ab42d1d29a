"""Writing, checking and listing JSON templates. No torch, and nothing of a template runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.models.template.cards import read_template
from deep_audio_embedding import TemplateError, TemplateFormatError, describe_template, list_templates

_NOTES = [
    "JSON has no comments: this key is the place for them. avex template validate FILE shows every fault.",
    "in_shape: 2 means that x is (clips, samples), 3 that it is (clips, channels, samples).",
    "window_seconds: leave it out if the model takes any length.",
]
_COMMANDS = {
    "install_cmds": ["pip install torch"],
    "import_cmds": ["import torch"],
    "model_init": ["model = torch.nn.AvgPool1d(400, 160)"],
    "pre_proc": ["x = x.abs()"],
    "embed_fwd": ["with torch.inference_mode():", "    y = model(x[:, None]).transpose(1, 2)"],
}
_DECLARED = {
    "requires": ["torch"],
    "entry": "torch.nn:Linear",
    "entry_kwargs": {"in_features": 16000, "out_features": 8},
    "pre_processing": ["peak_normalize", "pad_to:1", "crop_to:1"],
}


def skeleton(sample_rate: int = 16000, declarative: bool = False) -> dict[str, Any]:
    """A small template that is valid and runs, to be edited.

    Args:
        sample_rate: Rate in Hz of the audio that the model takes.
        declarative: A callable and named steps in place of commands.

    Example:
        >>> skeleton()["in_shape"]
        2
    """
    own: dict[str, Any] = dict(_DECLARED) if declarative else dict(_COMMANDS)
    if declarative:
        own["entry_kwargs"] = {"in_features": sample_rate, "out_features": 8}
    return {
        "notes": _NOTES,
        "authors": ["Who made the model"],
        "references": ["https://doi.org/..."],
        "downstream_tasks": ["audio_representation"],
        "license": "Licence of the weights",
        "tested": "format only",
        **{key: value for key, value in own.items() if key in ("requires", "install_cmds", "import_cmds")},
        "sample_rate": sample_rate,
        "in_shape": 2,
        "window_seconds": 1,
        **{
            key: value for key, value in own.items() if key not in ("requires", "install_cmds", "import_cmds")
        },
    }


def write_skeleton(path: Path, sample_rate: int = 16000, declarative: bool = False) -> None:
    """Write a `skeleton` to a new file.

    Raises:
        ConfigError: The file exists, its folder does not, or its name does not end in `.json`.
    """
    if path.suffix.lower() != ".json":
        raise ConfigError(f"A template is a JSON file: '{path}' should end in .json.")
    text = json.dumps(skeleton(sample_rate, declarative), indent=2) + "\n"
    try:
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise ConfigError(f"'{path}' exists already and was left as it is. Choose another name.") from error
    except FileNotFoundError as error:
        raise ConfigError(f"The folder '{path.parent}' does not exist. Create it first.") from error


def template_faults(path: str | Path) -> list[str]:
    """Everything that is wrong with a template, one line each; empty if nothing is.

    Raises:
        ConfigError: There is no such file.
    """
    try:
        describe_template(path)
    except TemplateFormatError as error:
        return [str(fault) for fault in error.faults]
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    except TemplateError as error:  # Python that does not compile
        return [str(error)]
    return []


def template_table() -> list[dict[str, Any]]:
    """Facts about every packaged template.

    Returns:
        One `{name, sample_rate, in_shape, tested, license, tasks}` for each.

    Example:
        >>> next(row["sample_rate"] for row in template_table() if row["name"] == "speech/hubert.json")
        16000
    """
    rows = []
    for name in list_templates():
        template = read_template(name)
        rows.append(
            {
                "name": name,
                "sample_rate": template["sample_rate"],
                "in_shape": template["in_shape"],
                "tested": template.get("tested", ""),
                "license": template.get("license", ""),
                "tasks": list(template["downstream_tasks"]),
            }
        )
    return rows
