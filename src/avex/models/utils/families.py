"""The families of architectures: their class, their other names, and what they default to.

Adding a family is one folder under `avex/models/` and one line here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from avex.configs import ModelCard, ModelSpec


class Variant(NamedTuple):
    """A published variant of a family, and how a `ModelSpec` names it.

    Attributes:
        field: Field of the spec (`name` for another name of the family).
        value: What it holds; of text only what follows the last `/` counts, in either case.
        card: The card of that variant's weights.
    """

    field: str
    value: str | bool
    card: str

    def fits(self, spec: ModelSpec) -> bool:
        """Whether a spec names this variant."""
        return _comparable(getattr(spec, self.field)) == _comparable(self.value)


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        reference: `"module:class"`, or None while this release does not implement it.
        aliases: Other family names for it.
        defaults: Fields of the `ModelSpec` that the bare family name stands for.
        card: Card whose weights `pretrained=True` loads when no checkpoint is given.
        variants: Cards for specs that name a variant; the first that fits counts. A spec that names one for which
            there is no card gets no weights, never those of another.
        padding: What a padding mask does, as in `ModelBase.padding_rule`.
        handled_padding: The same if the spec says `handle_padding: true`.
    """

    reference: str | None
    aliases: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)
    card: str | None = None
    variants: tuple[Variant, ...] = ()
    padding: str = "none"
    handled_padding: str | None = None

    def padding_rule(self, spec: ModelSpec) -> str:
        """What a padding mask does in the model of a spec of this family."""
        return self.handled_padding if spec.handle_padding and self.handled_padding else self.padding

    def card_for(self, spec: ModelSpec) -> str | None:
        """Name of the card whose weights belong to a spec of this family, or None."""
        for variant in self.variants:
            if variant.fits(spec):
                return variant.card
        named = {variant.field for variant in self.variants} - {"name"}
        return None if any(getattr(spec, field) not in (None, False) for field in named) else self.card


def _comparable(value: object) -> object:
    return value.rpartition("/")[2].lower() if isinstance(value, str) else value


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
        variants=(
            Variant("use_naturelm", True, "esp_aves2_naturelm_audio_v1_beats"),
            Variant("fine_tuned", True, "beats_iter3_plus_as2m_finetuned_cpt2"),
        ),
        padding="leaks",
    ),
    "eat_hf": Family(
        "avex.models.eat.model:Eat",
        aliases=("eat",),
        defaults={"audio_config": _raw(16000, 10)},
        card="eat_base_pretrain",
        variants=(
            Variant("model_id", "EAT-base_epoch30_pretrain", "eat_base_pretrain"),
            Variant("model_id", "EAT-base_epoch30_finetune_AS2M", "eat_base_finetune_as2m"),
        ),
        handled_padding="masked",
    ),
    "hubert": Family(
        "avex.models.hubert.model:Hubert",
        aliases=("aves", "aves_bio", "birdaves"),
        defaults={"audio_config": _raw(16000, None)},
        card="aves_base_bio",
        variants=(Variant("name", "birdaves", "birdaves_biox_base"),),
        handled_padding="leaks",
    ),
    "efficientnet": Family(
        "avex.models.efficientnet.model:EfficientNetModel",
        defaults={"audio_config": {"sample_rate": 16000}},
        card="efficientnet_b0_imagenet",
        variants=(
            Variant("efficientnet_variant", "b0", "efficientnet_b0_imagenet"),
            Variant("efficientnet_variant", "b1", "efficientnet_b1_imagenet"),
        ),
    ),
    "birdmae": Family(
        "avex.models.birdmae.model:BirdMae",
        defaults={"audio_config": _raw(32000, 5)},
        card="birdmae_huge",
        variants=(
            Variant("model_id", "Bird-MAE-Base", "birdmae_base"),
            Variant("model_id", "Bird-MAE-Large", "birdmae_large"),
            Variant("model_id", "Bird-MAE-Huge", "birdmae_huge"),
        ),
    ),
    "atst_frame": Family(
        "avex.models.atst_frame.model:AtstFrame",
        aliases=("atst",),
        defaults={"audio_config": _raw(16000, 10)},
        variants=(
            Variant("model_id", "atst_frame_small", "atst_frame_small"),
            Variant("model_id", "atst_frame_base", "atst_frame_base"),
        ),
    ),
    "resnet18": Family(
        "avex.models.resnet.model:ResNet18",
        aliases=("resnet",),
        defaults={"audio_config": {"sample_rate": 16000}},
        card="resnet18_imagenet",
        variants=(
            Variant("variant", "resnet18", "resnet18_imagenet"),
            Variant("variant", "resnet50", "resnet50_imagenet"),
            Variant("variant", "resnet152", "resnet152_imagenet"),
        ),
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
        card="perch_v1",
        variants=(Variant("name", "surfperch", "surfperch_v1"),),
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
    """A card without weights that stands for a bare family name, or another name for it or for a variant of it."""
    canonical = canonical_family(name) or name
    family = FAMILIES[canonical]
    if not any(variant.field == "name" and variant.value == name for variant in family.variants):
        name = canonical
    spec = ModelSpec(name=name, pretrained=False, device="cpu", **family.defaults)
    return ModelCard(name=name, model_spec=spec, description=f"{name} architecture, no weights")


def weights_card(spec: ModelSpec) -> str | None:
    """Name of the card whose weights a spec stands for when it states no checkpoint, or None.

    Example:
        >>> weights_card(ModelSpec(name="efficientnet", efficientnet_variant="b1"))
        'efficientnet_b1_imagenet'
    """
    family = canonical_family(spec.name)
    return FAMILIES[family].card_for(spec) if family else None
