"""Building models from specs: which arguments a class takes, and that none is lost on the way."""

from __future__ import annotations

import inspect
import logging
from typing import Any

import torch
from torch import nn

from avex._core.errors import ConfigError, UnknownModelError, did_you_mean
from avex.configs import AudioConfig, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.runtime.memory import keep_freed_memory
from avex.models.utils.registry import get_model_class, list_model_classes, resolve

logger = logging.getLogger(__name__)

_told_about_device: set[str] = set()


def pick_device(requested: str | torch.device | None, default: str = "cpu") -> torch.device:
    """The device to use: what was asked for, else the card's default, else the CPU where that is missing.

    Raises:
        ConfigError: A device was asked for that this machine does not have.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    try:
        device = torch.device(requested or default)
    except RuntimeError as error:
        raise ConfigError(f"Unknown device '{requested}'. Choose cpu, cuda, cuda:N or mps.") from error
    if _exists(device):
        return device
    if requested is not None:
        raise ConfigError(
            f"Device '{device}' was asked for, but torch finds none (torch {torch.__version__}). "
            "Use device='cpu', or install a build of torch for that device."
        )
    if device.type not in _told_about_device:
        _told_about_device.add(device.type)
        logger.warning("No %s device here: running on the CPU.", device.type)
    return torch.device("cpu")


def _exists(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    backend: Any = getattr(torch, device.type, None)  # `torch.cuda`; some types, such as `meta`, have none
    return backend is not None and backend.is_available() and (device.index or 0) < backend.device_count()


def build_model(model_name: str, device: str | torch.device | None = None, **kwargs: Any) -> nn.Module:
    """Build a registered model, family or class without loading weights.

    Args:
        model_name: A card's name, a family, or a registered class.
        device: Where to put it; None takes the card's default.
        **kwargs: Arguments of the class (`num_classes`, `return_features_only`, family options).

    Raises:
        UnknownModelError: No such model.
        FamilyNotAvailableError: The family is not implemented in this release.
        ConfigError: The class does not take an argument that was given.

    Example:
        >>> build_model("my_custom_model", device="cpu", num_classes=10)      # doctest: +SKIP
    """
    return build_model_from_spec(resolve(model_name).model_spec, device, **kwargs)


def build_model_from_spec(
    model_spec: ModelSpec, device: str | torch.device | None = None, **kwargs: Any
) -> nn.Module:
    """Build the class that a spec names, without loading weights. See `build_model`."""
    cls = get_model_class(model_spec.name)
    if cls is None:
        known = list_model_classes()
        raise UnknownModelError(
            f"No model class is called '{model_spec.name}'.{did_you_mean(model_spec.name, known)} "
            f"Known classes: {', '.join(known)}. Register your own with @register_model_class "
            "(on the command line: --plugin my_module)."
        )
    return build_class(cls, model_spec, device, **kwargs)


def build_class(
    cls: type[nn.Module], model_spec: ModelSpec, device: str | torch.device | None = None, **kwargs: Any
) -> nn.Module:
    """Build a class with the options of a spec, without loading weights.

    Raises:
        ConfigError: The class does not take an option that is set, or needs one that is not.
    """
    target = pick_device(device, model_spec.device)
    if target.type != "cuda":
        keep_freed_memory()
    options = {**model_spec.family_options(), **(model_spec.extra_config or {}), **kwargs}
    if "fairseq_weights_path" not in kwargs and not accepts(cls, "fairseq_weights_path"):
        options.pop("fairseq_weights_path", None)  # a checkpoint, which is loaded elsewhere
    arguments = constructor_arguments(cls, target, model_spec.audio_config, options)
    model = cls(**arguments)
    if isinstance(model, ModelBase) and model.audio_config is None:
        model.audio_config = model_spec.audio_config  # of a class that passes on its device only
    return model.to(target)


def accepts(cls: type, name: str) -> bool:
    """Whether a class's constructor names a parameter (taking `**kwargs` does not count)."""
    return name in inspect.signature(cls).parameters


def constructor_arguments(
    cls: type, device: torch.device, audio_config: AudioConfig | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Arguments for a class: what it names or, with `**kwargs`, everything.

    Raises:
        ConfigError: An option was set that the class does not take, or one is missing that it needs.
    """
    parameters = inspect.signature(cls).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    refused = [name for name in options if name not in parameters and not takes_any]
    if refused:
        raise ConfigError(
            f"Model class '{cls.__name__}' takes no option {', '.join(map(repr, refused))}. "
            f"It takes: {', '.join(parameters)}."
        )
    arguments = dict(options)
    if "device" in parameters or takes_any:
        arguments["device"] = str(device)
    if audio_config is not None and ("audio_config" in parameters or takes_any):
        arguments["audio_config"] = audio_config
    missing = [
        p.name
        for p in parameters.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in arguments
    ]
    if missing:
        raise ConfigError(
            f"Model class '{cls.__name__}' needs {', '.join(map(repr, missing))}. "
            "State num_classes in the card, or give the argument to load_model / build_model."
        )
    return arguments
