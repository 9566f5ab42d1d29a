"""`list_model_layers`: which layers of a model can be selected."""

from __future__ import annotations

from typing import Any

from avex.models.base_model import ModelBase
from avex.models.utils.load import load_model


def list_model_layers(model: str | ModelBase, device: str = "cpu") -> dict[str, Any]:
    """Names of the layers that `target_layers` may hold.

    Args:
        model: A model, or the name of one (which is then loaded).
        device: Where to load it.

    Returns:
        `layers` and `all`, the names in order; `aliases`, from `layer_0`, `layer_1`, ... to them; `last_layer`, the
        last name or None; `special_options`, the keywords that selectors may be.

    Raises:
        UnknownModelError: No such model.
        ValueError: Not a `ModelBase`.

    Example:
        >>> list_model_layers("birdnet")["layers"][-1]                      # doctest: +SKIP
        'embedding'
    """
    loaded = load_model(model, device=device) if isinstance(model, str) else model
    if not isinstance(loaded, ModelBase):
        raise ValueError(f"Layers can be listed for a ModelBase, not for {type(loaded).__name__}.")
    layers = loaded.get_model_layers()
    return {
        "layers": layers,
        "last_layer": layers[-1] if layers else None,
        "all": list(layers),
        "aliases": {f"layer_{number}": name for number, name in enumerate(layers)},
        "special_options": ["last_layer", "all"],
    }
