"""Probes with a linear map, a multi-layer perceptron or an LSTM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from avex._core.errors import ConfigError
from avex.models.probes.base import Probe
from avex.models.probes.inputs import LayerMix
from avex.models.probes.positions import add_learned, learned_positions

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "swish": nn.SiLU,
}


def masked_mean(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean over time of (B, T, D), padded steps left out.

    Example:
        >>> masked_mean(torch.tensor([[[2.0], [9.0]]]), torch.tensor([[False, True]]))
        tensor([[2.]])
    """
    if padding_mask is None:
        return x.mean(1)
    keep = ~padding_mask.unsqueeze(-1)
    return x.masked_fill(~keep, 0.0).sum(1) / keep.sum(1)


class LinearProbe(Probe):
    """One linear map.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Example:
        >>> LinearProbe(LayerMix(("x",), (8,)), 3)(torch.zeros(2, 8)).shape
        torch.Size([2, 3])
    """

    probe_type = "linear"

    def __init__(self, inputs: LayerMix, num_classes: int, **options: Any) -> None:
        super().__init__(inputs, num_classes, **options)
        self.classifier = nn.Linear(inputs.dim, num_classes)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, D)."""
        return self.classifier(x)


class MLPProbe(Probe):
    """A multi-layer perceptron.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        hidden_dims: Width of each hidden layer.
        dropout_rate: Dropout after each.
        activation: `relu`, `gelu`, `tanh` or `swish`.
        **options: `base_model` and `freeze_backbone` of `Probe`.
    """

    probe_type = "mlp"

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        hidden_dims: Sequence[int] = (512, 256),
        dropout_rate: float = 0.1,
        activation: str = "relu",
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"Unknown activation '{activation}'. Choose {', '.join(_ACTIVATIONS)}.")
        parts: list[nn.Module] = []
        width = inputs.dim
        for hidden in hidden_dims:
            parts += [nn.Linear(width, hidden), _ACTIVATIONS[activation]()]
            # Published probes have no module here without dropout, which counts in the names of parameters.
            parts += [nn.Dropout(dropout_rate)] if dropout_rate > 0 else []
            width = hidden
        self.mlp = nn.Sequential(*parts, nn.Linear(width, num_classes))

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, D)."""
        return self.mlp(x)


class LSTMProbe(Probe):
    """An LSTM, whose outputs are averaged over time.

    Args:
        inputs: See `Probe`.
        num_classes: Number of logits.
        lstm_hidden_size: Width per direction.
        num_layers: Layers on top of each other.
        bidirectional: Read in both directions.
        dropout_rate: Dropout between layers and before the classifier.
        use_positional_encoding: Add learned positions.
        max_sequence_length: Most steps that learned positions have room for; 1000 if None.
        **options: `base_model` and `freeze_backbone` of `Probe`.

    Source:
        Hochreiter and Schmidhuber (1997), https://doi.org/10.1162/neco.1997.9.8.1735.
    """

    probe_type = "lstm"
    kind = "sequence"

    def __init__(
        self,
        inputs: LayerMix,
        num_classes: int,
        *,
        lstm_hidden_size: int = 256,
        num_layers: int = 2,
        bidirectional: bool = False,
        dropout_rate: float = 0.1,
        use_positional_encoding: bool = False,
        max_sequence_length: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(inputs, num_classes, **options)
        self.lstm = nn.LSTM(
            inputs.dim,
            lstm_hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            # One layer has no gap to drop in.
            dropout=dropout_rate if num_layers > 1 else 0.0,
        )
        positions = learned_positions(inputs.dim, max_sequence_length) if use_positional_encoding else None
        self.pos_encoding = positions
        self.dropout = nn.Dropout(dropout_rate)
        self.classifier = nn.Linear(lstm_hidden_size * (2 if bidirectional else 1), num_classes)

    def head(self, x: Tensor, padding_mask: Tensor | None) -> Tensor:
        """Logits of (B, N, D)."""
        if self.pos_encoding is not None:
            x = add_learned(x, self.pos_encoding)
        if padding_mask is None:
            return self.classifier(self.dropout(self.lstm(x)[0].mean(1)))
        # Steps of padding go to the end, where packing leaves them out in both directions.
        order = padding_mask.to(torch.uint8).argsort(dim=1, stable=True)
        x = x.gather(1, order.unsqueeze(-1).expand_as(x))
        lengths = (~padding_mask).sum(1)
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        outputs, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        # What was packed away is zero, so the sum is over the other steps.
        return self.classifier(self.dropout(outputs.sum(1) / lengths.unsqueeze(1)))
