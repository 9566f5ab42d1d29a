"""From a `ProbeConfig` to a probe, on a model or on stored embeddings."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from avex._core.errors import ConfigError, did_you_mean
from avex.configs.probe import ProbeConfig
from avex.models.base_model import ModelBase
from avex.models.compiled import uncompiled
from avex.models.probes.base import Probe
from avex.models.probes.inputs import LayerMix
from avex.models.probes.memory import check_memory, module_bytes
from avex.models.probes.utils.dims import InputDim, mix_for_embeddings, mix_for_model
from avex.models.probes.utils.registry import get_probe_class
from avex.models.utils.factory import pick_device

# Fields that a head may take; what it does not name is none of its business.
_HEAD_FIELDS = (
    "hidden_dims",
    "dropout_rate",
    "activation",
    "lstm_hidden_size",
    "bidirectional",
    "num_heads",
    "attention_dim",
    "num_layers",
    "use_positional_encoding",
    "max_sequence_length",
    "temperature",
    "knn_neighbors",
    "knn_weighting",
)
_BASE_OPTIONS = {"inputs", "num_classes", "base_model", "freeze_backbone"}
_SMALLER = {
    "vector": "Pool over time (input_processing='pooled'), read fewer layers, or lower hidden_dims.",
    "sequence": "Read fewer or narrower layers, lower num_layers, or use an attention_pooling or linear probe.",
}


def build_probe_from_config(
    probe_config: ProbeConfig,
    num_classes: int,
    device: str | torch.device = "cpu",
    base_model: nn.Module | None = None,
    input_dim: InputDim | None = None,
    target_length: int | None = None,
    **kwargs: Any,
) -> Probe:
    """Build a probe on a model (online) or on stored embeddings (offline).

    Args:
        probe_config: What to build.
        num_classes: Number of logits.
        device: Where the probe is to live; a base model moves along.
        base_model: The encoder, for a probe that takes waveforms.
        input_dim: For a probe that takes embeddings: their width D; or the shape of one, (T, D) or (C, F, T);
            or a list with one of these per layer.
        target_length: Samples of the clips to come; needed for `input_processing="flatten"` only, and there only
            if the model's window is not fixed. Wins over the config's.
        **kwargs: Options of the head, such as `hidden_dims`; they win over the config's.

    Returns:
        The probe, in training mode with random weights.

    Raises:
        ConfigError: (a `ValueError`) Neither or both of `base_model` and `input_dim`, settings that contradict
            each other or the model, an option that the head does not have, a device that is not there, or more
            parameters than fit into memory.
        LayerError: A layer that the model does not have.

    Example:
        >>> config = ProbeConfig(probe_type="linear", target_layers=["last_layer"], aggregation="mean")
        >>> build_probe_from_config(config, num_classes=50, input_dim=768)(torch.zeros(2, 768)).shape
        torch.Size([2, 50])
    """
    if (base_model is None) == (input_dim is None):
        raise ConfigError(
            "Give either base_model, for a probe that takes waveforms, or input_dim, for one that takes "
            f"embeddings; got {'neither' if base_model is None else 'both'}."
        )
    cls = get_probe_class(probe_config.probe_type)
    length = target_length or probe_config.target_length
    if base_model is not None:
        base = as_model(base_model)
        inputs = mix_for_model(probe_config, cls.kind, base, length)
        return make_probe(probe_config, inputs, num_classes, device, base, **kwargs)
    if not probe_config.freeze_backbone:
        raise ConfigError(
            "freeze_backbone=False trains the backbone, and there is none. Give base_model=..., or set "
            "freeze_backbone=True."
        )
    assert input_dim is not None
    inputs = mix_for_embeddings(probe_config, cls.kind, input_dim)
    return make_probe(probe_config, inputs, num_classes, device, None, **kwargs)


def build_probe_from_config_online(
    probe_config: ProbeConfig,
    base_model: nn.Module,
    num_classes: int,
    device: str | torch.device = "cpu",
    target_length: int | None = None,
    **kwargs: Any,
) -> Probe:
    """`build_probe_from_config` with a base model (the older name)."""
    return build_probe_from_config(
        probe_config, num_classes, device, base_model=base_model, target_length=target_length, **kwargs
    )


def build_probe_from_config_offline(
    probe_config: ProbeConfig,
    input_dim: InputDim,
    num_classes: int,
    device: str | torch.device = "cpu",
    target_length: int | None = None,
    **kwargs: Any,
) -> Probe:
    """`build_probe_from_config` for stored embeddings (the older name)."""
    return build_probe_from_config(
        probe_config, num_classes, device, input_dim=input_dim, target_length=target_length, **kwargs
    )


def make_probe(
    config: ProbeConfig,
    inputs: LayerMix,
    num_classes: int,
    device: str | torch.device,
    base: ModelBase | None = None,
    **options: Any,
) -> Probe:
    """Build a probe whose input is known already.

    Raises:
        ConfigError: See `build_probe_from_config`.
    """
    cls = get_probe_class(config.probe_type)
    given, options = options, head_options(cls, config, options)
    device = pick_device(device)

    def build() -> Probe:
        return cls(inputs, num_classes, **options)

    check_memory(
        module_bytes(build),
        device,
        f"A '{config.probe_type}' probe of {num_classes} classes on {inputs.dim} numbers",
        _SMALLER[cls.kind],
    )
    probe = cls(
        inputs,
        num_classes,
        base_model=base,
        freeze_backbone=config.freeze_backbone or base is None,
        **options,
    )
    probe.config, probe.options = config, given
    return probe.to(device)


def head_options(cls: type[Probe], config: ProbeConfig, given: dict[str, Any]) -> dict[str, Any]:
    """Options of a head's constructor: the config's fields that it names, and what was given besides.

    Raises:
        ConfigError: Something was given that the head does not name.
    """
    parameters = inspect.signature(cls.__init__).parameters
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD) and name != "self"
    ]
    taken = [name for name in names if name not in _BASE_OPTIONS]
    stated = {name: getattr(config, name) for name in _HEAD_FIELDS if name in taken}
    extra = {**(config.extra_config or {}), **given}
    for name in extra:
        if name not in taken:
            raise ConfigError(
                f"A '{config.probe_type}' probe has no option '{name}'.{did_you_mean(name, taken)} It takes: "
                f"{', '.join(taken) or 'none'}."
            )
    return {**{name: value for name, value in stated.items() if value is not None}, **extra}


def as_model(module: nn.Module) -> ModelBase:
    """The `ModelBase` that a probe can read layers of, also inside a wrapper of `torch.compile`.

    Raises:
        ConfigError: It is none.
    """
    model = uncompiled(module)
    if not isinstance(model, ModelBase):
        raise ConfigError(
            f"base_model must be a ModelBase, as load_model gives it, not {type(model).__name__}. Derive the class "
            "from avex.models.base_model.ModelBase, or pass input_dim=... and embeddings."
        )
    return model
