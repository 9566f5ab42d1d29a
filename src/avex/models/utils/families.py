"""The families of architectures: their class, their other names, and what they default to.

Adding a family is one folder under `avex/models/` and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from avex.configs import ModelCard, ModelSpec


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        reference: `"module:class"`, or None while this release does not implement it.
        aliases: Other family names for it.
        defaults: Fields of the `ModelSpec` that the bare family name stands for.
        card: Card whose weights `pretrained=True` loads when no checkpoint is given.
    """

    reference: str | None
    aliases: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    card: str | None = None


def _raw(sample_rate: int, seconds: float | None) -> dict[str, Any]:
    return {
        "sample_rate": sample_rate,
        "representation": "raw",
        "normalize": False,
        "target_length_seconds": seconds,
    }


FAMILIES: dict[str, Family] = {
    "beats": Family(
        "avex.models.beats.model:Beats",
        defaults={"audio_config": _raw(16000, 10)},
        card="beats_iter3_plus_as2m",
    ),
    "eat_hf": Family(
        "avex.models.eat.model:Eat",
        aliases=("eat",),
        defaults={"audio_config": _raw(16000, 10)},
        card="eat_base_pretrain",
    ),
    "hubert": Family(
        "avex.models.hubert.model:Hubert",
        aliases=("aves", "aves_bio", "birdaves"),
        defaults={"audio_config": _raw(16000, None)},
        card="aves_base_bio",
    ),
    "efficientnet": Family(
        "avex.models.efficientnet.model:EfficientNetModel",
        defaults={"audio_config": {"sample_rate": 16000}},
        card="efficientnet_b0_imagenet",
    ),
    "birdmae": Family(
        "avex.models.birdmae.model:BirdMae", defaults={"audio_config": _raw(32000, 5)}, card="birdmae_huge"
    ),
    "atst_frame": Family(
        "avex.models.atst_frame.model:AtstFrame",
        aliases=("atst",),
        defaults={"audio_config": _raw(16000, 10)},
    ),
    "resnet18": Family(
        "avex.models.resnet.model:ResNet18",
        aliases=("resnet",),
        defaults={"audio_config": {"sample_rate": 16000}},
        card="resnet18_imagenet",
    ),
    "resnet50": Family(
        "avex.models.resnet.model:ResNet50",
        defaults={"audio_config": {"sample_rate": 16000}},
        card="resnet50_imagenet",
    ),
    "resnet152": Family(
        "avex.models.resnet.model:ResNet152",
        defaults={"audio_config": {"sample_rate": 16000}},
        card="resnet152_imagenet",
    ),
    "clip": Family("avex.models.clip.model:Clip", defaults={"audio_config": {"sample_rate": 16000}}),
    "perch2": Family(
        "avex.models.perch.model:Perch", defaults={"audio_config": _raw(32000, 5)}, card="perch_v2"
    ),
    "perch": Family(
        "avex.models.perch.model:Perch",
        aliases=("surfperch",),
        defaults={"audio_config": _raw(32000, 5)},
    ),
    "birdnet": Family("avex.models.birdnet.model:BirdNet", card="birdnet"),
}

_ALIASES = {alias: name for name, family in FAMILIES.items() for alias in family.aliases}


def canonical_family(name: str) -> str | None:
    """Return the family that `name` means, or None.

    Example:
        >>> canonical_family("eat")
        'eat_hf'
    """
    return name if name in FAMILIES else _ALIASES.get(name)


def family_names() -> list[str]:
    """All family names and their aliases."""
    return sorted([*FAMILIES, *_ALIASES])


def implemented_families() -> list[str]:
    """Families whose architecture this release implements."""
    return sorted(name for name, family in FAMILIES.items() if family.reference is not None)


def default_card(name: str) -> ModelCard:
    """A card without weights that stands for the bare family name."""
    family = FAMILIES[name]
    spec = ModelSpec(name=name, pretrained=False, device="cpu", **family.defaults)
    return ModelCard(name=name, model_spec=spec, description=f"{name} architecture, no weights")
