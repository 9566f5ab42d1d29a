"""Models to measure: with the weights that are here, or with random ones, but never by a surprising download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from torch import nn

from avex._core.errors import ConfigError, WeightsError
from avex.configs import ModelCard, ModelSpec
from avex.embedding.engines.loading import choose_backend
from avex.io.fetch import cached_path
from avex.models.base_model import ModelBase
from avex.models.utils.factory import accepts, build_model_from_spec, pick_device
from avex.models.utils.load import LoadRequest, load_card
from avex.models.utils.registry import get_model_class, resolve
from avex.models.utils.sources import choose_weights, class_for

Weights = Literal["cached", "random", "download"]

WEIGHTS = ("cached", "random", "download")
_SAME_SPEED = "random weights, which are as fast"
_OWN_WEIGHTS = "the weights that the model's own code loads"


@dataclass(frozen=True)
class BenchPlan:
    """A model that can be measured, before it is loaded.

    Attributes:
        card: Its card.
        backend: What computes.
        weights: Which weights it will have, in words.
        from_file: Whether its checkpoint is read.
    """

    card: ModelCard
    backend: str
    weights: str
    from_file: bool

    def load(self, device: str | torch.device | None = None, *, threads: int | None = None) -> ModelBase:
        """Load or build the model, in eval mode, without a classifier where it can be left out.

        Args:
            device: Where; None takes the card's, or the CPU.
            threads: Of a runtime that has its own threads.

        Raises:
            ConfigError: Not a `ModelBase`, or a device that is not there.
        """
        cls = _class_of(self.card)
        options: dict[str, Any] = {"backend": self.backend} if accepts(cls, "backend") else {}
        if threads is not None and accepts(cls, "num_threads"):
            options["num_threads"] = threads
        features_only = accepts(cls, "return_features_only")
        if self.from_file:
            request = LoadRequest(device=device, return_features_only=features_only, options=options)
            model = load_card(self.card.model_copy(update={"class_mapping_path": None}), request)
        else:
            model = _build(cls, self.card, device, features_only, options)
        if not isinstance(model, ModelBase):
            raise ConfigError(
                f"'{self.card.name}' is a {type(model).__name__}; to measure it, derive it from "
                "avex.models.base_model.ModelBase."
            )
        return model.eval()


def plan_bench(
    model: str | Path | ModelSpec | ModelCard, *, weights: Weights = "cached", backend: str | None = None
) -> BenchPlan:
    """Find out how a model can be measured.

    Args:
        model: Anything that `avex.load_model` takes.
        weights: `cached`: its checkpoint if that is on this machine, else random values. `random`: in any case.
            `download`: its checkpoint, from the network if need be.
        backend: What computes, where a model has several; None takes the one that `avex embed` takes.

    Raises:
        UnknownModelError: No such model.
        FamilyNotAvailableError: Its architecture is not implemented yet.
        ConfigError: An unknown backend or kind of weights.
        WeightsError: The model is a graph file, which is not here and may not be downloaded.

    Example:
        >>> plan_bench("beats", weights="random").weights
        'random weights, as asked for'
    """
    if weights not in WEIGHTS:
        raise ConfigError(f"Unknown weights '{weights}'. Choose {', '.join(WEIGHTS)}.")
    card = resolve(model)
    backend, _ = choose_backend(card, backend)
    cls = _class_of(card)
    chosen = choose_weights(cls, card, None, None, None)
    is_graph = backend != "native" and getattr(class_for(cls, chosen), "reads_graph_file", False)
    uri = chosen.source.uri if chosen else None
    if uri is None and getattr(cls, "carries_weights", False):
        return BenchPlan(card, backend, _OWN_WEIGHTS, False)
    note, from_file = _weights(card.name, uri, weights)
    if is_graph and not from_file:
        how = " with backend 'litert'" if backend == "litert" else ""
        where = f", '{uri}'," if uri else ", which the card does not name,"
        raise WeightsError(
            f"Model '{card.name}'{how} is its graph file{where} and cannot have random weights. Leave out random "
            "weights, and allow the download if the file is not on this machine (weights='download', --download)."
        )
    return BenchPlan(card, backend, note, from_file)


def _weights(name: str, uri: str | None, wanted: Weights) -> tuple[str, bool]:
    """Which weights, in words, and whether they are read from a file."""
    if wanted == "random":
        return "random weights, as asked for", False
    if uri is None:
        if wanted == "download":
            raise WeightsError(f"The card of '{name}' states no checkpoint that could be downloaded.")
        return f"{_SAME_SPEED}: the card states no checkpoint", False
    if wanted == "download" or cached_path(uri) is not None:
        return f"weights of {PurePosixPath(uri).name}", True
    return f"{_SAME_SPEED}: the checkpoint is not on this machine", False


def _class_of(card: ModelCard) -> type[nn.Module]:
    cls = get_model_class(card.model_spec.name)
    if cls is None:
        build_model_from_spec(card.model_spec)  # raises, naming the classes there are
        raise AssertionError
    return cls


def _build(
    cls: type[nn.Module],
    card: ModelCard,
    device: str | torch.device | None,
    features_only: bool,
    options: dict[str, Any],
) -> nn.Module:
    if features_only:
        options["return_features_only"] = True
    elif accepts(cls, "num_classes"):
        options["num_classes"] = card.num_classes or 2
    if accepts(cls, "pretrained"):
        options["pretrained"] = False
    return build_model_from_spec(card.model_spec, pick_device(device, card.model_spec.device), **options)
