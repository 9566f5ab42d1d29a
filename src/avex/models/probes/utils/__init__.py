"""Building probes, and finding their classes (module names are fixed by the public documents)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.models.probes.utils.factory import (
        build_probe_from_config,
        build_probe_from_config_offline,
        build_probe_from_config_online,
    )
    from avex.models.probes.utils.registry import (
        get_probe_class,
        list_probe_classes,
        load_probe_config,
        register_probe_class,
    )

_LAZY = {
    "build_probe_from_config": "factory",
    "build_probe_from_config_offline": "factory",
    "build_probe_from_config_online": "factory",
    "get_probe_class": "registry",
    "list_probe_classes": "registry",
    "load_probe_config": "registry",
    "register_probe_class": "registry",
}

__all__ = [
    "build_probe_from_config",
    "build_probe_from_config_offline",
    "build_probe_from_config_online",
    "get_probe_class",
    "list_probe_classes",
    "load_probe_config",
    "register_probe_class",
]


__getattr__ = lazy_names(__name__, _LAZY)
