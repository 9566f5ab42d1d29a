"""The packaged model cards, and the doors that older documents name: `from avex.api import load_model`.

All names are those of other modules, imported when they are first used. `avex.api.list_models` is the module of the
console script `list-models`; the function is `avex.list_models`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.models.probes.utils import (
        build_probe_from_config,
        build_probe_from_config_offline,
        build_probe_from_config_online,
        load_probe_config,
    )
    from avex.models.utils.describe import describe_model
    from avex.models.utils.factory import build_model, build_model_from_spec
    from avex.models.utils.layer_listing import list_model_layers
    from avex.models.utils.load import load_model
    from avex.models.utils.registry import (
        get_checkpoint_path,
        get_model_class,
        get_model_spec,
        list_model_classes,
        load_label_mapping,
        register_model,
        register_model_class,
    )
    from avex.models.utils.registry import load_label_mapping as load_class_mapping

_PROBES = "avex.models.probes.utils"
_REGISTRY = "avex.models.utils.registry"
_NAMES = {
    "build_model": "avex.models.utils.factory:build_model",
    "build_model_from_spec": "avex.models.utils.factory:build_model_from_spec",
    "build_probe_from_config": f"{_PROBES}:build_probe_from_config",
    "build_probe_from_config_offline": f"{_PROBES}:build_probe_from_config_offline",
    "build_probe_from_config_online": f"{_PROBES}:build_probe_from_config_online",
    "describe_model": "avex.models.utils.describe:describe_model",
    "get_checkpoint_path": f"{_REGISTRY}:get_checkpoint_path",
    "get_model_class": f"{_REGISTRY}:get_model_class",
    "get_model_spec": f"{_REGISTRY}:get_model_spec",
    "list_model_classes": f"{_REGISTRY}:list_model_classes",
    "list_model_layers": "avex.models.utils.layer_listing:list_model_layers",
    "load_class_mapping": f"{_REGISTRY}:load_label_mapping",
    "load_label_mapping": f"{_REGISTRY}:load_label_mapping",
    "load_model": "avex.models.utils.load:load_model",
    "load_probe_config": f"{_PROBES}:load_probe_config",
    "register_model": f"{_REGISTRY}:register_model",
    "register_model_class": f"{_REGISTRY}:register_model_class",
}

__all__ = [
    "build_model",
    "build_model_from_spec",
    "build_probe_from_config",
    "build_probe_from_config_offline",
    "build_probe_from_config_online",
    "describe_model",
    "get_checkpoint_path",
    "get_model_class",
    "get_model_spec",
    "list_model_classes",
    "list_model_layers",
    "load_class_mapping",
    "load_label_mapping",
    "load_model",
    "load_probe_config",
    "register_model",
    "register_model_class",
]

__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
