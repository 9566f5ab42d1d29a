"""Objectives: what a model is trained to do. Each is a module that turns a batch into a loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from avex._core.lazy import lazy_names

if TYPE_CHECKING:
    from avex.training.objectives.base import Batch, LossOutput, Objective
    from avex.training.objectives.beats import BeatsObjective, BeatsTokenizerObjective
    from avex.training.objectives.contrastive import ContrastiveObjective
    from avex.training.objectives.distillation import DistillationObjective
    from avex.training.objectives.eat import EatObjective
    from avex.training.objectives.export import published_state, save_encoder
    from avex.training.objectives.hubert import HubertObjective
    from avex.training.objectives.lora import apply_lora, merge_lora
    from avex.training.objectives.mae import MaeObjective
    from avex.training.objectives.registry import OBJECTIVES, build_objective, objective_for
    from avex.training.objectives.supervised import SupervisedObjective

_HOME = {
    "Batch": "base",
    "LossOutput": "base",
    "Objective": "base",
    "BeatsObjective": "beats",
    "BeatsTokenizerObjective": "beats",
    "ContrastiveObjective": "contrastive",
    "DistillationObjective": "distillation",
    "EatObjective": "eat",
    "HubertObjective": "hubert",
    "MaeObjective": "mae",
    "OBJECTIVES": "registry",
    "SupervisedObjective": "supervised",
    "apply_lora": "lora",
    "build_objective": "registry",
    "merge_lora": "lora",
    "objective_for": "registry",
    "published_state": "export",
    "save_encoder": "export",
}

__all__ = [
    "OBJECTIVES",
    "Batch",
    "BeatsObjective",
    "BeatsTokenizerObjective",
    "ContrastiveObjective",
    "DistillationObjective",
    "EatObjective",
    "HubertObjective",
    "LossOutput",
    "MaeObjective",
    "Objective",
    "SupervisedObjective",
    "apply_lora",
    "build_objective",
    "merge_lora",
    "objective_for",
    "published_state",
    "save_encoder",
]


__getattr__ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return __all__
