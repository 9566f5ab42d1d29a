"""`load_model`: from a name to a model whose weights are proven to fit.

Card, plan, build, read, convert, apply; each step is one function elsewhere, this module is the order of them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import nn

from avex._core.errors import ConfigError, WeightsError
from avex.configs import ModelCard, ModelSpec
from avex.io import sha256_of
from avex.models.base_model import ModelBase
from avex.models.template.trust import trust_card
from avex.models.utils.building import LoadRequest, build, build_and_fill, make_plan, misfits, set_fact
from avex.models.utils.cards import describe_problems
from avex.models.utils.factory import accepts, build_class, build_model_from_spec
from avex.models.utils.plan import LoadPlan
from avex.models.utils.registry import get_model_class, resolve
from avex.models.utils.sources import (
    ChosenWeights,
    FileContent,
    choose_weights,
    class_for,
    fitting_labels,
    labels_for,
    labels_in_file,
    read_content,
    recognise_given,
)
from avex.weights import LoadReport
from avex.weights.fingerprint import set_weights_identity
from avex.weights.labels import LabelMap

logger = logging.getLogger(__name__)

__all__ = ["LoadRequest", "load_card", "load_model"]


def load_model(
    model: str | Path | ModelSpec | ModelCard,
    *,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    checkpoint_path: str | Path | None = None,
    checkpoint_format: str | None = None,
    return_features_only: bool = False,
    pretrained: bool | None = None,
    precision: str | None = None,
    trust: bool = False,
    **options: Any,
) -> nn.Module:
    """Load a model, with weights proven to fit or an error that says why not.

    Args:
        model: A card's name or alias, a family, a registered class, the path of a card file or of a JSON template,
            or a spec.
        num_classes: Size of a new, randomly initialised classifier; None keeps the checkpoint's.
        device: Where to put it; None takes the card's device, or the CPU where that does not exist.
        checkpoint_path: Weights instead of the card's: local path or URI.
        checkpoint_format: Layout of that file; None recognises it.
        return_features_only: No classifier; `forward` gives unpooled features.
        pretrained: Load the default weights of the spec's variant if there is no other checkpoint; None asks the
            spec.
        precision: `fp32`, `bf16`, `fp16` or `auto`, for inference; None is `fp32` (`avex.models.precision`).
        trust: Let a JSON template run its commands, as it is now (`avex.models.template.trust`).
        **options: Options of the family or class, as in `ModelSpec`.

    Returns:
        The model in eval mode. `model.label_mapping` holds the labels of a pretrained classifier, where there are
        any (else `hasattr(model, "label_mapping")` is False), and `model.load_report` says what was loaded.

    Raises:
        UnknownModelError: No such model; the message suggests names.
        FamilyNotAvailableError: The architecture is not implemented in this release.
        WeightsError: The checkpoint does not fit, is empty, damaged, or holds code.
        ChecksumError: The file is not the one the card states.
        OfflineError: The weights are remote, not cached, and there is no network.
        ConfigError: An option that the model does not take.
        TemplateTrustError: A JSON template that was not trusted; the message shows what would run.

    Example:
        >>> model = load_model("birdnet", device="cpu")                     # doctest: +SKIP
        >>> model.label_mapping["index_to_label"][0]                        # doctest: +SKIP
        'Abroscopus albogularis_Rufous-faced Warbler'
    """
    request = LoadRequest(
        device,
        num_classes,
        checkpoint_path,
        checkpoint_format,
        return_features_only,
        pretrained,
        options,
        precision,
    )
    card = resolve(model)
    if trust:
        trust_card(card)
    return load_card(card, request)


def load_card(card: ModelCard, request: LoadRequest | None = None) -> nn.Module:
    """Load the model that a card describes. See `load_model`."""
    request = request or LoadRequest()
    spec, extra = _merge_options(card.model_spec, request.options)
    cls = get_model_class(spec.name)
    if cls is None:
        return build_model_from_spec(spec)  # raises, naming the classes there are
    spec, precision = _take_precision(cls, spec, request)
    # Another name of a checkpoint: passed as an option it replaces the card's weights, in a spec it does not.
    stated = None if card.checkpoint_path else spec.fairseq_weights_path
    given = request.checkpoint_path or request.options.get("fairseq_weights_path") or stated
    card = card.model_copy(update={"model_spec": spec.model_copy(update={"fairseq_weights_path": None})})
    chosen = choose_weights(cls, card, given, request.checkpoint_format, request.pretrained)
    cls = class_for(cls, chosen)
    if getattr(cls, "reads_graph_file", False):
        model = _load_graph(cls, card, request, chosen, extra)
    else:
        model = _load_network(cls, card, request, chosen, extra)
    model.eval()
    if precision is not None:
        from avex.models.precision import set_precision

        set_precision(model, precision)
    return model


def _merge_options(spec: ModelSpec, options: dict[str, Any]) -> tuple[ModelSpec, dict[str, Any]]:
    """Options that are fields of the spec go there, validated; the others go to the constructor."""
    fields = {name: value for name, value in options.items() if name in ModelSpec.model_fields}
    extra = {name: value for name, value in options.items() if name not in fields}
    try:
        # Not `model_dump`: it would make dictionaries of the objects in `extra_config`.
        stated = {name: getattr(spec, name) for name in spec.model_fields_set}
        merged = ModelSpec.model_validate({**stated, **fields})
    except ValidationError as error:
        raise ConfigError(f"An option of '{spec.name}' is not valid: {describe_problems(error)}.") from error
    return merged, extra


def _take_precision(
    cls: type[nn.Module], spec: ModelSpec, request: LoadRequest
) -> tuple[ModelSpec, str | None]:
    """The precision of the request, else of the spec's `extra_config`; and the spec without it.

    A class that has an option of that name keeps it.
    """
    stated = (spec.extra_config or {}).get("precision")
    if stated is None or accepts(cls, "precision"):
        return spec, request.precision
    rest = {name: value for name, value in (spec.extra_config or {}).items() if name != "precision"}
    return spec.model_copy(update={"extra_config": rest}), request.precision or str(stated)


def _load_network(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    chosen: ChosenWeights | None,
    extra: dict[str, Any],
) -> nn.Module:
    checkpoint = (
        read_content(cls, card.name, chosen.source, chosen.likely_layout) if chosen is not None else None
    )
    wants_labels = request.num_classes is None and not request.return_features_only
    labels = labels_for(card, chosen) if wants_labels else None
    plan = make_plan(cls, card, request, checkpoint, labels)
    if checkpoint is None:
        model = build(cls, card.model_spec, request, plan, extra)
        if any(True for _ in model.parameters()) and not getattr(cls, "carries_weights", False):
            logger.warning("Model '%s' has no checkpoint: its parameters are random.", card.name)
    else:
        if inferred := getattr(cls, "options_from_checkpoint", None):
            # What the file says of its own architecture counts, unless the caller or the card says otherwise.
            stated = inferred(checkpoint.metadata, checkpoint.state)
            extra = {**stated, **card.model_spec.family_options(), **extra}
        model = build_and_fill(cls, card, request, plan, extra, checkpoint)
        for misfit in misfits(model, card):
            logger.warning("'%s' is not what card '%s' describes: %s.", checkpoint.path, card.name, misfit)
        if chosen is not None and (sha256 := chosen.verified_sha256):
            set_weights_identity(model, sha256)
    if plan.attach_labels:
        given = chosen is not None and chosen.card is None
        labels = fitting_labels(labels, plan.num_classes, card.name, given_file=given)
        _attach_labels(model, labels, checkpoint, plan)
    if checkpoint is not None and hasattr(model, "forward_predictor"):
        set_fact(model, "predictor_labels", labels_in_file(checkpoint.metadata))
    return model


def _load_graph(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    chosen: ChosenWeights | None,
    extra: dict[str, Any],
) -> nn.Module:
    if chosen is None:
        raise WeightsError(f"Model '{card.name}' needs a graph file. Give checkpoint_path=... .")
    chosen = recognise_given(chosen, card)
    path = chosen.source.fetch()
    model = build_class(
        cls,
        card.model_spec,
        request.device,
        checkpoint=path,
        num_classes=request.num_classes,
        return_features_only=request.return_features_only,
        **extra,
    )
    set_weights_identity(model, sha256_of(path))
    if request.num_classes is None and not request.return_features_only:
        classes = cast(Any, model).num_classes
        labels = labels_for(card, chosen)
        labels = fitting_labels(labels, classes, card.name, given_file=chosen.card is None)
        if labels is not None:
            set_fact(model, "label_mapping", labels)
    if not hasattr(model, "load_report"):  # the class knows better where it takes the graph to pieces
        fresh = tuple(name for name in model.state_dict() if name.startswith(ModelBase.head_prefixes))
        notes = ("the graph is used as it is",)
        set_fact(model, "load_report", LoadReport(reset=fresh, source=str(path), notes=notes))
    return model


def _attach_labels(
    model: nn.Module, labels: LabelMap | None, checkpoint: FileContent | None, plan: LoadPlan
) -> None:
    """Attach the card's labels, else those that the checkpoint itself holds if they fit."""
    if labels is None and checkpoint is not None and plan.head == "checkpoint":
        own = labels_in_file(checkpoint.metadata)
        labels = own if own is not None and own.num_classes == plan.num_classes else None
    if labels is not None:
        set_fact(model, "label_mapping", labels)
