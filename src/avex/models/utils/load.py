"""`load_model`: from a name to a model whose weights are proven to fit.

Card, plan, build, read, convert, apply; each step is one function elsewhere, this module is the order of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from avex._core.errors import ConfigError, WeightsError
from avex.configs import ModelCard, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.utils.factory import accepts, build_model_from_spec, pick_device
from avex.models.utils.families import FAMILIES, canonical_family
from avex.models.utils.plan import LoadPlan, plan_load
from avex.models.utils.registry import find_card, get_model_class, resolve
from avex.weights import LoadReport, WeightSource
from avex.weights.labels import LabelMap

if TYPE_CHECKING:
    from avex.weights.adapter import CheckpointAdapter

logger = logging.getLogger(__name__)

# Prefixes that training wrappers put in front of every key.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


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


def load_model(
    model: str | Path | ModelSpec | ModelCard,
    *,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    checkpoint_path: str | Path | None = None,
    checkpoint_format: str | None = None,
    return_features_only: bool = False,
    pretrained: bool | None = None,
    **options: Any,
) -> nn.Module:
    """Load a model, with weights proven to fit or an error that says why not.

    Args:
        model: A card's name or alias, a family, a registered class, the path of a card file, or a spec.
        num_classes: Size of a new, randomly initialised classifier; None keeps the checkpoint's.
        device: Where to put it; None takes the card's device, or the CPU where that does not exist.
        checkpoint_path: Weights instead of the card's: local path or URI.
        checkpoint_format: Layout of that file; None recognises it.
        return_features_only: No classifier; `forward` gives unpooled features.
        pretrained: Load the family's default weights if there is no other checkpoint; None asks the spec.
        **options: Options of the family or class, as in `ModelSpec`.

    Returns:
        The model in eval mode. `model.label_mapping` holds the labels of a pretrained classifier and
        `model.load_report` says what was loaded.

    Raises:
        UnknownModelError: No such model; the message suggests names.
        FamilyNotAvailableError: The architecture is not implemented in this release.
        WeightsError: The checkpoint does not fit, is empty, damaged, or holds code.
        ChecksumError: The file is not the one the card states.
        OfflineError: The weights are remote, not cached, and there is no network.
        ConfigError: An option that the model does not take.

    Example:
        >>> model = load_model("birdnet", device="cpu")                     # doctest: +SKIP
        >>> model.label_mapping["index_to_label"][0]
        'Abroscopus albogularis_Rufous-faced Warbler'
    """
    request = LoadRequest(
        device, num_classes, checkpoint_path, checkpoint_format, return_features_only, pretrained, options
    )
    return load_card(resolve(model), request)


def load_card(card: ModelCard, request: LoadRequest | None = None) -> nn.Module:
    """Load the model that a card describes. See `load_model`."""
    request = request or LoadRequest()
    spec, extra = _merge_options(card.model_spec, request.options)
    card = card.model_copy(update={"model_spec": spec})
    cls = get_model_class(spec.name)
    if cls is None:
        return build_model_from_spec(spec)  # raises, naming the classes there are
    source = _weight_source(cls, card, request)
    if getattr(cls, "reads_graph_file", False):
        return _load_graph(cls, card, request, source, extra)
    checkpoint = _read(cls, card, request, source)
    labels = _labels(card) if request.num_classes is None and not request.return_features_only else None
    plan = _plan(cls, card, request, checkpoint, labels)
    if checkpoint is not None and (inferred := getattr(cls, "options_from_checkpoint", None)):
        # What the file says of its own architecture counts, unless the caller or the card says otherwise.
        extra = {**inferred(checkpoint.metadata, checkpoint.state), **spec.family_options(), **extra}
    model = _build(cls, spec, request, plan, extra)
    if checkpoint is not None:
        report = _apply(model, checkpoint, card, plan)
        logger.info("%s: %s", card.name, report.summary())
        _set(model, "load_report", report)
    elif any(True for _ in model.parameters()):
        logger.warning("Model '%s' has no checkpoint: its parameters are random.", card.name)
    if plan.attach_labels:
        _attach_labels(model, labels, plan.num_classes, card.name)
    return model.eval()


@dataclass(frozen=True)
class _FileContent:
    """A checkpoint that was read, under the names that its family uses.

    Attributes:
        path: The file.
        state: Tensors; for a class without adapters under the file's own names.
        metadata: What else the file holds.
        known_names: Whether `state` has the family's names already.
        ignored: Tensors of the file that the family leaves out on purpose.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, Any]
    known_names: bool
    ignored: tuple[str, ...] = ()


def _read(
    cls: type[nn.Module], card: ModelCard, request: LoadRequest, source: WeightSource | None
) -> _FileContent | None:
    if source is None:
        return None
    from avex.weights import KeyMapAdapter, choose_adapter, read_checkpoint

    path = source.fetch()
    checkpoint = read_checkpoint(path, source.format)
    adapters: list[CheckpointAdapter] = list(getattr(cls, "checkpoint_adapters", ()))
    if not adapters:
        return _FileContent(path, checkpoint.tensors, checkpoint.metadata, known_names=False)
    adapter = choose_adapter(adapters, set(checkpoint.tensors), str(path), card.name, source.format)
    dropped = tuple(adapter.dropped(checkpoint.tensors)) if isinstance(adapter, KeyMapAdapter) else ()
    return _FileContent(path, adapter.convert(checkpoint.tensors), checkpoint.metadata, True, dropped)


def _merge_options(spec: ModelSpec, options: dict[str, Any]) -> tuple[ModelSpec, dict[str, Any]]:
    """Options that are fields of the spec go there, validated; the others go to the constructor."""
    fields = {name: value for name, value in options.items() if name in ModelSpec.model_fields}
    extra = {name: value for name, value in options.items() if name not in fields}
    merged = ModelSpec.model_validate({**spec.model_dump(exclude_unset=True), **fields})
    return merged, extra


def _weight_source(cls: type[nn.Module], card: ModelCard, request: LoadRequest) -> WeightSource | None:
    """Weights: the path that was given, else the card's, else the family's default if `pretrained`."""
    if request.checkpoint_path is not None:
        return WeightSource(str(request.checkpoint_path), request.checkpoint_format or card.checkpoint_format)
    if card.checkpoint_path is not None:
        return WeightSource(card.checkpoint_path, card.checkpoint_format, card.sha256)
    family = canonical_family(card.model_spec.name)
    default = find_card(FAMILIES[family].card or "") if family else None
    wanted = card.model_spec.pretrained if request.pretrained is None else request.pretrained
    # A graph is its weights: without them there is nothing to build.
    if (
        default is not None
        and default.checkpoint_path
        and (wanted or getattr(cls, "reads_graph_file", False))
    ):
        return WeightSource(default.checkpoint_path, default.checkpoint_format, default.sha256)
    if request.pretrained:
        raise WeightsError(
            f"There are no default weights for '{card.name}'. Give checkpoint_path=..., or pretrained=False."
        )
    return None


def _labels(card: ModelCard) -> LabelMap | None:
    path = card.class_mapping_path
    if path is None and (family := canonical_family(card.model_spec.name)) and FAMILIES[family].card:
        default = find_card(FAMILIES[family].card or "")
        path = default.class_mapping_path if default else None
    return LabelMap.load(path) if path else None


def _load_graph(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    source: WeightSource | None,
    extra: dict[str, Any],
) -> nn.Module:
    if source is None:
        raise WeightsError(f"Model '{card.name}' needs a graph file. Give checkpoint_path=... .")
    model = build_model_from_spec(
        card.model_spec,
        request.device,
        checkpoint=source.fetch(),
        num_classes=request.num_classes,
        return_features_only=request.return_features_only,
        **extra,
    )
    if request.num_classes is None and not request.return_features_only:
        _attach_labels(model, _labels(card), cast(Any, model).num_classes, card.name)
    if not hasattr(model, "load_report"):  # the class knows better where it takes the graph to pieces
        fresh = tuple(name for name in model.state_dict() if name.startswith(ModelBase.head_prefixes))
        notes = ("the graph is used as it is",)
        _set(model, "load_report", LoadReport(reset=fresh, source=str(source.fetch()), notes=notes))
    return model.eval()


def _plan(
    cls: type[nn.Module],
    card: ModelCard,
    request: LoadRequest,
    checkpoint: _FileContent | None,
    labels: LabelMap | None,
) -> LoadPlan:
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


def _head_in_file(cls: type[nn.Module], checkpoint: _FileContent | None) -> tuple[bool, int | None]:
    """Whether a checkpoint holds a classifier, and of how many classes."""
    if checkpoint is None:
        return False, None
    prefixes = getattr(cls, "head_prefixes", ModelBase.head_prefixes)
    sizes = [
        tensor.shape[0]
        for key, tensor in checkpoint.state.items()
        if (key if checkpoint.known_names else _without_wrappers(key)).startswith(prefixes)
        and tensor.ndim in (1, 2)
    ]
    return bool(sizes), sizes[-1] if sizes else None


def _without_wrappers(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.removeprefix(wrapper)
    return key


def _build(
    cls: type[nn.Module], spec: ModelSpec, request: LoadRequest, plan: LoadPlan, extra: dict[str, Any]
) -> nn.Module:
    arguments = dict(extra)
    takes_classes = accepts(cls, "num_classes")
    if plan.num_classes is not None and (takes_classes or request.num_classes is not None):
        arguments["num_classes"] = plan.num_classes
    if accepts(cls, "return_features_only"):
        arguments["return_features_only"] = plan.features_only
    if accepts(cls, "pretrained"):
        arguments["pretrained"] = False  # weights are loaded here, never by the class
    return build_model_from_spec(spec, pick_device(request.device, spec.device), **arguments)


def _apply(model: nn.Module, checkpoint: _FileContent, card: ModelCard, plan: LoadPlan) -> LoadReport:
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
    )


def _attach_labels(model: nn.Module, labels: LabelMap | None, num_classes: int | None, name: str) -> None:
    if labels is None:
        return
    if num_classes is not None and labels.num_classes != num_classes:
        raise ConfigError(
            f"The labels of '{name}' name {labels.num_classes} classes, but its classifier has {num_classes}. "
            "Correct class_mapping_path in the card."
        )
    _set(model, "label_mapping", labels)


def _set(model: nn.Module, name: str, value: object) -> None:
    # Written through __dict__: these are facts about the model, not sub-modules.
    model.__dict__[name] = value
