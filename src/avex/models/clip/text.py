"""The text tower: RoBERTa, with the module names of the published weights, and its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avex._core.optional import require
from avex.models.clip.config import RobertaConfig

MAX_TOKENS = 70
_START, _END, _FIRST_BYTE = 0, 2, 4  # RoBERTa's numbers of its special tokens, and what follows them


class TextEncoder(nn.Module):
    """RoBERTa without its pooler.

    Args:
        config: Its sizes.

    Source:
        Liu et al. (2019), https://arxiv.org/abs/1907.11692.

    Example:
        >>> tower = TextEncoder(RobertaConfig(dim=8, depth=1, num_heads=2, hidden_dim=16, vocabulary_size=9))
        >>> tower(torch.tensor([[0, 5, 2]])).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False
        self.embeddings = _Embeddings(config)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Map tokens (B, L) to vectors (B, L, D); the first of a text stands for all of it.

        Args:
            input_ids: (B, L) int64 numbers of tokens.
            attention_mask: (B, L) 1 or True for a token, 0 or False for filling; None for all tokens.

        Raises:
            ValueError: The texts are longer than there are positions.
        """
        longest = self.config.num_positions - self.config.pad_id - 1
        if input_ids.shape[1] > longest:
            raise ValueError(
                f"A text of {input_ids.shape[1]} tokens is too long: this text tower takes at most {longest}."
            )
        keep = None if attention_mask is None else attention_mask.bool()[:, None, None, :]
        x = self.embeddings(input_ids)
        for layer in cast(nn.ModuleList, self.encoder.layer):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(layer, x, keep, use_reentrant=False)
            else:
                x = layer(x, keep)
        return x


class _Embeddings(nn.Module):
    """Sum of what a token means and where it stands."""

    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.pad_id = config.pad_id
        self.word_embeddings = nn.Embedding(config.vocabulary_size, config.dim, padding_idx=config.pad_id)
        self.token_type_embeddings = nn.Embedding(1, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=1e-5)
        self.position_embeddings = nn.Embedding(config.num_positions, config.dim, padding_idx=config.pad_id)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        # Positions count the tokens from one after the filling's number on; filling stays there.
        tokens = (input_ids != self.pad_id).long()
        positions = tokens.cumsum(1) * tokens + self.pad_id
        x = self.word_embeddings(input_ids) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x + self.token_type_embeddings.weight[0]))


class _SelfAttention(nn.Module):
    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim)
        self.value = nn.Linear(config.dim, config.dim)
        self.num_heads = config.num_heads
        self.dropout = config.dropout

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        q, k, v = (part(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in self.children())
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keep, dropout_p=dropout)
        return y.transpose(1, 2).flatten(2)


class _Output(nn.Module):
    """Linear map, added to what was there before, and layer norm."""

    def __init__(self, in_dim: int, config: RobertaConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(in_dim, config.dim)
        self.LayerNorm = nn.LayerNorm(config.dim, eps=1e-5)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + before)


class _Layer(nn.Module):
    def __init__(self, config: RobertaConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _Output(config.dim, config)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(config.dim, config.hidden_dim)})
        self.output = _Output(config.hidden_dim, config)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, keep), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


def tokens_of(
    text: str | Sequence[str] | Mapping[str, Tensor] | Tensor, model_name: str, config: RobertaConfig
) -> dict[str, Tensor]:
    """Turn text into token numbers; what is token numbers already only gets its mask.

    Long texts are cut off.

    Args:
        text: One text, several, their tokens (B, L), or a mapping with `input_ids` and perhaps
            `attention_mask`.
        model_name: Whose tokens.
        config: Its sizes.

    Returns:
        `input_ids` and `attention_mask`, both (B, L).

    Raises:
        MissingExtraError: `transformers` is not installed, and there is text to turn into tokens.
        ValueError: There is no text.
    """
    if isinstance(text, Tensor):
        text = {"input_ids": text}
    if isinstance(text, Mapping):
        ids = text["input_ids"]
        mask = text.get("attention_mask")
        return {"input_ids": ids, "attention_mask": ids != config.pad_id if mask is None else mask}
    texts = [text] if isinstance(text, str) else list(text)
    if not texts:
        raise ValueError("There is no text: give at least one string.")
    if config.reads_bytes:
        ids = byte_tokens(texts, config.num_positions - config.pad_id - 1, config.pad_id)
        return {"input_ids": ids, "attention_mask": ids != config.pad_id}
    return _tokenizer(model_name)(
        texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
    )


def byte_tokens(texts: Sequence[str], longest: int, pad_id: int = 1) -> Tensor:
    """Numbers of the bytes (UTF-8) of texts between a start and an end token, filled up to the longest, (N, L).

    Example:
        >>> byte_tokens(["ab", "a"], longest=8).tolist()
        [[0, 101, 102, 2], [0, 101, 2, 1]]
    """
    rows = [
        torch.tensor([_START, *(_FIRST_BYTE + byte for byte in text.encode()[: longest - 2]), _END])
        for text in texts
    ]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=float(pad_id))


_tokenizers: dict[str, Any] = {}


def _tokenizer(model_name: str) -> Any:
    if model_name not in _tokenizers:
        transformers = require("transformers", "text", "Turning text into tokens")
        _tokenizers[model_name] = transformers.AutoTokenizer.from_pretrained(model_name)
    return _tokenizers[model_name]
