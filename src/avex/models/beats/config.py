"""Sizes and settings of BEATs, under the names that its published checkpoints use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from avex._core.errors import ConfigError, did_you_mean
from avex.configs.settings import Positive, Share, Size, check_settings
from avex.nn.vit_config import count_items

ACTIVATIONS = ("gelu", "gelu_accurate", "gelu_fast", "relu", "tanh", "linear")


@dataclass(frozen=True)
class BeatsConfig:
    """Settings of a BEATs model; the defaults are those of the published iter3+ base model.

    Attributes:
        input_patch_size: Side of a patch, in frames and mel bands.
        embed_dim: Length of a patch embedding.
        conv_bias: Whether the patch convolution has a bias.
        encoder_layers: Number of transformer layers.
        encoder_embed_dim: Length of a token.
        encoder_ffn_embed_dim: Length inside the feed-forward part.
        encoder_attention_heads: Number of attention heads.
        activation_fn: Activation of the feed-forward part.
        layer_wise_gradient_decay_ratio: In training, factor on the gradient at the input of every layer.
        layer_norm_first: Normalise what enters a branch instead of the sum after it.
        deep_norm: Scale residuals by (2 * layers)^(1/4).
        dropout: On what the branches put out.
        attention_dropout: On attention weights.
        activation_dropout: After the activation.
        encoder_layerdrop: In training, probability that a layer is left out.
        dropout_input: On the tokens that enter the encoder.
        conv_pos: Taps of the convolutional position embedding.
        conv_pos_groups: Its groups.
        relative_position_embedding: Whether attention has a relative position bias.
        num_buckets: Rows of the table of that bias.
        max_distance: Distance from which on all positions share the last bucket.
        gru_rel_pos: Whether each query gates the bias.
        sample_frequency: Rate that the filter bank believes its input to have, in Hz. Audio may be delivered at
            another rate.
        num_mel_bins: Mel bands.
        frame_length: Window of the filter bank in milliseconds.
        frame_shift: Its hop in milliseconds.
        fbank_mean: Mean of the log mel energies.
        fbank_std: Half of what they are divided by.
        finetuned_model: Whether there is a `predictor` (AudioSet classes in the published models).
        predictor_dropout: In front of it.
        predictor_class: Its number of classes.

    Source:
        Chen et al. (2022), https://arxiv.org/abs/2212.09058.

    Example:
        >>> BeatsConfig(encoder_layers=2).encoder_embed_dim
        768
    """

    input_patch_size: Size = 16
    embed_dim: Size = 512
    conv_bias: bool = False
    encoder_layers: Size = 12
    encoder_embed_dim: Size = 768
    encoder_ffn_embed_dim: Size = 3072
    encoder_attention_heads: Size = 12
    activation_fn: str = "gelu"
    layer_wise_gradient_decay_ratio: float = 1.0
    layer_norm_first: bool = False
    deep_norm: bool = True
    dropout: Share = 0.1
    attention_dropout: Share = 0.1
    activation_dropout: Share = 0.0
    encoder_layerdrop: Share = 0.05
    dropout_input: Share = 0.0
    conv_pos: Size = 128
    conv_pos_groups: Size = 16
    relative_position_embedding: bool = True
    num_buckets: Size = 320
    max_distance: Size = 800
    gru_rel_pos: bool = True
    sample_frequency: Positive = 16000.0
    num_mel_bins: Size = 128
    frame_length: Positive = 25.0
    frame_shift: Positive = 10.0
    fbank_mean: float = 15.41663
    fbank_std: Positive = 6.55582
    finetuned_model: bool = False
    predictor_dropout: Share = 0.0
    predictor_class: Size = 527

    def __post_init__(self) -> None:
        if self.deep_norm and self.layer_norm_first:
            raise ConfigError(
                "deep_norm needs layer_norm_first=False: it scales the residual before the norm."
            )
        if self.activation_fn not in ACTIVATIONS:
            guess = did_you_mean(self.activation_fn, ACTIVATIONS)
            raise ConfigError(
                f"activation_fn '{self.activation_fn}' is not known.{guess} Choose one of {', '.join(ACTIVATIONS)}."
            )
        if self.num_buckets < 4 or self.max_distance <= self.num_buckets // 4:
            raise ConfigError(
                f"num_buckets={self.num_buckets} and max_distance={self.max_distance} do not fit together: there "
                "must be at least 4 buckets, and distances beyond a quarter of their number."
            )
        for size, part in (
            ("encoder_embed_dim", "encoder_attention_heads"),
            ("encoder_embed_dim", "conv_pos_groups"),
            ("num_mel_bins", "input_patch_size"),
        ):
            if getattr(self, size) % getattr(self, part):
                raise ConfigError(
                    f"{part}={getattr(self, part)} does not divide {size}={getattr(self, size)}."
                )

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
    ) -> BeatsConfig:
        """Put together what a user or card asks for and what a checkpoint states of itself.

        Args:
            options: `init_config`; wins, but for the predictor: it is there if the checkpoint has it.
            stated: What the checkpoint states.

        Raises:
            ConfigError: A field is unknown, or values are of another type or do not fit together.
        """
        options = check_settings(cls, "BEATs", options or {})
        settings: dict[str, Any] = dict(stated or {})
        of_the_file = ("finetuned_model", "predictor_class")
        for name, value in options.items():
            if name not in of_the_file or name not in settings:
                settings[name] = value
        return cls(**settings)

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """Names of all settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def known_fields(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a checkpoint's `cfg` that says what the network is; the rest is about its training."""
        return {name: settings[name] for name in cls.fields() if name in settings}

    @property
    def bands(self) -> int:
        """Tokens per time step."""
        return self.num_mel_bins // self.input_patch_size

    @property
    def residual_scale(self) -> float:
        """Factor on the residual of every branch."""
        return (2.0 * self.encoder_layers) ** 0.25 if self.deep_norm else 1.0

    @property
    def branch_gain(self) -> float:
        """Factor on the initial weights of value, output and feed-forward maps; deep norm wants small ones."""
        return (8.0 * self.encoder_layers) ** -0.25 if self.deep_norm else 1.0

    def num_tokens(self, num_frames: int) -> int:
        """Tokens that a number of frames gives; frames that fill no patch are left out."""
        return num_frames // self.input_patch_size * self.bands


def sizes_from_shapes(shapes: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Settings that the shapes of a checkpoint's tensors show.

    Args:
        shapes: Shapes by the names of `BeatsBackbone.state_dict()`.

    Example:
        >>> sizes_from_shapes({"patch_embedding.weight": (512, 1, 16, 16)})["embed_dim"]
        512
    """
    at = {name: tuple(shape) for name, shape in shapes.items()}
    gated = "encoder.layers.0.self_attn.grep_a" in at
    found: dict[str, Any] = {
        "finetuned_model": "predictor.weight" in at,
        "conv_bias": "patch_embedding.bias" in at,
        "gru_rel_pos": gated,
        # Gates without a table have nothing to act on: then the file lacks the table, which loading it shall say.
        "relative_position_embedding": gated or "encoder.relative_attention_bias.weight" in at,
    }
    if layers := count_items(at, "encoder.layers."):
        found["encoder_layers"] = layers
    for name, axis, key in (
        ("patch_embedding.weight", 0, "embed_dim"),
        ("patch_embedding.weight", 2, "input_patch_size"),
        ("encoder.layer_norm.weight", 0, "encoder_embed_dim"),
        ("encoder.layers.0.fc1.weight", 0, "encoder_ffn_embed_dim"),
        ("encoder.layers.0.self_attn.grep_a", 1, "encoder_attention_heads"),
        ("encoder.relative_attention_bias.weight", 0, "num_buckets"),
        ("encoder.relative_attention_bias.weight", 1, "encoder_attention_heads"),
        ("encoder.pos_conv.weight_v", 2, "conv_pos"),
        ("predictor.weight", 0, "predictor_class"),
    ):
        if axis < len(at.get(name, ())):
            found[key] = at[name][axis]
    kernel = at.get("encoder.pos_conv.weight_v", ())
    if len(kernel) == 3 and kernel[1]:
        found["conv_pos_groups"] = kernel[0] // kernel[1]
    return found
