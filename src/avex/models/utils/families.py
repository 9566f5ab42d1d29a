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
    "beats": Family(None, defaults={"audio_config": _raw(16000, 10)}),
    "eat_hf": Family(None, aliases=("eat",), defaults={"audio_config": _raw(16000, 10)}),
    "hubert": Family(
        None, aliases=("aves", "aves_bio", "birdaves"), defaults={"audio_config": _raw(16000, None)}
    ),
    "efficientnet": Family(
        None, defaults={"efficientnet_variant": "b0", "audio_config": {"sample_rate": 16000}}
    ),
    "birdmae": Family(None, defaults={"audio_config": _raw(32000, 5)}),
    "atst_frame": Family(None, aliases=("atst",), defaults={"audio_config": _raw(16000, 10)}),
    "resnet18": Family(None, aliases=("resnet",), defaults={"audio_config": {"sample_rate": 16000}}),
    "resnet50": Family(None, defaults={"audio_config": {"sample_rate": 16000}}),
    "resnet152": Family(None, defaults={"audio_config": {"sample_rate": 16000}}),
    "clip": Family(None, defaults={"audio_config": {"sample_rate": 16000}}),
    "perch2": Family(None, defaults={"audio_config": _raw(32000, 5)}),
    "perch": Family(None, aliases=("surfperch",), defaults={"audio_config": _raw(32000, 5)}),
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
