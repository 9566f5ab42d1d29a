"""Groups of parameters for an optimiser: weight decay where it belongs, and learning rates that fall with depth."""

from __future__ import annotations

from typing import Any

from torch import nn

from avex._core.errors import ConfigError
from avex.models.base_model import ModelBase


def parameter_groups(
    module: nn.Module, model: ModelBase, lr: float, weight_decay: float, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Split trainable parameters into groups of one learning rate and one weight decay.

    Vectors (biases, norms, class tokens, gains, temperatures) get no weight decay. With `layer_decay` d, layer i
    of n learns at `lr * d^(n + 1 - i)`, what comes before the first layer at `lr * d^(n + 1)`, and what stands
    behind the last layer, heads and the objective's own parts at `lr`.

    Args:
        module: Whose parameters; an objective, or the model itself.
        model: Whose layers count (`get_model_layers`).
        lr: Base learning rate.
        weight_decay: On matrices and kernels.
        layer_decay: Between 0 and 1; None or 1 for one rate.

    Returns:
        Dicts with `params`, `lr`, `lr_scale` (learning rate over the base, for schedules), `weight_decay`,
        `name`.

    Raises:
        ConfigError: `layer_decay` is out of range, or nothing is trainable.

    Source:
        Clark et al. (2020), https://arxiv.org/abs/2003.10555 (rates by layer).

    Example:
        >>> from avex.testing import tiny_model
        >>> model = tiny_model("eat")
        >>> sorted(g["name"] for g in parameter_groups(model, model, 1e-3, 0.05))
        ['decay', 'no_decay']
    """
    if layer_decay is not None and not 0 < layer_decay <= 1:
        raise ConfigError(f"layer_decay must lie in (0, 1], not {layer_decay}.")
    depths, top = layer_depths(model)
    inside = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if not parameter.requires_grad:
            continue
        depth = depths.get(inside.get(id(parameter), ""), top) if layer_decay not in (None, 1.0) else top
        groups.setdefault((depth, is_vector(parameter)), []).append(parameter)
    if not groups:
        raise ConfigError("There is nothing to train: every parameter is frozen.")
    return [
        _group(
            parameters, lr, (layer_decay or 1.0) ** (top - depth), 0.0 if vector else weight_decay, depth, top
        )
        for (depth, vector), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def layer_depths(model: ModelBase) -> tuple[dict[str, int], int]:
    """Depth of every parameter of a model, and the depth of what stands behind its last layer.

    0 is before the first layer, i the i-th layer. Parameters outside all layers are told apart by where they are
    registered: before the last layer they belong to the input, behind it to the output.

    Example:
        >>> from avex.testing import tiny_model
        >>> depths, top = layer_depths(tiny_model("eat"))
        >>> depths["backbone.local_encoder.proj.weight"], depths["backbone.blocks.1.norm2.bias"], top
        (0, 2, 3)
    """
    # The first name is what enters the first layer, or for convolutions a layer itself: depth 0 either way.
    layers = [f"{name}." for name in model.get_model_layers()]
    names = [name for name, _ in model.named_parameters()]
    of_layer = {name: _layer_of(name, layers) for name in names}
    inside = [place for place, name in enumerate(names) if of_layer[name]]
    last = inside[-1] if inside else -1
    top = len(layers)
    depths = {}
    for place, name in enumerate(names):
        outside = top if place > last or name.startswith(model.head_prefixes) else 0
        depth = of_layer[name]
        depths[name] = outside if depth is None else depth
    return depths, top


def is_vector(parameter: nn.Parameter) -> bool:
    """Whether at most one axis is longer than 1."""
    return sum(size > 1 for size in parameter.shape) <= 1


def _layer_of(name: str, layers: list[str]) -> int | None:
    for depth in range(len(layers) - 1, -1, -1):
        if name.startswith(layers[depth]):
            return depth
    return None


def _group(
    parameters: list[nn.Parameter], lr: float, scale: float, weight_decay: float, depth: int, top: int
) -> dict[str, Any]:
    kind = "decay" if weight_decay else "no_decay"
    name = kind if depth == top else f"layer_{depth}_{kind}"
    return {
        "params": parameters,
        "lr": lr * scale,
        "lr_scale": scale,
        "weight_decay": weight_decay,
        "name": name,
    }
