"""Tiny models of every family, with seeded weights, for tests that must be fast and need no download.

They are the real classes at small sizes: everything works as with published weights, but for the numbers, which
mean nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from avex._core.errors import ConfigError, UnknownNameError, did_you_mean
from avex.configs import ModelCard, ModelSpec
from avex.models.base_model import ModelBase
from avex.models.utils.factory import accepts, build_model_from_spec
from avex.models.utils.families import FAMILIES, canonical_family, implemented_families
from avex.models.utils.registry import get_model_class
from avex.testing.tiny_specs import TINY_SPECS

# Families whose network is a graph file: written by `tiny_graphs`.
_GRAPHS = ("perch", "perch2")


def tiny_families() -> list[str]:
    """Families that `tiny_model` and `tiny_card` know: all that this release implements.

    Example:
        >>> "beats" in tiny_families()
        True
    """
    return [name for name in implemented_families() if name in TINY_SPECS]


def tiny_card(
    family: str,
    folder: str | Path | None = None,
    *,
    seed: int = 0,
    num_classes: int | None = 3,
    **options: Any,
) -> ModelCard:
    """A card of a small model, which loads in a moment.

    Args:
        family: A family or one of its other names.
        folder: Where to write seeded weights and labels (`class_0`, ...), to which the card then points. None
            gives a card without weights: each load has other random ones.
        seed: Seed of the weights.
        num_classes: Size of the classifier in the written weights; None writes an encoder only. For CLIP the
            audio tower is written.
        **options: Further fields of the `ModelSpec`; mappings are merged with the tiny sizes.

    Raises:
        UnknownNameError: No such family.
        ConfigError: Perch or BirdNET without a folder: their network is a file.
        MissingExtraError: Perch without the packages onnx and onnxruntime.

    Example:
        >>> tiny_card("hubert").model_spec.name
        'hubert'
    """
    name = _family(family)
    if folder is None:
        if name in (*_GRAPHS, "birdnet"):
            raise ConfigError(
                f"The network of '{family}' is a file: pass folder=..., where a tiny one may be written."
            )
        return ModelCard(name=f"tiny_{name}", model_spec=_spec(name, options), license="none")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if name in _GRAPHS:
        return _graph_card(name, folder, seed, num_classes, options)
    model = tiny_model(family, seed=seed, num_classes=num_classes, **options)
    path = folder / f"tiny_{name}_{seed}.safetensors"
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, path)
    return _card_of_file(name, path, model.embedding_dim, None if name == "clip" else num_classes, options)


def tiny_model(
    family: str,
    seed: int = 0,
    *,
    folder: str | Path | None = None,
    num_classes: int | None = 3,
    **options: Any,
) -> ModelBase:
    """A small model with seeded weights, in eval mode.

    Args:
        family: A family or one of its other names.
        seed: The same seed gives the same weights.
        folder: Where the graph file of Perch goes; not used for others.
        num_classes: Size of the classifier; None for a model that gives features. CLIP is its audio tower.
        **options: Further fields of the `ModelSpec`, or arguments of the class; mappings are merged with the tiny
            sizes.

    Raises:
        UnknownNameError: No such family.
        ConfigError: Perch without a folder.
        MissingExtraError: Perch without the packages onnx and onnxruntime.

    Example:
        >>> tiny_model("eat").embed(torch.zeros(1, 16000)).shape
        torch.Size([1, 16])
    """
    name = _family(family)
    if name in _GRAPHS:
        from avex.models.utils.load import load_model

        card = tiny_card(name, folder, seed=seed, num_classes=num_classes, **options)
        return load_model(card, device="cpu", return_features_only=num_classes is None)  # type: ignore[return-value]
    fields = {key: value for key, value in options.items() if key in ModelSpec.model_fields}
    arguments = {key: value for key, value in options.items() if key not in fields}
    cls = get_model_class(name)
    assert cls is not None
    # CLIP's text tower has published sizes only; without it the model is small.
    arguments["return_features_only"] = num_classes is None or name == "clip"
    if accepts(cls, "num_classes"):
        arguments["num_classes"] = num_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model_from_spec(_spec(name, fields), "cpu", **arguments)
        assert isinstance(model, ModelBase)
        _enliven(model)
    return model.eval()


def _family(name: str) -> str:
    family = canonical_family(name)
    if family is None or family not in tiny_families():
        known = tiny_families()
        raise UnknownNameError(
            f"There is no tiny model of a family '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}."
        )
    return family


def _spec(name: str, options: dict[str, Any]) -> ModelSpec:
    fields: dict[str, Any] = {"name": name, "pretrained": False, "device": "cpu", **TINY_SPECS[name]}
    for key, value in options.items():
        both = isinstance(value, dict) and isinstance(fields.get(key), dict)
        fields[key] = {**fields[key], **value} if both else value
    return ModelSpec(**fields)


def _enliven(model: ModelBase) -> None:
    """Give norms, biases and running statistics values that matter: fresh ones would hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    model.eval()  # all but the norms: no branch may be left out by chance
    for norm in norms:
        norm.train().momentum = None  # the mean over all passes, of which there is one
    with torch.no_grad():
        model.forward_features(_sounds(8, model.sample_rate))
    for norm in norms:
        norm.eval().momentum = 0.1
        assert norm.running_var is not None
        # A channel that hardly varied here would blow up what other sounds give.
        norm.running_var.clamp_(min=float(norm.running_var.mean()))


def _sounds(count: int, sample_rate: int) -> torch.Tensor:
    """(count, one second) tones that fade out in noise, from pure noise to nearly pure tones."""
    time = torch.arange(sample_rate) / sample_rate
    pitch = torch.logspace(2, 3.7, count).unsqueeze(1)
    purity = torch.linspace(0, 0.98, count).unsqueeze(1)
    tones = torch.sin(2 * torch.pi * pitch * time) * (1 - time * torch.rand(count, 1))
    return 0.3 * (purity * tones + (1 - purity) * torch.randn(count, sample_rate))


def _graph_card(
    name: str, folder: Path, seed: int, num_classes: int | None, options: dict[str, Any]
) -> ModelCard:
    from avex.testing.tiny_graphs import EMBEDDING_DIM, write_perch

    path = folder / f"tiny_{name}_{seed}.onnx"
    write_perch(path, seed=seed, num_classes=num_classes)
    return _card_of_file(name, path, EMBEDDING_DIM, num_classes, options)


def _card_of_file(
    name: str, path: Path, embedding_dim: int, num_classes: int | None, options: dict[str, Any]
) -> ModelCard:
    labels = None
    if num_classes is not None:
        labels = path.with_suffix(".labels.json")
        labels.write_text(json.dumps([f"class_{i}" for i in range(num_classes)]), encoding="utf-8")
    return ModelCard(
        name=f"tiny_{name}",
        model_spec=_spec(
            name, {key: value for key, value in options.items() if key in ModelSpec.model_fields}
        ),
        description=f"A tiny {FAMILIES[name].reference} with seeded weights, for tests",
        checkpoint_path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        class_mapping_path=str(labels) if labels else None,
        num_classes=num_classes,
        embedding_dim=embedding_dim,
        license="none",
    )
