"""Sizes and settings of HuBERT, under the names of the JSON files that accompany AVES' torchaudio weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avex._core.errors import ConfigError
from avex.configs.settings import Share, Size, check_settings
from avex.nn.vit_config import count_items

ConvLayer = tuple[Size, Size, Size]
_HEAD_DIM = 64  # of every published HuBERT
_BASE_CONVS: tuple[ConvLayer, ...] = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)


@dataclass(frozen=True)
class HubertConfig:
    """Settings of a HuBERT model; the defaults are those of AVES.

    Attributes:
        extractor_mode: Must be `group_norm`: one norm, after the first convolution.
        extractor_conv_layer_config: Channels, kernel and stride of each convolution.
        extractor_conv_bias: Whether the convolutions have a bias.
        encoder_embed_dim: Length of a frame's vector.
        encoder_projection_dropout: On the frames that enter the encoder.
        encoder_pos_conv_kernel: Taps of the convolutional position embedding.
        encoder_pos_conv_groups: Its groups.
        encoder_num_layers: Number of transformer layers.
        encoder_num_heads: Number of attention heads.
        encoder_attention_dropout: On attention weights.
        encoder_ff_interm_features: Length inside the feed-forward part.
        encoder_ff_interm_dropout: After its activation.
        encoder_dropout: On what the branches put out.
        encoder_layer_norm_first: Must be False: all published AVES and BirdAVES normalise after the sum.
        encoder_layer_drop: In training, probability that a layer is left out.
        aux_num_out: Must be None; a classifier is `num_classes` of the model.

    Source:
        Hsu et al. (2021), https://arxiv.org/abs/2106.07447; Hagiwara (2022), https://arxiv.org/abs/2210.14493.

    Example:
        >>> HubertConfig().hop_length
        320
    """

    extractor_mode: str = "group_norm"
    extractor_conv_layer_config: tuple[ConvLayer, ...] = _BASE_CONVS
    extractor_conv_bias: bool = False
    encoder_embed_dim: Size = 768
    encoder_projection_dropout: Share = 0.1
    encoder_pos_conv_kernel: Size = 128
    encoder_pos_conv_groups: Size = 16
    encoder_num_layers: Size = 12
    encoder_num_heads: Size = 12
    encoder_attention_dropout: Share = 0.1
    encoder_ff_interm_features: Size = 3072
    encoder_ff_interm_dropout: Share = 0.0
    encoder_dropout: Share = 0.1
    encoder_layer_norm_first: bool = False
    encoder_layer_drop: Share = 0.05
    aux_num_out: int | None = None

    def __post_init__(self) -> None:
        convs = tuple((int(c), int(k), int(s)) for c, k, s in self.extractor_conv_layer_config)
        object.__setattr__(self, "extractor_conv_layer_config", convs)
        for name, only in (
            ("extractor_mode", "group_norm"),
            ("encoder_layer_norm_first", False),
            ("aux_num_out", None),
        ):
            if getattr(self, name) != only:
                raise ConfigError(
                    f"HuBERT with {name}={getattr(self, name)!r} is not supported, only {only!r}: that is what "
                    "AVES and BirdAVES are."
                )
        for part in ("encoder_num_heads", "encoder_pos_conv_groups"):
            if self.encoder_embed_dim % getattr(self, part):
                raise ConfigError(
                    f"{part}={getattr(self, part)} does not divide encoder_embed_dim={self.encoder_embed_dim}."
                )

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any] | None = None, stated: Mapping[str, Any] | None = None
    ) -> HubertConfig:
        """Put together what a user or card asks for (it wins) and what a checkpoint shows of itself.

        The number of attention heads shows in no tensor; unless it is given, heads have 64 numbers each, as in
        every published HuBERT.

        Raises:
            ConfigError: A field is unknown, values are of another type or do not fit together, or the number of
                heads is not clear.
        """
        settings = {**(stated or {}), **check_settings(cls, "HuBERT", options or {})}
        dim = settings.get("encoder_embed_dim", cls.encoder_embed_dim)
        if "encoder_num_heads" not in settings:
            if dim % _HEAD_DIM:
                raise ConfigError(
                    f"How many attention heads a HuBERT of width {dim} has is not clear. Pass "
                    "init_config={'encoder_num_heads': ...}, or config_path= of the JSON beside the weights."
                )
            settings["encoder_num_heads"] = dim // _HEAD_DIM
        return cls(**settings)

    @property
    def hop_length(self) -> int:
        """Samples from one frame to the next."""
        hop = 1
        for _, _, stride in self.extractor_conv_layer_config:
            hop *= stride
        return hop

    @property
    def min_samples(self) -> int:
        """Samples that one frame sees."""
        length = 1
        for _, kernel, stride in reversed(self.extractor_conv_layer_config):
            length = (length - 1) * stride + kernel
        return length

    def num_frames(self, num_samples: int) -> int:
        """Frames of a clip; 0 if it is too short."""
        return max(0, (num_samples - self.min_samples) // self.hop_length + 1)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the JSON file that accompanies torchaudio weights.

    Raises:
        ConfigError: It cannot be read, or is not a mapping.
    """
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The model config '{path}' cannot be read ({error}). Expected a JSON file."
        ) from error
    if not isinstance(settings, dict):
        raise ConfigError(f"The model config '{path}' is not a JSON object of settings.")
    return settings


def sizes_from_shapes(shapes: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """Settings that the shapes of a checkpoint's tensors show.

    Strides show in no tensor; they are the usual ones (5, then 2).

    Args:
        shapes: Shapes by the names of `HubertBackbone.state_dict()`.

    Example:
        >>> sizes_from_shapes({"encoder.transformer.layer_norm.weight": (1024,)})["encoder_embed_dim"]
        1024
    """
    at = {name: tuple(shape) for name, shape in shapes.items()}
    found: dict[str, Any] = {}
    if layers := count_items(at, "encoder.transformer.layers."):
        found["encoder_num_layers"] = layers
    if convs := count_items(at, "feature_extractor.conv_layers."):
        found["extractor_conv_layer_config"] = tuple(
            _conv(at, i) for i in range(max(convs, len(_BASE_CONVS)))
        )
        found["extractor_conv_bias"] = "feature_extractor.conv_layers.0.conv.bias" in at
    taps = at.get("encoder.transformer.pos_conv_embed.weight_v", ())
    if len(taps) == 3 and taps[1]:
        found["encoder_pos_conv_kernel"] = taps[2]
        found["encoder_pos_conv_groups"] = taps[0] // taps[1]
    for name, key in (
        ("layer_norm.weight", "encoder_embed_dim"),
        ("layers.0.feed_forward.intermediate_dense.bias", "encoder_ff_interm_features"),
    ):
        if shape := at.get(f"encoder.transformer.{name}"):
            found[key] = shape[0]
    return found


def _conv(shapes: Mapping[str, tuple[int, ...]], index: int) -> ConvLayer:
    """A convolution, or the usual one for one that a file lacks or has misshapen: loading it then says so."""
    kernel = shapes.get(f"feature_extractor.conv_layers.{index}.conv.weight", ())
    if len(kernel) != 3:
        usual = _BASE_CONVS[min(index, len(_BASE_CONVS) - 1)]
        kernel = (usual[0], 1, usual[1])
    return kernel[0], kernel[2], 2 if index else 5
