"""Probe classes by name, and probe configs from YAML files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from avex._core.errors import ConfigError
from avex._core.registry import Registry
from avex.configs.probe import PROBE_ALIASES, ProbeConfig, add_probe_type
from avex.configs.yaml_files import read_yaml
from avex.io import MissingFileError

if TYPE_CHECKING:
    from avex.models.probes.base import Probe

P = TypeVar("P", bound="type[Probe]")

_PROBES = "avex.models.probes"
_PROBE_CLASSES: Registry[type[Probe]] = Registry(
    "probe type",
    {
        "linear": f"{_PROBES}.heads:LinearProbe",
        "mlp": f"{_PROBES}.heads:MLPProbe",
        "lstm": f"{_PROBES}.heads:LSTMProbe",
        "attention": f"{_PROBES}.attention:AttentionProbe",
        "transformer": f"{_PROBES}.attention:TransformerProbe",
        "attention_pooling": f"{_PROBES}.attention:AttentionPoolingProbe",
        "prototype": f"{_PROBES}.prototypes:PrototypeProbe",
        "knn": f"{_PROBES}.prototypes:KNNProbe",
    },
)


def get_probe_class(name: str) -> type[Probe]:
    """The class of a probe type.

    Args:
        name: A type or an alias, as in `ProbeConfig.probe_type`.

    Raises:
        UnknownNameError: (a `ValueError`) No such type; the message suggests one.

    Example:
        >>> get_probe_class("weighted_linear").__name__
        'LinearProbe'
    """
    return _PROBE_CLASSES[PROBE_ALIASES.get(name, name)]


def list_probe_classes() -> list[str]:
    """Names of the probe types.

    Example:
        >>> "attention" in list_probe_classes()
        True
    """
    return list(_PROBE_CLASSES)


def register_probe_class(name: str) -> Callable[[P], P]:
    """Make a class of one's own a probe type, for `ProbeConfig(probe_type=name)`.

    The class derives from `Probe`. Its constructor takes `inputs`, `num_classes` and `**options` for `Probe`, and
    those fields of `ProbeConfig`, and of its `extra_config`, that it names.

    Args:
        name: The type.

    Raises:
        ConfigError: The name stands for a type that comes with avex, or the class is not a `Probe`.

    Example:
        >>> from torch import nn
        >>> from avex.models.probes.base import Probe
        >>> @register_probe_class("cosine")
        ... class CosineProbe(Probe):
        ...     def __init__(self, inputs, num_classes, *, scale=1.0, **options):
        ...         super().__init__(inputs, num_classes, **options)
        ...         self.classifier, self.scale = nn.Linear(inputs.dim, num_classes, bias=False), scale
        ...     def head(self, x, padding_mask):
        ...         return self.scale * self.classifier(nn.functional.normalize(x, dim=-1))
        >>> get_probe_class("cosine").__name__
        'CosineProbe'
    """

    def register(cls: P) -> P:
        from avex.models.probes.base import Probe

        if not (isinstance(cls, type) and issubclass(cls, Probe)):
            raise ConfigError(f"A probe class derives from avex.models.probes.Probe; {cls!r} does not.")
        present = name in _PROBE_CLASSES and _PROBE_CLASSES[name]
        if name in PROBE_ALIASES or (present and present.__module__.startswith(f"{_PROBES}.")):
            raise ConfigError(f"'{name}' is a probe type of avex. Register the class under another name.")
        cls.probe_type = name
        _PROBE_CLASSES.register(name, cls)
        add_probe_type(name, sequence=cls.kind == "sequence")
        return cls

    return register


def load_probe_config(path: str | Path) -> ProbeConfig:
    """Read a probe config from YAML, with its fields at the top level or under `probe_config`.

    Args:
        path: The file.

    Raises:
        MissingFileError: (a `FileNotFoundError`) There is no such file.
        ConfigError: (a `ValueError`) Not YAML, or not a probe config; the message names the fields.

    Example:
        >>> load_probe_config("my_probe.yml").probe_type  # doctest: +SKIP
        'linear'
    """
    if not Path(path).exists():
        raise MissingFileError(f"Probe config '{path}' does not exist.")
    data = read_yaml(path)
    fields = data.get("probe_config", data)
    if not isinstance(fields, dict):
        raise ConfigError(f"'probe_config' in '{path}' must hold the fields of a probe, not {fields!r}.")
    try:
        return ProbeConfig(**fields)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*([".".join(map(str, e["loc"]))] if e["loc"] else []), e["msg"]])
            for e in error.errors()
        )
        raise ConfigError(f"'{path}' is not a probe config: {problems}") from error
