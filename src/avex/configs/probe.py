"""What a probe is: its head, the layers it reads, and how it reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StrictInt, StrictStr, model_validator

from avex._core.errors import did_you_mean

ProbeAggregation = Literal["mean", "max", "cls_token", "none", "concat"]
InputProcessing = Literal["pooled", "sequence", "flatten", "none"]
Activation = Literal["relu", "gelu", "tanh", "swish"]

VECTOR_PROBES = ("linear", "mlp", "prototype", "knn")
SEQUENCE_PROBES = ("lstm", "attention", "transformer", "attention_pooling")

# Names of older documents: the same mechanism under another name.
_WEIGHTED = {f"weighted_{name}": name for name in ("linear", "mlp", "lstm", "attention", "transformer")}
PROBE_ALIASES = {
    **_WEIGHTED,
    "attention_minimal": "attention_pooling",
    "weighted_attention_minimal": "attention_pooling",
}

# Fields that a type cannot do without, with a value to start from.
_REQUIRED: dict[str, dict[str, str]] = {
    "mlp": {"hidden_dims": "[512, 256]"},
    "lstm": {"lstm_hidden_size": "256", "num_layers": "2"},
    "attention": {"num_heads": "8", "attention_dim": "512"},
    "transformer": {"num_heads": "8", "attention_dim": "512", "num_layers": "2"},
}

# Types that were registered by `register_probe_class`, and whether they read sequences.
_custom_types: dict[str, bool] = {}


def add_probe_type(name: str, *, sequence: bool) -> None:
    """Make a probe type of one's own known to `ProbeConfig`; `register_probe_class` calls this."""
    _custom_types[name] = sequence


def reads_sequences(probe_type: str) -> bool:
    """Tell whether a probe type reads (B, T, D) rather than (B, D).

    Example:
        >>> reads_sequences("lstm"), reads_sequences("weighted_linear")
        (True, False)
    """
    name = PROBE_ALIASES.get(probe_type, probe_type)
    return name in SEQUENCE_PROBES or _custom_types.get(name, False)


class ProbeConfig(BaseModel):
    """Settings of a probe.

    Vector probes (`linear`, `mlp`, `prototype`, `knn`) read one vector per clip, sequence probes (`lstm`,
    `attention`, `transformer`, `attention_pooling`) one per time step. What is not given follows from the type:
    a sequence probe has `input_processing="sequence"` and `aggregation="none"`, `attention` has one layer.
    Settings that contradict each other are errors. A config is a value: make another one to change it.

    Several layers are put side by side (`mean`, `max`, `cls_token`, `concat`), or added up with learned softmax
    weights (`none`); a vector probe with `none` takes each layer's mean over time first. The older names
    `weighted_linear` and so on mean the type with `aggregation="none"`.

    Attributes:
        probe_type: `linear`, `mlp`, `lstm`, `attention`, `transformer`, `attention_pooling` (learned queries over
            time, few parameters), `prototype`, `knn`, an alias, or a registered type.
        target_layers: `last_layer`, `backbone`, `all`, `layer_6`, numbers, or real module names.
        aggregation: `mean`, `max`, `cls_token`, `none` or `concat`.
        input_processing: `pooled`, `sequence`, `flatten` (fixed lengths only) or `none` (as it comes).
        freeze_backbone: Train the head only.
        online_training: Through the backbone (True) or on stored embeddings; None follows from the rest.
        hidden_dims: Widths inside an `mlp`.
        dropout_rate: Dropout of the head in training.
        activation: Activation of an `mlp`.
        lstm_hidden_size: Width of an `lstm`, per direction.
        bidirectional: Read the sequence in both directions (`lstm`).
        num_heads: Attention heads, or learned queries (`attention_pooling`).
        attention_dim: Width inside a `transformer`'s feed-forward part; accepted and unused by `attention`, as
            in published probes.
        num_layers: Layers of `lstm`, `attention` or `transformer`.
        use_positional_encoding: Add positions to a sequence.
        max_sequence_length: Steps that positions are made for; learned ones cannot be exceeded.
        target_length: Samples of the clips that an online probe is built for; needed with `flatten` only, if the
            model does not say.
        temperature: What cosines are divided by (`prototype`, `knn`).
        knn_neighbors: Neighbours that vote (`knn`).
        knn_weighting: Whether near neighbours count for more (`knn`).
        extra_config: Further options of a registered type.

    Raises:
        pydantic.ValidationError: (a `ValueError`) Unknown or missing fields, or a contradiction.

    Example:
        >>> ProbeConfig(probe_type="attention", target_layers=["all"], num_heads=4, attention_dim=64).aggregation
        'none'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    probe_type: str = Field(
        default="linear", json_schema_extra={"examples": [*VECTOR_PROBES, *SEQUENCE_PROBES, *PROBE_ALIASES]}
    )
    target_layers: list[StrictStr | StrictInt] = Field(min_length=1)
    aggregation: ProbeAggregation = "mean"
    input_processing: InputProcessing = "pooled"
    freeze_backbone: bool = True
    online_training: bool | None = None

    hidden_dims: Annotated[list[PositiveInt], Field(min_length=1)] | None = None
    dropout_rate: float = Field(default=0.1, ge=0, le=1)
    activation: Activation = "relu"

    lstm_hidden_size: PositiveInt | None = None
    bidirectional: bool = False

    num_heads: PositiveInt | None = None
    attention_dim: PositiveInt | None = None
    num_layers: PositiveInt | None = None
    use_positional_encoding: bool = False
    max_sequence_length: PositiveInt | None = None

    target_length: PositiveInt | None = None
    temperature: float | None = Field(default=None, gt=0)
    knn_neighbors: PositiveInt | None = None
    knn_weighting: Literal["uniform", "similarity"] | None = None
    extra_config: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """What follows from the type, where nothing else was said."""
        if not isinstance(data, Mapping):
            return data
        values = dict(data)
        given = values.get("probe_type", "linear")
        if given in _WEIGHTED and values.setdefault("aggregation", "none") != "none":
            raise ValueError(
                f"probe_type='{given}' weighs layers, which needs aggregation='none', not "
                f"'{values['aggregation']}'. Leave the aggregation out, or use probe_type='{_WEIGHTED[given]}'."
            )
        name = values["probe_type"] = PROBE_ALIASES.get(given, given) if isinstance(given, str) else given
        if isinstance(name, str) and reads_sequences(name):
            values.setdefault("input_processing", "sequence")
            values.setdefault("aggregation", "none")
        elif values.get("input_processing") == "flatten":
            values.setdefault("aggregation", "none")
        if name == "attention" and values.get("num_layers") is None:
            values["num_layers"] = 1
        return values

    @model_validator(mode="after")
    def _check(self) -> ProbeConfig:
        known = [*VECTOR_PROBES, *SEQUENCE_PROBES, *_custom_types]
        if self.probe_type not in known:
            hint = did_you_mean(self.probe_type, [*known, *PROBE_ALIASES])
            raise ValueError(f"Unknown probe_type '{self.probe_type}'.{hint} Choose {', '.join(known)}.")
        missing = {
            field: example
            for field, example in _REQUIRED.get(self.probe_type, {}).items()
            if getattr(self, field) is None
        }
        if missing:
            example = ", ".join(f"{field}={value}" for field, value in missing.items())
            raise ValueError(
                f"probe_type='{self.probe_type}' needs {', '.join(missing)}. For instance: {example}."
            )
        self._check_reading()
        if self.online_training is False and not self.freeze_backbone:
            raise ValueError(
                "online_training=False never runs the backbone, so it cannot be trained: set freeze_backbone=True, "
                "or online_training=True."
            )
        return self

    def _check_reading(self) -> None:
        """Head, pooling and processing must agree."""
        sequence, processing = reads_sequences(self.probe_type), self.input_processing
        if sequence and self.aggregation not in ("none", "concat"):
            raise ValueError(
                f"probe_type='{self.probe_type}' reads one vector per time step, but "
                f"aggregation='{self.aggregation}' leaves one per clip. Set aggregation='none', or use a linear or "
                "mlp probe."
            )
        if sequence and processing in ("pooled", "flatten"):
            raise ValueError(
                f"probe_type='{self.probe_type}' reads sequences, which input_processing='{processing}' does not "
                "keep. Set input_processing='sequence'."
            )
        if not sequence and processing == "sequence":
            raise ValueError(
                f"probe_type='{self.probe_type}' reads one vector per clip, but input_processing='sequence' keeps "
                "time. Set input_processing='pooled', or use an lstm, attention or transformer probe."
            )
        if processing == "flatten" and self.aggregation not in ("none", "concat"):
            raise ValueError(
                f"input_processing='flatten' has nothing left to flatten after aggregation='{self.aggregation}'. "
                "Set aggregation='none', or input_processing='pooled'."
            )

    @property
    def reads_sequences(self) -> bool:
        """Whether the head reads (B, T, D) rather than (B, D)."""
        return reads_sequences(self.probe_type)

    def get_training_mode(self) -> bool:
        """Whether to train through the backbone (True) or on stored embeddings.

        As stated; else True for a backbone that is trained too, and for sequences, which take much disk space.

        Example:
            >>> ProbeConfig(target_layers=["last_layer"], aggregation="mean").get_training_mode()
            False
        """
        if self.online_training is not None:
            return self.online_training
        if not self.freeze_backbone or self.reads_sequences:
            return True
        return self.aggregation == "none"


PROBE_CONFIGS: dict[str, ProbeConfig] = {
    "simple_linear": ProbeConfig(probe_type="linear", target_layers=["layer_12"], aggregation="mean"),
    "mlp_probe": ProbeConfig(
        probe_type="mlp",
        target_layers=["layer_12"],
        aggregation="mean",
        hidden_dims=[512, 256],
        dropout_rate=0.2,
        activation="gelu",
    ),
    "sequence_lstm": ProbeConfig(
        probe_type="lstm",
        target_layers=["layer_8", "layer_12"],
        aggregation="none",
        input_processing="sequence",
        lstm_hidden_size=256,
        num_layers=2,
        bidirectional=True,
    ),
    "attention_probe": ProbeConfig(
        probe_type="attention",
        target_layers=["layer_6", "layer_10"],
        aggregation="none",
        input_processing="sequence",
        num_heads=8,
        attention_dim=512,
        num_layers=2,
    ),
    "transformer_probe": ProbeConfig(
        probe_type="transformer",
        target_layers=["layer_6", "layer_8", "layer_10", "layer_12"],
        aggregation="none",
        input_processing="sequence",
        num_heads=8,
        attention_dim=512,
        num_layers=3,
        use_positional_encoding=True,
    ),
}
"""Probes to start from, by name; `layer_12` is the last block of an encoder with twelve."""
