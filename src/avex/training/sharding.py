"""Fully sharded data parallelism: every process holds a share of each weight, its gradient and its moments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard

from avex.training.objectives import Objective

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(objective: Objective, mesh: DeviceMesh) -> None:
    """Spread the weights of an objective over the processes of a mesh, in place.

    The layers that `get_model_layers` names are gathered one at a time when they are needed; everything else
    (front end, head, decoder, teacher) once per step. Names and shapes of parameters stay what they are. An
    objective that is sharded already stays as it is.

    Args:
        objective: What is trained.
        mesh: One axis of processes.

    Source:
        Rajbhandari et al. (2020), https://arxiv.org/abs/1910.02054.
    """
    if isinstance(objective, FSDPModule):
        return
    for layer in _layers(objective):
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def _layers(objective: Objective) -> list[nn.Module]:
    """Layers that stand beside each other: none within another, each with weights."""
    names = sorted(objective.model.get_model_layers())
    outer = [name for name in names if not any(name.startswith(f"{other}.") for other in names)]
    layers = [objective.model.get_submodule(name) for name in outer]
    return [
        layer for layer in layers if isinstance(layer, nn.Module) and any(True for _ in layer.parameters())
    ]
