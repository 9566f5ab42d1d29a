"""avex: one API for bioacoustic audio encoders, from recordings to embeddings and species detections.

Importing it costs no torch and no network: names are imported when they are first used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names
from avex._core.version import __version__

logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from avex.detection.predict import predict
    from avex.embedding.embed import embed
    from avex.embedding.stores import open_store
    from avex.models.utils.describe import describe_model, list_models
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
    from avex.training.probes.fit import fit_probe

_NAMES = {
    "build_model": "avex.models.utils.factory:build_model",
    "build_model_from_spec": "avex.models.utils.factory:build_model_from_spec",
    "describe_model": "avex.models.utils.describe:describe_model",
    "embed": "avex.embedding.embed:embed",
    "fit_probe": "avex.training.probes.fit:fit_probe",
    "get_checkpoint_path": "avex.models.utils.registry:get_checkpoint_path",
    "get_model_class": "avex.models.utils.registry:get_model_class",
    "get_model_spec": "avex.models.utils.registry:get_model_spec",
    "list_model_classes": "avex.models.utils.registry:list_model_classes",
    "list_model_layers": "avex.models.utils.layer_listing:list_model_layers",
    "list_models": "avex.models.utils.describe:list_models",
    "load_class_mapping": "avex.models.utils.registry:load_label_mapping",
    "load_label_mapping": "avex.models.utils.registry:load_label_mapping",
    "load_model": "avex.models.utils.load:load_model",
    "open_store": "avex.embedding.stores:open_store",
    "predict": "avex.detection.predict:predict",
    "register_model": "avex.models.utils.registry:register_model",
    "register_model_class": "avex.models.utils.registry:register_model_class",
}

__all__ = [
    "__version__",
    "build_model",
    "build_model_from_spec",
    "describe_model",
    "embed",
    "fit_probe",
    "get_checkpoint_path",
    "get_model_class",
    "get_model_spec",
    "list_model_classes",
    "list_model_layers",
    "list_models",
    "load_class_mapping",
    "load_label_mapping",
    "load_model",
    "open_store",
    "predict",
    "register_model",
    "register_model_class",
]

__getattr__ = lazy_names(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
