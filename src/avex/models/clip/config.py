"""Sizes of the text tower."""

from __future__ import annotations

from dataclasses import dataclass

from avex._core.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class RobertaConfig:
    """Sizes of one RoBERTa.

    Attributes:
        dim: Length of a token.
        depth: Number of layers.
        num_heads: Attention heads.
        hidden_dim: Length inside the MLP of a layer.
        vocabulary_size: Number of different tokens.
        num_positions: Longest text in tokens, plus two positions that are not used.
        pad_id: The token that fills up short texts.
        dropout: Share of values dropped in training.
        reads_bytes: Its tokens are the bytes of a text (UTF-8), which need no vocabulary file, instead of words.

    Source:
        Liu et al. (2019), https://arxiv.org/abs/1907.11692; for bytes Xue et al. (2022),
        https://arxiv.org/abs/2105.13626.

    Example:
        >>> RobertaConfig.named("roberta-large").depth
        24
    """

    dim: int = 768
    depth: int = 12
    num_heads: int = 12
    hidden_dim: int = 3072
    vocabulary_size: int = 50265
    num_positions: int = 514
    pad_id: int = 1
    dropout: float = 0.1
    reads_bytes: bool = False

    @classmethod
    def named(cls, model_name: str) -> RobertaConfig:
        """Return the sizes of a published model (`roberta-base`, or with its owner, `FacebookAI/roberta-base`).

        `bytes-small` is a small one of this package's own, to be trained from scratch on captions of few words.

        Raises:
            ConfigError: There is no such model.
        """
        short = model_name.rsplit("/", 1)[-1]
        if short not in TEXT_MODELS:
            raise ConfigError(
                f"Unknown text model '{model_name}'.{did_you_mean(short, TEXT_MODELS)} "
                f"Choose {', '.join(TEXT_MODELS)}."
            )
        return TEXT_MODELS[short]


TEXT_MODELS = {
    "roberta-base": RobertaConfig(),
    "roberta-large": RobertaConfig(dim=1024, depth=24, num_heads=16, hidden_dim=4096),
    "distilroberta-base": RobertaConfig(depth=6),
    "bytes-small": RobertaConfig(
        dim=128,
        depth=2,
        num_heads=4,
        hidden_dim=512,
        vocabulary_size=260,
        num_positions=258,
        reads_bytes=True,
    ),
}
