"""The models of a measurement: one for each precision, with what its sessions need."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from avex._core.errors import ConfigError
from avex.embedding.throughput.plans import BenchPlan
from avex.models.base_model import ModelBase
from avex.models.precision import is_graph, resolve_precision, set_precision
from avex.models.utils.families import canonical_family


@dataclass(frozen=True)
class Subject:
    """A model in one precision.

    Attributes:
        name: What to call it.
        backend: What computes.
        weights: Which weights it has, in words.
        precision: `fp32`, `bf16` or `fp16`.
        models: One entry per session: the same model, or one each for runtimes that cannot share it.
        compiled: Whether its network is to be compiled.
    """

    name: str
    backend: str
    weights: str
    precision: str
    models: tuple[ModelBase, ...]
    compiled: bool

    @property
    def front_end(self) -> nn.Module | None:
        """What turns the waveform into the network's input, where that is a module of its own."""
        found = getattr(self.models[0], "frontend", None)
        return found if isinstance(found, nn.Module) else None

    @property
    def weight_bytes(self) -> int:
        """Memory of parameters and buffers."""
        tensors = [*self.models[0].parameters(), *self.models[0].buffers()]
        return sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in tensors}.values())

    @property
    def workers(self) -> int:
        """Sessions that run at once."""
        return len(self.models)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.models[0].device

    @property
    def has_products(self) -> bool:
        """Whether torch computes, so that products can be seen."""
        return not is_graph(self.models[0])


def load_subjects(
    plan: BenchPlan | nn.Module,
    precisions: Sequence[str],
    device: str | torch.device | None,
    workers: int | None,
    threads: int,
    compile: bool,
) -> list[Subject]:
    """Load the model once and copy it for all but the last precision."""
    if isinstance(plan, BenchPlan):
        base = plan.load(device, threads=threads if (workers or 1) == 1 else 1)
        name, note = plan.card.name, plan.weights
        count = workers or _default_workers(plan, base.device, threads)
    elif isinstance(plan, ModelBase):
        base = copy.deepcopy(plan).to(device or plan.device).eval()
        name, note, count = type(plan).__name__, "weights as given", workers or 1
    else:
        raise ConfigError(f"A {type(plan).__name__} cannot be measured; derive it from ModelBase.")
    graph = is_graph(base)
    backend = plan.backend if isinstance(plan, BenchPlan) else "torch"
    backend = "onnx" if graph and backend == "torch" else backend
    resolved = list(dict.fromkeys(resolve_precision(p, base.device, base) for p in precisions))
    subjects = []
    for precision in resolved:
        own = base if graph or precision == resolved[-1] else copy.deepcopy(base).eval()
        set_precision(own, precision)
        others = [own] * (count - 1)
        if graph and isinstance(plan, BenchPlan):  # sessions of such a runtime cannot be shared
            others = [plan.load(device, threads=1) for _ in others]
        subjects.append(Subject(name, backend, note, precision, (own, *others), compile))
    return subjects


def _default_workers(plan: BenchPlan, device: torch.device, threads: int) -> int:
    birdnet = canonical_family(plan.card.model_spec.name) == "birdnet"
    return threads if birdnet and device.type == "cpu" else 1
