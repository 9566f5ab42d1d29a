"""Deciding what to build for a checkpoint, building it and filling it: the middle of `load_model`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avex._core.errors import ConfigError
from avex.configs import ModelCard, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.utils.factory import accepts, build_class, pick_device
from avex.models.utils.plan import LoadPlan, plan_load
from avex.models.utils.sources import FileContent
from avex.weights import LabelMap, LoadReport
from avex.weights.deferred import DeferredInitialisation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadRequest:
    """What a caller of `load_model` asked for, besides the model's name."""

    device: str | torch.device | None = None
    num_classes: int | None = None
    checkpoint_path: str | Path | None = None
    checkpoint_format: str | None = None
    return_features_only: bool = False
    pretrained: bool | None = None
    options: dict[str, Any] = field(default_factory=dict)
    precision: str | None = None


def make_plan(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    checkpoint: FileContent | None,
    labels: LabelMap | None,
) -> LoadPlan:
    """Decide what to build (`plan_load`); a class of the user's own is one piece.

    Raises:
        ConfigError: The class cannot do what was asked for, or the size of a classifier is unknown.
    """
    has_weights = checkpoint is not None
    has_head, head_classes = _head_in_file(cls, checkpoint)
    own_class = not accepts(cls, "return_features_only")
    if own_class and request.return_features_only:
        raise ConfigError(
            f"Model class '{cls.__name__}' has no parameter return_features_only. Load it without, and use "
            "model.embed(x) for embeddings."
        )
    if own_class and request.num_classes is None:
        # A user's class is one piece: its checkpoint holds its head, whatever that is called.
        sizes = (head_classes, card.num_classes, labels.num_classes if labels else None)
        classes = next((size for size in sizes if size is not None), None)
        return LoadPlan(
            False, classes, "checkpoint" if has_weights else "new", has_weights, labels is not None
        )
    return plan_load(
        return_features_only=request.return_features_only,
        num_classes=request.num_classes,
        has_weights=has_weights,
        has_head=has_head,
        head_classes=head_classes,
        card_classes=card.num_classes,
        label_classes=labels.num_classes if labels else None,
    )


def _head_in_file(cls: type[nn.Module], checkpoint: FileContent | None) -> tuple[bool, int | None]:
    """Whether a checkpoint holds a classifier, and of how many classes."""
    if checkpoint is None:
        return False, None
    prefixes = getattr(cls, "head_prefixes", ModelBase.head_prefixes)
    sizes = [
        tensor.shape[0]
        for key, tensor in checkpoint.state.items()
        if (key if checkpoint.known_names else key.removeprefix("model.")).startswith(prefixes)
        and tensor.ndim in (1, 2)
    ]
    return bool(sizes), sizes[-1] if sizes else None


def build(
    cls: type[nn.Module],
    spec: ModelSpec,
    request: LoadRequest,
    plan: LoadPlan,
    extra: dict[str, Any],
    device: torch.device | None = None,
) -> nn.Module:
    """Build a class as planned, without weights, on a device (None takes the request's, else the card's)."""
    arguments = dict(extra)
    takes_classes = accepts(cls, "num_classes")
    if plan.num_classes is not None and (takes_classes or request.num_classes is not None):
        arguments["num_classes"] = plan.num_classes
    if accepts(cls, "return_features_only"):
        arguments["return_features_only"] = plan.features_only
    if accepts(cls, "pretrained"):
        arguments["pretrained"] = False  # weights are loaded here, never by the class
    return build_class(cls, spec, device or pick_device(request.device, spec.device), **arguments)


def misfits(model: nn.Module, card: ModelCard) -> Iterator[str]:
    """In which sizes a model that was built after its checkpoint is not the one of its card, in words."""
    if isinstance(model, ModelBase) and card.embedding_dim not in (None, model.embedding_dim):
        yield f"an embedding has {model.embedding_dim} values, the card states {card.embedding_dim}"
    layers = getattr(getattr(model, "config", None), "encoder_num_layers", None)
    if layers is not None and card.published_layers not in (None, layers):
        yield f"the file holds {layers} transformer layers, the card states {card.published_layers}"


def _apply(
    model: nn.Module,
    checkpoint: FileContent,
    card: ModelCard,
    plan: LoadPlan,
    deferred: DeferredInitialisation | None,
) -> LoadReport:
    from avex.weights import apply_state, choose_adapter
    from avex.weights.adapter import StateDictAdapter

    state = checkpoint.state
    if not checkpoint.known_names:
        adapter = choose_adapter(
            [StateDictAdapter(set(model.state_dict()))], state, checkpoint.path, card.name
        )
        state = adapter.convert(state)
    return apply_state(
        model,
        state,
        head_prefixes=getattr(model, "head_prefixes", ModelBase.head_prefixes),
        reset_head=plan.head == "new",
        drop_head=plan.head == "none",
        optional=getattr(model, "optional_keys", ()),
        ignored=checkpoint.ignored,
        source=str(checkpoint.path),
        layout=checkpoint.layout,
        notes=checkpoint.notes,
        deferred=deferred,
        take_over=checkpoint.owned,
    )


def build_and_fill(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    plan: LoadPlan,
    extra: dict[str, Any],
    checkpoint: FileContent,
) -> nn.Module:
    """Build a class and give it the tensors of a checkpoint.

    The families of this package are built on the CPU without values, which the file gives a moment later, and
    moved afterwards. Other classes are built as they are written: their constructors may do anything.
    """
    device = pick_device(request.device, card.model_spec.device)
    ours = cls.__module__.startswith("avex.models.")
    deferred = DeferredInitialisation() if ours else None
    with deferred or contextlib.nullcontext():
        model = build(cls, card.model_spec, request, plan, extra, torch.device("cpu") if ours else device)
    report = _apply(model, checkpoint, card, plan, deferred)
    logger.info("%s: %s", card.name, report.summary())
    set_fact(model, "load_report", report)
    return model.to(device) if ours and device.type != "cpu" else model


def set_fact(model: nn.Module, name: str, value: object) -> None:
    """Attach a fact about a model, which is no sub-module, through its `__dict__`."""
    model.__dict__[name] = value
