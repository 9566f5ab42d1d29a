"""What a model is (`ModelSpec`) and what a user can load by name (`ModelCard`)."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from avex.configs.audio import AudioConfig

# Fields that every family understands; all others belong to one family and are handed to it by name.
COMMON_FIELDS = frozenset({"name", "pretrained", "device", "audio_config", "extra_config"})


class ModelSpec(BaseModel):
    """Architecture and audio settings of a model, without its weights.

    `name` is a model family (`beats`, `birdnet`, ...) or a registered class. The fields after `extra_config`
    belong to single families; a family that does not know a field that was set refuses it.

    Attributes:
        name: Family or registered model class.
        pretrained: Load the family's own default weights when no checkpoint is given.
        device: `cpu`, `cuda`, `cuda:N`, `mps`. Default of the card; `load_model(device=...)` wins.
        audio_config: Audio settings; None takes the family's.
        extra_config: Keyword arguments for a custom class.

    Example:
        >>> ModelSpec(name="efficientnet", pretrained=False, device="cpu", efficientnet_variant="b1").name
        'efficientnet'
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())

    name: str = Field(min_length=1)
    pretrained: bool = True
    device: str = "cuda"
    audio_config: AudioConfig | None = None
    extra_config: dict[str, Any] | None = None

    # EfficientNet, ResNet
    efficientnet_variant: Literal["b0", "b1"] | None = None
    variant: str | None = None
    # BEATs
    use_naturelm: bool | None = None
    fine_tuned: bool | None = None
    disable_layerdrop: bool | None = None
    init_config: dict[str, Any] | None = None
    # EAT
    eat_cfg: dict[str, Any] | None = None
    eat_norm_mean: float | None = None
    eat_norm_std: float | None = Field(default=None, gt=0)
    fairseq_weights_path: str | None = None
    pretraining_mode: bool | None = None
    handle_padding: bool | None = None
    # CLIP
    text_model_name: str | None = None
    projection_dim: PositiveInt | None = None
    temperature: float | None = Field(default=None, gt=0)
    # published elsewhere
    model_id: str | None = None
    atst_model_path: str | None = None
    language: str | None = None

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", value):
            raise ValueError(f"device '{value}' is not one of cpu, cuda, cuda:N, mps, xpu")
        return value

    def family_options(self) -> dict[str, Any]:
        """Fields of single families that were set, by name."""
        return {
            name: getattr(self, name)
            for name in self.model_fields_set - COMMON_FIELDS
            if getattr(self, name) is not None
        }


class OutputFingerprint(BaseModel):
    """What a model's embedding of the test signal of `avex check` must look like.

    A numeric summary (`avex.weights.output_fingerprint`), so that it holds across machines and versions.

    Attributes:
        shape: Shape of the embedding.
        mean: Mean of its values.
        std: Their standard deviation.
        l2: Euclidean norm.
        samples: Values at evenly spaced places, first and last included.
        rtol: Largest difference allowed, relative to the root mean square.
    """

    model_config = ConfigDict(extra="forbid")

    shape: list[PositiveInt]
    mean: float
    std: float
    l2: float
    samples: list[float] = Field(min_length=1)
    rtol: float = Field(default=1e-3, gt=0)


class ModelCard(BaseModel):
    """One name that a user can load: a spec, where its weights are, and whom to thank.

    Attributes:
        name: The name to load.
        model_spec: Architecture and audio settings.
        aliases: Other names for the same card.
        description: One line.
        checkpoint_path: Path or URI of the weights (local, `hf://`, `gs://`, `s3://`, `https://`, `package://`).
        checkpoint_format: Layout of the weights; None to recognise it.
        sha256: Checksum of the weights file in hexadecimal: 64 digits, or at least the first 8 where no more is
            published (as in torchvision's file names).
        class_mapping_path: Path or URI of the labels.
        class_mapping_column: Column that holds the labels, if that is a CSV file with a header.
        num_classes: Number of labels, if the weights have a classifier and the number is published.
        embedding_dim: Length of an embedding.
        published_layers: Transformer layers of the published network, for families whose files could hold fewer
            without contradicting themselves.
        resampler: How audio of other rates is brought to the model's; part of the model's definition.
        activation: What turns logits into scores: `sigmoid` for several labels at once, else `softmax`.
        license: Licence of the weights.
        license_note: What a user must know before using the weights or their output.
        paper: Where the model is described.
        citation: How to cite it, as BibTeX or plain text.
        tensor_sha256: sha256 of the float32 bytes of single tensors, by their name in the model's state dict, as
            far as published: they tell the right weights in another container from wrong ones (`avex check`).
        output_sha256: Published sha256 of another program's rounded output for six tones, by its version of torch.
            They hold for arithmetic that is equal to the bit, so `avex check` reports them and judges by
            `fingerprint`.
        fingerprint: Expected output for the standard test signal.

    Example:
        >>> ModelCard(name="mine", model_spec=ModelSpec(name="my_class"), license="MIT").aliases
        []
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str = Field(min_length=1)
    model_spec: ModelSpec
    aliases: list[str] = []
    description: str = ""
    checkpoint_path: str | None = None
    checkpoint_format: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{8,64}$")
    class_mapping_path: str | None = None
    class_mapping_column: str | None = Field(default=None, min_length=1)
    num_classes: PositiveInt | None = None
    embedding_dim: PositiveInt | None = None
    published_layers: PositiveInt | None = None
    resampler: Literal["soxr_hq", "kaiser_best"] = "soxr_hq"
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    license: str | None = None
    license_note: str | None = None
    paper: str | None = None
    citation: str | None = None
    tensor_sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    output_sha256: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    fingerprint: OutputFingerprint | None = None

    @model_validator(mode="before")
    @classmethod
    def _spec_at_root(cls, data: Any) -> Any:
        # A card may hold the spec's fields at its root, as the documents allow.
        if not isinstance(data, dict) or "model_spec" in data:
            return data
        card_only = set(cls.model_fields) - {"name"}
        spec = {key: value for key, value in data.items() if key not in card_only}
        return {key: data[key] for key in data if key in cls.model_fields} | {"model_spec": spec}

    @property
    def has_trained_classifier(self) -> bool:
        """Whether the weights come with a classifier and labels."""
        return self.checkpoint_path is not None and self.class_mapping_path is not None
