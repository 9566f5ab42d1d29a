"""How a probe is trained, and the configs that stand behind the names of probe types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from avex._core.errors import ConfigError
from avex.configs.probe import ProbeConfig
from avex.models.probes import load_probe_config

ClassWeights = Literal["balanced"] | Mapping[str, float] | None
ProbeChoice = ProbeConfig | Mapping[str, Any] | str | Path | None

# Half decades around 0.01, which suits standardised embeddings of about a thousand numbers.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)

# Small heads: label tables have hundreds of rows, not millions.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": {"hidden_dims": [256], "dropout_rate": 0.3},
    "lstm": {"lstm_hidden_size": 128, "num_layers": 1, "bidirectional": True, "dropout_rate": 0.3},
    "attention": {"num_heads": 4, "attention_dim": 256, "dropout_rate": 0.3},
    "transformer": {"num_heads": 4, "attention_dim": 256, "num_layers": 1, "dropout_rate": 0.3},
    "attention_pooling": {"num_heads": 4},
}
_SUFFIXES = (".yml", ".yaml")
_POOLED = ("mean", "max", "cls_token")


@dataclass(frozen=True)
class FitOptions:
    """How a probe is trained.

    Linear probes are fitted exactly and use `strength` only; prototypes and neighbours have nothing to
    train; the other heads are trained in mini-batches by AdamW (Loshchilov and Hutter, 2019) with a cosine
    schedule.

    Attributes:
        strength: C of a linear probe, the inverse of the L2 penalty; None chooses it by cross-validation
            inside the training examples, and scales the logits so that confidences are calibrated there (Guo
            et al., 2017).
        strengths: Values to choose from.
        inner_folds: Folds of that cross-validation.
        standardise: Bring each feature to mean 0 and standard deviation 1 of the training examples.
        epochs: Most passes over the training examples.
        batch_size: Examples per step; None takes 8 to 64, so that an epoch has at least 16 steps where it can.
        learning_rate: At the start of the schedule.
        weight_decay: Of AdamW.
        patience: Epochs without a better validation metric after which training stops.
        max_grad_norm: Gradients are scaled down to this length.
        resamples: Bootstrap resamples of the confidence intervals; 0 for none.

    Raises:
        ConfigError: A value makes no sense.
    """

    strength: float | None = None
    strengths: Sequence[float] = STRENGTHS
    inner_folds: int = 4
    standardise: bool = True
    epochs: int = 100
    batch_size: int | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    patience: int = 15
    max_grad_norm: float = 1.0
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "patience", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}. Expected a positive number.")
        if self.weight_decay < 0 or self.resamples < 0 or self.inner_folds < 2:
            raise ConfigError(
                "weight_decay and resamples must not be negative, and inner_folds be at least 2."
            )
        strengths = self.strengths if self.strength is None else (self.strength,)
        if not strengths or not all(value > 0 for value in strengths):
            raise ConfigError(
                f"The strengths are {list(strengths)}. Expected positive numbers, such as 0.01."
            )

    def batch_of(self, examples: int) -> int:
        """Examples per step for so many examples.

        Example:
            >>> [FitOptions().batch_of(n) for n in (50, 500, 5000)]
            [8, 31, 64]
        """
        return self.batch_size or min(max(examples // 16, 8), 64)


def make_options(options: FitOptions | None, fields: Mapping[str, Any]) -> FitOptions:
    """Options given as an object or one by one.

    Raises:
        TypeError: An unknown name.
        ConfigError: Both ways at once, or a value that makes no sense.
    """
    unknown = sorted(set(fields) - set(FitOptions.__dataclass_fields__))
    if unknown:
        raise TypeError(f"There is no option {', '.join(map(repr, unknown))} for fitting a probe.")
    if options is not None and fields:
        raise ConfigError("Give fit options either as `options` or one by one, not both.")
    return options or FitOptions(**fields)


def make_config(choice: ProbeChoice, layers: Sequence[str], aggregation: str) -> ProbeConfig:
    """Turn what a user gave into a config.

    Args:
        choice: A config; a mapping of its fields; a YAML file; the name of a probe type, which gets small
            defaults; None for a linear probe.
        layers: Layers that the embeddings are of, where the choice does not say.
        aggregation: How they were pooled, likewise.

    Raises:
        ConfigError: Unknown or contradictory settings.

    Example:
        >>> make_config("mlp", ["last_layer"], "mean").hidden_dims
        [256]
    """
    if isinstance(choice, ProbeConfig):
        return choice
    if isinstance(choice, (str, Path)) and Path(choice).suffix.lower() in _SUFFIXES:
        return load_probe_config(choice)
    if choice is None or isinstance(choice, (str, Path)):
        name = str(choice or "linear")
        choice = {"probe_type": name, **_DEFAULTS.get(name, {})}
    try:
        config = ProbeConfig(**{"target_layers": list(layers), **choice})
        if "aggregation" in choice or config.aggregation == "none" or aggregation not in _POOLED:
            return config
        return ProbeConfig(**{"target_layers": list(layers), **choice, "aggregation": aggregation})
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in error.errors())
        raise ConfigError(f"The probe cannot be configured: {problems}") from error
